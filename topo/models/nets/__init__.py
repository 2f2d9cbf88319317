"""The torch modules behind the names in `topo.models`."""
