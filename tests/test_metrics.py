"""The contract of every registered metric: equal to its naive twin on every toy and view, and free of labels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import naive
import topo
import toys
from topo.errors import TopoError
from topo.graph import build_graph
from topo.graph.views import requested
from topo.masks import MaskSet
from topo.metrics import chosen, metrics
from topo.wiring import Wiring

pytestmark = pytest.mark.kernels

# Singular values are promised to 1e-8 of sigma1, of which toys have a few units.
TOLERANCES = {"spectral": (1e-8, 1e-8), "science": (1e-6, 1e-9)}  # exponents of power laws are found to 1e-7

TOYS = {
    "chain": (toys.complete(2, 3, 3, 2)[1], ()),
    "residual": (toys.residual(width=2, blocks=2, kernel=2, inputs=2, classes=2), ()),
    "unmasked": (toys.residual(width=2, blocks=1, kernel=2, inputs=2, classes=2), ("0.conv1", "fc")),
    "branching": (toys.branching(), ()),
    "gated": (toys.gated(), ()),
    "sliced": (toys.sliced(), ()),
    "grouped": (toys.grouped(), ()),
    "words": (toys.embedded(), ()),
    "sources": (toys.embedded(), ("words",)),
}
# As plain Python half of the masks run: they reach every line of the kernels that all of them reach.
CASES = [
    pytest.param(
        wiring,
        toys.sparse(wiring, density, seed, left_out),
        id=f"{name}-{density}-{seed}",
        marks=[pytest.mark.small] * (seed in (0, 2) and density < 1),
    )
    for name, (wiring, left_out) in TOYS.items()
    for density, seed in ((1.0, 0), (0.6, 0), (0.4, 1), (0.4, 2), (0.2, 3), (0.0, 0))
    if not (name == "branching" and density > 0.5) and not (name in ("residual", "unmasked") and density > 0.6)
]


def same(value: float, twin: float, group: str = "") -> bool:
    relative, absolute = TOLERANCES.get(group, (1e-9, 1e-12))
    if isinstance(value, int) and isinstance(twin, int):
        return value == twin
    return (
        (math.isnan(value) and math.isnan(twin))
        or value == twin
        or math.isclose(value, twin, rel_tol=relative, abs_tol=absolute)
    )


@pytest.mark.parametrize("view", ["channel", "unit", "kernel"])
@pytest.mark.parametrize("wiring, masks", CASES)
def test_every_metric_equals_its_naive_twin(wiring: Wiring, masks: MaskSet, view: str) -> None:
    graph, net = build_graph(masks, wiring, view), naive.Net(masks, wiring, *requested(view))
    for entry in metrics.values():
        if view == "kernel" and entry.view == "network":
            continue  # seen in the channel view
        twin = naive.twin(naive.name_of_twin(entry))
        if twin is None:
            continue  # test_every_metric_has_a_twin says so
        if entry.scope == "network":
            value = entry(graph)
            assert same(value.number, twin(net), entry.group), (entry.name, value, twin(net))
            if math.isnan(value.number) or value.number == -math.inf:
                assert value.note, f"{entry.name} is undefined and does not say why"
        else:
            for block in graph.masked_blocks:
                value = entry(graph, block)
                expected = twin(net, block.name)
                assert same(value.number, expected, entry.group), (entry.name, block.name, value, expected)
                if math.isnan(value.number):
                    assert value.note, f"{entry.name} is undefined and does not say why"


@pytest.mark.small
def test_every_metric_has_a_twin() -> None:
    assert naive.lacking(metrics.values()) == []


@pytest.mark.small
def test_a_metric_without_a_twin_is_named_with_the_file_to_write() -> None:
    given = metrics["layer:four_cycles"]
    new = [replace(given, name="spam", scope="layer"), replace(given, name="spam", scope="network"), given]
    assert naive.lacking(new) == [
        "metric 'spam' of the layer has no twin: write `def layer_spam(net, name)` in tests/naive/motifs.py",
        "metric 'spam' of the network has no twin: write `def spam(net)` in tests/naive/motifs.py",
    ]


@pytest.mark.small
def test_every_metric_has_a_unit_and_a_source() -> None:
    assert len(metrics) >= 30
    for key, entry in metrics.items():
        assert entry.unit and entry.source and entry.doc, key


def relabelled(masks: MaskSet, wiring: Wiring, rng: np.random.Generator) -> MaskSet:
    """The same network with the hidden units of a plain chain in another order."""
    arrays, before = {}, None
    for name in masks:
        mask = masks[name]
        after = rng.permutation(mask.shape[0]) if name != list(masks)[-1] else np.arange(mask.shape[0])
        mask = mask[after] if before is None else mask[after][:, before]
        arrays[name], before = mask, after
    return MaskSet(arrays)


@pytest.mark.small
@pytest.mark.parametrize("view", ["channel", "unit"])
def test_relabelling_hidden_units_changes_nothing(view: str) -> None:
    masks, wiring = toys.complete(5, 7, 6, 4)
    masks = toys.sparse(wiring, 0.4, 5)
    other = relabelled(masks, wiring, np.random.default_rng(1))
    assert other != masks
    one, two = build_graph(masks, wiring, view), build_graph(other, wiring, view)
    for entry in metrics.values():
        if entry.ordered:  # N:M and block patterns are of the numbered network
            continue
        if entry.scope == "network":
            assert same(entry(one).number, entry(two).number, entry.group), entry.name
        else:
            for a, b in zip(one.masked_blocks, two.masked_blocks):
                assert same(entry(one, a).number, entry(two, b).number, entry.group), entry.name


@pytest.mark.small
def test_metrics_are_chosen_by_name_group_and_default() -> None:
    assert {entry.name for entry in chosen("kept,density")} == {"kept", "density"}
    assert {entry.name for entry in chosen(["paths"])} <= {entry.name for entry in chosen("all")}
    with pytest.raises(TopoError, match="no metric or group is called 'spam'"):
        chosen("kept,spam")


@pytest.mark.small
def test_nodes_in_the_convention_of_npb_have_its_name_too() -> None:
    assert topo.analyze({"a": np.ones((3, 4))}, metrics="nodes_npb").network == {"nodes": 7}
