"""Small networks with known answers: the shared vocabulary of the tests."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from topo.masks import MaskSet
from topo.wiring import Join, Layer, Wiring, chain


def complete(*widths: int) -> tuple[MaskSet, Wiring]:
    """A dense chain: prod(widths) paths, sigma1 of a layer sqrt(a b)."""
    masks = MaskSet({f"fc{k}": np.ones((b, a), bool) for k, (a, b) in enumerate(pairwise(widths), 1)})
    return masks, chain(masks)


def disjoint(blocks: int, size: int, depth: int) -> tuple[MaskSet, Wiring]:
    """`blocks` disjoint complete chains of `size` units and `depth` layers: blocks * size**(depth + 1) paths."""
    mask = np.kron(np.eye(blocks), np.ones((size, size))).astype(bool)
    masks = MaskSet({f"fc{k}": mask for k in range(depth)})
    return masks, chain(masks)


def mixed_radix(*radices: int) -> tuple[MaskSet, Wiring]:
    """RadiX-Net: layer i joins j to j + k * (radices before i), k < radix i, modulo n = prod(radices).

    Every input reaches every output by exactly one path: n**2 in all.
    """
    n, step, masks = int(np.prod(radices)), 1, {}
    for k, radix in enumerate(radices):
        mask = np.zeros((n, n), bool)
        for jump in range(radix):
            mask[(np.arange(n) + jump * step) % n, np.arange(n)] = True
        masks[f"fc{k}"], step = mask, step * radix
    return MaskSet(masks), chain(MaskSet(masks))


def residual(width: int = 4, blocks: int = 2, kernel: int = 3, inputs: int = 3, classes: int = 5) -> Wiring:
    """stem -> blocks of (conv, conv) with identity skips, the last with a shortcut convolution -> linear."""
    steps: list[Layer | Join] = [
        Layer("stem", (width, inputs, kernel, kernel), np.arange(inputs), inputs, "conv", positions=16)
    ]
    stream, start = np.arange(inputs, inputs + width), inputs + width
    for k in range(blocks):
        last = k == blocks - 1
        steps.append(Layer(f"{k}.conv1", (width, width, kernel, kernel), stream, start, "conv", positions=16))
        middle = np.arange(start, start + width)
        steps.append(Layer(f"{k}.conv2", (width, width, kernel, kernel), middle, start + width, "conv", positions=16))
        branch, skip, start = middle + width, stream, start + 2 * width
        if last:
            steps.append(Layer(f"{k}.shortcut", (width, width, 1, 1), stream, start, "conv", positions=16))
            skip, start = np.arange(start, start + width), start + width
        steps.append(Join("add", (branch, skip), start))
        stream, start = np.arange(start, start + width), start + width
    steps.append(Layer("fc", (classes, width), stream, start, "linear", positions=1))
    return Wiring(np.arange(inputs), tuple(steps), np.arange(start, start + classes))


def branching() -> Wiring:
    """Concatenation, zero padding, grouped convolutions, a flatten in both orders, a parameter that is used twice."""
    steps = (
        Layer("a", (4, 2, 3, 3), np.arange(2), 2, "conv", positions=4),  # 2..5
        Layer("b", (3, 2, 1, 1), np.arange(2), 6, "conv", positions=4),  # 6..8
        Layer("grouped", (4, 3, 3, 3), np.array([2, 3, 4, 5, 6, 7]), 9, "conv", groups=2, positions=4),  # 9..12
        Layer("depthwise", (4, 1, 3, 3), np.arange(9, 13), 13, "conv", groups=4, positions=4),  # 13..16
        Join("add", (np.arange(13, 17), np.array([8, -1, 2, -1])), 17),  # 17..20: zero padding
        Layer("twice", (4, 4), np.arange(17, 21), 21, positions=1),  # 21..24
        Layer("twice", (4, 4), np.arange(21, 25), 25, positions=1),  # 25..28
        Layer("first", (3, 8), np.repeat(np.arange(25, 29), 2), 29, positions=1),  # 29..31: channels first
        Layer("last", (3, 8), np.tile(np.arange(25, 29), 2), 32, positions=1),  # 32..34: channels last
        Layer("out", (2, 7), np.array([29, 30, 31, 32, 33, 34, 29]), 35, positions=1),  # 35, 36
    )
    return Wiring(np.arange(2), steps, np.arange(35, 37))


def gated(heads: int = 2, width: int = 2) -> Wiring:
    """A gated linear unit, then attention with `heads` heads, and a skip around it."""
    n = heads * width
    steps: list[Layer | Join] = [
        Layer("up", (n, 3), np.arange(3), 3, positions=2),
        Layer("gate", (n, 3), np.arange(3), 3 + n, positions=2),
        Join("gate", (np.arange(3, 3 + n), np.arange(3 + n, 3 + 2 * n)), 3 + 2 * n),
    ]
    x, start = np.arange(3 + 2 * n, 3 + 3 * n), 3 + 3 * n
    units = {}
    for name in ("query", "key", "value"):
        steps.append(Layer(name, (n, n), x, start, positions=2))
        units[name], start = np.arange(start, start + n), start + n
    steps.append(Join("score", (units["query"], units["key"]), start, width=width))
    scores, start = np.arange(start, start + heads), start + heads
    steps.append(Join("gate", (units["value"], np.repeat(scores, width)), start))
    mixed, start = np.arange(start, start + n), start + n
    steps.append(Layer("proj", (n, n), mixed, start, positions=2))
    steps.append(Join("add", (x, np.arange(start, start + n)), start + n))
    steps.append(Layer("head", (2, n), np.arange(start + n, start + 2 * n), start + 2 * n, positions=1))
    start += 2 * n
    return Wiring(np.arange(3), tuple(steps), np.arange(start, start + 2))


def sliced() -> Wiring:
    """Rows of a parameter on one tensor, others on another, columns of one on each of two; and a dead end."""
    steps = (
        Layer("stem", (4, 3), np.arange(3), 3, positions=2),  # 3..6
        Layer("rows", (5, 3), np.arange(3), 7, positions=2, rows=np.array([0, 3])),  # 7, 10
        Layer("rows", (5, 3), np.array([3, 4, 6]), 12, positions=4, rows=np.array([1, 2, 4])),  # 13, 14, 16
        Layer("dead", (2, 4), np.arange(3, 7), 17, positions=1),  # 17, 18
        Layer("columns", (2, 4), np.array([7, 10, -1, -1]), 19, positions=1, columns=np.array([0, 1])),  # 19, 20
        Layer("columns", (2, 4), np.array([-1, -1, 13, 14]), 21, positions=3, columns=np.array([2, 3])),  # 21, 22
        Join("gate", (np.arange(19, 21), np.array([16, 16])), 23),  # 23, 24
        Join("add", (np.arange(23, 25), np.arange(21, 23)), 25),  # 25, 26
        Layer("out", (2, 2), np.arange(25, 27), 27, positions=1),  # 27, 28
    )
    return Wiring(np.arange(3), steps, np.arange(27, 29))


def grouped() -> Wiring:
    """A grouped layer that reads units several times in a group and in both, then one parameter in two groupings."""
    steps = (
        Layer("stem", (4, 2), np.arange(2), 2, positions=1),  # 2..5
        Layer("pairs", (4, 3), np.array([2, 2, 3, 3, 4, 4]), 6, groups=2, positions=1),  # 6..9
        Layer("both", (4, 2), np.arange(6, 10), 10, groups=2, positions=1),  # 10..13
        Layer("both", (4, 2), np.repeat(np.arange(10, 14), 2), 14, groups=4, positions=1),  # 14..17
        Layer("out", (2, 4), np.arange(14, 18), 18, positions=1),  # 18, 19
    )
    return Wiring(np.arange(2), steps, np.arange(18, 20))


def embedded() -> Wiring:
    """An embedding of 5 words in 3 dimensions (stored input-first), then a linear layer."""
    return Wiring(
        np.arange(5),
        (
            Layer("words", (3, 5), np.arange(5), 5, "embedding", positions=2, transposed=True),
            Layer("head", (2, 3), np.arange(5, 8), 8, positions=2),
        ),
        np.arange(8, 10),
    )


def strange() -> Wiring:
    """A score and a gate of it as values, a gate that is never open, and a layer that reads rows outside a part."""
    steps = (
        Layer("a", (4, 2), np.arange(2), 2, rows=[0, 1]),  # 2..5; 4 and 5 carry nothing
        Join("score", (np.array([2, 3]), np.array([3, 2])), 6, width=2),  # 6: live, on no path
        Join("gate", (np.array([6, 2, 3]), np.array([2, 6, 4])), 7),  # 7: of a score; 8; 9: never open
        Layer("b", (2, 5), np.array([4, 5, 7, 8, 9]), 10),  # 10, 11
        Layer("c", (2, 2), np.array([4, 5]), 12),  # 12, 13: reads nothing that is carried
    )
    return Wiring(np.arange(2), steps, np.array([10, 11, 12]))


def sparse(wiring: Wiring, density: float, seed: int = 0, leave_out: tuple[str, ...] = ()) -> MaskSet:
    """Independent random masks of one density on every layer."""
    rng = np.random.default_rng(seed)
    return MaskSet(
        {name: rng.random(shape) < density for name, shape in wiring.shapes.items() if name not in leave_out}
    )
