"""What a trace finds, carried on: counting, exact integers, reach, nulls, other libraries and shrinking agree on it.

On small networks of each family of `gradient_nets`: units that are always live, gates, scores, weights that are made
from parameters, recurrent layers, tied ones, and parameters that are used in several shapes.
"""

from __future__ import annotations

import importlib
import math
import warnings

import networkx as nx
import numpy as np
import pytest
import torch
from gradient_nets import TABLE
from gradients import inputs_of, parameters_of, traced
from quick_capture import quick_capture

import topo
from naive import reach
from topo.errors import TopoError
from topo.graph import build_graph, paths
from topo.masks import MaskSet
from topo.metrics.paths import effective_masks
from topo.wiring import Join, Layer

NETWORKS = """hand/two inputs; hand/squeeze and excite; hand/written into a slice; layers/grouped;
    layers/transposed; layers/multihead attention; weights/tied autoencoder; weights/tied head; weights/plus
    its transpose; weights/triu; weights/kron; weights/product of two, elementwise; weights/columns of a
    larger one; weights/skew; weights/experts, one each; made/exponential; made/as a matrix and as a kernel;
    made/slimmable; gates/swiglu; gates/modulation; gates/highway; gates/padded with ones; attention/fused,
    causal; attention/learned queries; recurrent/lstm; recurrent/gru, both ways; chosen/minimum with a
    constant; maps/selective kernels; nets/table, turned; seeing/hopfield"""
NAMES = [" ".join(name.split()) for name in NETWORKS.split(";")]
KINDS = {"gate", "score", "add"}


@pytest.fixture(scope="module")
def wirings():
    """Name -> (the network, its wiring)."""
    found = {}
    for name in NAMES:
        torch.manual_seed(0)
        model = TABLE[name].build().to(TABLE[name].precision).eval()
        found[name] = model, traced(TABLE[name], model, "soft", quick_capture)
    return found


def masks_of(wiring, density=0.6):
    rng = np.random.default_rng(3)
    return MaskSet({name: rng.random(shape) < density for name, shape in wiring.shapes.items()})


def in_networkx(graph):
    """The paths from inputs to outputs, by a walk over the graph of networkx."""
    made = topo.to_networkx(graph)
    count = {node: int(about["input"]) for node, about in made.nodes(data=True)}
    for node in nx.topological_sort(made):
        for _, onward, about in made.out_edges(node, data=True):
            count[onward] += count[node] * about["multiplicity"]
    return sum(count[node] for node, about in made.nodes(data=True) if about["output"])


@pytest.mark.parametrize("name", NAMES)
def test_all_that_reads_a_wiring_agrees(name, wirings):
    wiring = wirings[name][1]
    masks = masks_of(wiring)
    graph = build_graph(masks, wiring)
    exact = paths.exact_paths(graph)
    assert exact == paths.exact_paths(graph, direction="backward") == in_networkx(graph)
    for mantissa, exponent in (paths.counts(graph).forward_total(), paths.effective_counts(graph).backward_total()):
        assert math.isclose(math.ldexp(mantissa, exponent), exact, rel_tol=1e-9)

    kept = {key: np.asarray(masks[key]) for key in masks}
    fast, naive = effective_masks(graph), reach.effective(wiring, kept)
    assert all(np.array_equal(fast[key], naive[key]) for key in kept)
    numbers = topo.analyze(masks, wiring, metrics=["effective_params", "effective_paths"]).network
    effective = sum(int(np.asarray(fast[key]).sum()) for key in kept)
    assert numbers["effective_params"] == effective

    drawn = topo.nulls.nulls["relabelled"](masks, np.random.default_rng(1), wiring)
    again = build_graph(drawn, wiring)
    assert paths.exact_paths(again) == exact and drawn.kept == masks.kept
    assert sum(int(np.asarray(mask).sum()) for mask in effective_masks(again).values()) == effective

    read = topo.Wiring.from_json(wiring.to_json())
    assert paths.exact_paths(build_graph(masks, read)) == exact and read.notes == wiring.notes


def test_the_networks_are_of_every_family_and_every_kind_of_step(wirings):
    families = {name.partition("/")[0] for name in TABLE}
    assert {name.partition("/")[0] for name in NAMES} >= families - {"papers", "transformers"}
    steps = [step for _, wiring in wirings.values() for step in wiring.steps]
    assert {step.kind for step in steps if isinstance(step, Join)} == KINDS
    assert any(operand.min() == -2 for step in steps for operand in step.operands)  # a constant beside a unit
    uses = [[step for step in wiring.steps if isinstance(step, Layer)] for _, wiring in wirings.values()]
    turned = [{(step.name, step.transposed, step.axes) for step in layers} for layers in uses]
    assert sum(len({name for name, *_ in each}) < len(each) for each in turned) >= 3  # one parameter in two shapes
    assert sum(any(step.pattern is not None for step in layers) for layers in uses) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_shrunk_networks_are_equal_or_refused_in_a_line(name, wirings, monkeypatch):
    monkeypatch.setattr(importlib.import_module("topo.trace"), "capture", quick_capture)
    model, wiring = wirings[name]
    masks, case = masks_of(wiring, 0.35), TABLE[name]
    args, kwargs = inputs_of(case, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            small = topo.shrink(model, masks, wiring, args=args, kwargs=kwargs)
        except TopoError as error:
            assert str(error) and "\n" not in str(error)
            return
        twin = TABLE[name].build().to(case.precision).eval()
        twin.load_state_dict(model.state_dict())
        topo.apply_masks(twin, masks, wiring=wiring)
    with torch.no_grad():
        before, after = (torch.utils._pytree.tree_leaves(one(*args, **kwargs)) for one in (twin, small.model))
    assert len(before) == len(after)
    for one, other in zip(before, after):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9 * float(one.abs().max()))
    sizes = [sum(p.numel() for p in parameters_of(one).values()) for one in (model, small.model)]
    assert sizes[1] <= sizes[0]
