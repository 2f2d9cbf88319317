"""The old name of topo.graph.views, kept for one release."""

from topo.graph.views import NETWORK_VIEWS, VIEWS, Edges, channel, kernel, of_layer, requested, unit

__all__ = ["NETWORK_VIEWS", "VIEWS", "Edges", "requested", "channel", "kernel", "of_layer", "unit"]
