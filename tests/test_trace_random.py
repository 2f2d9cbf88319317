"""Two thousand random networks: their effective weights are those with a non-zero gradient (`random_nets`).

As many as one asks for run by hand: `make trace-random N=50000`.
"""

from __future__ import annotations

import pytest
import torch
from gradients import CONVENTIONS
from random_nets import BATCH, RandomNet, program, wrong

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
