"""Who feeds whom: layers and joins that read units and make new ones. Nothing here knows masks' bits or torch."""

from topo.wiring.chain import apart, chain
from topo.wiring.steps import CONSTANT, JOIN_KINDS, LAYER_KINDS, NOTHING, Join, Layer, Step
from topo.wiring.wiring import Wiring

__all__ = ["CONSTANT", "JOIN_KINDS", "LAYER_KINDS", "NOTHING", "Join", "Layer", "Step", "Wiring", "apart", "chain"]
