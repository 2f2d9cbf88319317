"""Two thousand random networks: their effective weights are those with a non-zero gradient (`random_nets`).

As many as one asks for run by hand: `make trace-random N=50000`.
"""

from __future__ import annotations

import pytest
import torch
from gradients import CONVENTIONS
from quick_capture import quick_capture
from random_nets import BATCH, KINDS, Many, RandomNet, program, wrong
from torch.fx.node import map_arg

from topo.trace.capture import capture

NETWORKS = 2000


@pytest.mark.parametrize(
    "start", [pytest.param(at, marks=[pytest.mark.slow] * (at >= 4 * BATCH)) for at in range(0, NETWORKS, BATCH)]
)
def test_random_networks(start):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        convention = CONVENTIONS[start // BATCH % 2]
        found = wrong(range(start, start + BATCH), convention)
    finally:
        torch.set_num_threads(before)
    texts = [f"seed {seed}:\n" + "\n".join([*lines, program(seed, convention)]) for seed, lines in found.items()]
    assert not found, "\n".join(texts)


def test_networks_are_drawn_from_their_seed_and_differ():
    assert program(5, "soft") == program(5, "soft")
    programs = {program(seed, "soft") for seed in range(100)}
    assert len(programs) > 95 and {RandomNet(seed).kind for seed in range(30)} == {"line", "tokens", "maps"}


def test_the_quick_capture_gives_the_graph_that_export_gives():
    model, given = Many(range(BATCH), "soft").double().eval(), [torch.ones(shape).double() for shape in KINDS.values()]
    quick, export = (way(model, tuple(given), {}) for way in (quick_capture, capture))
    assert list(_operations(quick.graph.graph)) == list(_operations(export.graph.graph))


def _operations(graph):
    """Each operation, with its arguments told by the number of the operation that gave them, or by their parameter."""
    names = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            names[node] = node.meta.get("parameter", "given")
        elif node.op == "call_function":
            names[node] = str(len([n for n in names if n.op == "call_function"]))
            yield str(node.target), repr(map_arg((node.args, node.kwargs), lambda arg: names[arg]))
