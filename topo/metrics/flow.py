"""The old name of topo.graph.paths, kept for one release."""

from topo.graph.paths import effective_counts, effective_words, exact_paths, live, log10

__all__ = ["effective_counts", "effective_words", "exact_paths", "live", "log10"]
