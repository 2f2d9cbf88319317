"""What every room leans on: registries, random streams, threads, files written whole."""
