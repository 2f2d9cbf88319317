"""Structure between channels: a graph on the channels of each group, and kernel positions placed evenly at random.

A layer of shape (out, in / groups, *kernel) is a matrix of multiplicities, 0 to height * width, one for each pair of
channels. Budgets spread as evenly as they can: over the groups, over the pairs of channels (every pair gets the same
multiplicity, and a simple graph says which pairs get one more), and over the kernel positions. With the spread within 1
at each step, row and column sums of a biregular graph stay within 1 over the whole layer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from topo.generators.choice import inverted
from topo.kernels.biregular import deal
from topo.masks import BitRows
from topo.wiring import Layer

# rows, columns, edges (from 1 to rows * columns - 1) -> bit rows of a simple bipartite graph
Draw = Callable[[int, int, int], np.ndarray]


def on_channels(layer: Layer, budget: int, draw: Draw, rng: np.random.Generator) -> BitRows:
    """The layer with exactly `budget` parameters, on a graph that `draw` makes for each group."""
    rows, columns = layer.outputs // layer.groups, layer.shape[1]
    graph = np.zeros((layer.outputs, -(-columns // 64)), np.uint64)
    everywhere = np.zeros(layer.groups, np.int64)
    for group, share in enumerate(even(budget, layer.groups, rng).tolist()):
        everywhere[group], edges = divmod(share, rows * columns)
        if edges:
            graph[group * rows : (group + 1) * rows] = draw(rows, columns, edges)
    if layer.kernel_size == 1:
        full = np.repeat(everywhere > 0, rows)
        graph[full] = inverted(graph[full], columns)
        return BitRows(layer.shape, graph)
    return placed(layer, unpacked(graph, columns) + np.repeat(everywhere, rows)[:, None], rng)


def placed(layer: Layer, counts: np.ndarray, rng: np.random.Generator) -> BitRows:
    """The layer with counts[o, i] parameters at random positions of the kernel from channel i to o.

    Positions are dealt from shuffled decks: over the layer each is kept equally often, or once more.
    """
    kernel_size, columns = layer.kernel_size, layer.size // layer.outputs
    words = np.zeros((layer.outputs, -(-columns // 64)), np.uint64)
    deal(np.ascontiguousarray(counts, np.int64).reshape(-1), counts.shape[1], kernel_size, columns, True, rng, words)
    return BitRows(layer.shape, words)


def even(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """int64 (parts,): numbers within 1 of each other that sum to `total`; which are the larger is random."""
    share, rest = divmod(total, parts)
    numbers = np.full(parts, share, np.int64)
    numbers[rng.permutation(parts)[:rest]] += 1
    return numbers


def unpacked(words: np.ndarray, columns: int) -> np.ndarray:
    """Bit rows -> bool (rows, columns)."""
    return np.unpackbits(words.view(np.uint8), axis=1, count=columns, bitorder="little").view(np.bool_)


def packed(matrix: np.ndarray) -> np.ndarray:
    """bool (rows, columns) -> bit rows."""
    words = np.zeros((len(matrix), -(-matrix.shape[1] // 64)), np.uint64)
    bits = np.packbits(matrix, axis=1, bitorder="little")
    words.view(np.uint8)[:, : bits.shape[1]] = bits
    return words
