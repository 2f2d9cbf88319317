"""The old name of topo.torch_prune, kept for one release."""

from topo.torch_prune import FromMask

__all__ = ["FromMask"]
