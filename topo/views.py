"""The old name of topo.graph.views, kept for one release."""

from topo.graph.views import NETWORK_VIEWS, VIEWS, Edges, asked, channel, kernel, of_layer, unit

__all__ = ["NETWORK_VIEWS", "VIEWS", "Edges", "asked", "channel", "kernel", "of_layer", "unit"]
