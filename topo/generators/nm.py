"""Random N:M: at most N kept among M consecutive inputs."""

from __future__ import annotations

import numpy as np

from topo.errors import TopoError
from topo.generators import Budgets, Drawn, generator, requested
from topo.generators.channels import packed, unpacked
from topo.generators.choice import choose
from topo.kernels.biregular import deal
from topo.masks import BitRows
from topo.n_m import parse_n_m
from topo.wiring import Layer, Wiring


def n_m_rows(layer: Layer, budget: int, n: int, m: int, rng: np.random.Generator) -> BitRows:
    """The layer with exactly `budget` parameters, at most n in each group of m inputs and spread evenly over groups.

    Groups lie along the input channels, one row of them for each output and kernel position; the last is smaller if m
    does not divide the inputs, and obeys n all the same. Within a group every choice is equally likely. TopoError if
    the groups cannot hold the budget.
    """
    inputs, lines = layer.shape[1], layer.outputs * layer.kernel_size
    room = np.full(-(-inputs // m), n, np.int64)
    room[-1] = min(n, inputs - (len(room) - 1) * m)
    most = lines * int(room.sum())
    if budget > most:
        raise TopoError(
            f"layer '{layer.name}' {layer.shape} holds at most {most:,} parameters under {n}:{m} but is to keep "
            f"{budget:,}; ask for a density of {n / m:g} or less, with quota=uniform"
        )
    room = np.tile(room, lines)
    level = next(level for level in range(n, -1, -1) if np.minimum(room, level).sum() <= budget)
    counts = np.minimum(room, level)
    larger = np.flatnonzero(room > level)
    more = choose((1, max(1, len(larger))), budget - int(counts.sum()), rng)
    counts[larger] += unpacked(more.words, len(larger))[0]
    words = np.zeros((lines, -(-inputs // 64)), np.uint64)
    deal(counts, len(room) // lines, m, inputs, False, rng, words)
    if layer.kernel_size > 1:
        kernels = unpacked(words, inputs).reshape(layer.outputs, layer.kernel_size, inputs).transpose(0, 2, 1)
        words = packed(kernels.reshape(layer.outputs, -1))
    return BitRows(layer.shape, words)


@generator(source="Hubara et al. 2021; Zhou et al. 2021", quota="uniform")
def nm(wiring: Wiring, budgets: Budgets, rng: np.random.Generator, *, nm: str = "2:4") -> Drawn:
    """Random N:M: at most N kept of each M consecutive inputs; exactly N at density N / M.

    Groups along the input channels of each kernel position. Below density N / M groups keep equally many, or one more.
    """
    n, m = parse_n_m(nm)
    for layer, budget in requested(wiring, budgets):
        yield layer.name, n_m_rows(layer, budget, n, m, rng)
