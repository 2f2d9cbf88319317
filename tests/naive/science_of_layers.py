"""Twins of SCIENCE of single layers: the twin of a whole network, of one that is built of a layer's pairs of units.

Networks of the same degrees are drawn within groups, so that these stay.
"""

from __future__ import annotations

import functools
from itertools import product

import numpy as np

from naive import science
from naive.degrees import edges
from naive.net import Net
from topo.masks import MaskSet
from topo.wiring import Layer, Wiring

_NAMES = (
    "path_length global_efficiency active_neuron_rate small_world_sigma small_world_omega rich_club betweenness_share "
    "modularity"
)


def _alone(net: Net, name: str) -> tuple[bytes, tuple[int, int], int]:
    """The bits, shape and groups of a layer as a matrix: a column for each left unit of a group."""
    layer, kernel = net.wiring.layer(name), net.layer_view == "kernel"
    places = [range(n) for n in (layer.shape[1:] if kernel else layer.shape[1:2])]
    column = {place: number for number, place in enumerate(product(*places))}
    mask = np.zeros((layer.shape[0], len(column)), bool)
    for left, out in edges(net, name):
        mask[out, column[left[1:]]] = True
    return mask.tobytes(), mask.shape, layer.groups


@functools.cache
def _number(twin: str, bits: bytes, shape: tuple[int, int], groups: int):
    mask, left = np.frombuffer(bits, bool).reshape(shape), groups * shape[1]
    layer = Layer("w", shape, np.arange(left), left, groups=groups)
    wiring = Wiring(np.arange(left), (layer,), left + np.arange(shape[0]))
    return getattr(science, twin)(Net(MaskSet({"w": mask}), wiring))


def _of_layer(twin: str):
    return lambda net, name: _number(twin, *_alone(net, name))


for _twin in _NAMES.split():
    globals()[f"layer_{_twin}"] = _of_layer(_twin)
