"""Kernels against numpy, on shapes that straddle words."""

from __future__ import annotations

import numpy as np
import pytest

from topo.kernels import bits, paths, reach
from topo.masks import _pack

pytestmark = pytest.mark.small
SHAPES = [(1, 1), (3, 63), (4, 64), (5, 65), (7, 147), (33, 200)]


def random_mask(shape: tuple[int, int], density: float = 0.3) -> np.ndarray:
    return np.random.default_rng(hash(shape) % 1000).random(shape) < density


def numpy_words(mask: np.ndarray) -> np.ndarray:
    words = np.zeros((len(mask), -(-mask.shape[1] // 64)), np.uint64)
    packed = np.packbits(mask, axis=1, bitorder="little")
    words.view(np.uint8)[:, : packed.shape[1]] = packed
    return words


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.uint16])
def test_pack(shape, dtype) -> None:
    mask = random_mask(shape)
    values = mask.astype(dtype) * (3 if dtype != np.uint16 else 0x3C00)
    words = np.full(numpy_words(mask).shape, 7, np.uint64)
    bits.pack(values, words)
    assert (words == numpy_words(mask)).all()


def test_pack_signs_nan_and_the_smallest_numbers() -> None:
    row = [0.0, -0.0, np.nan, np.inf, -np.inf, np.finfo(np.float32).smallest_subnormal, -1e-45] + [0.0] * 70
    for dtype in (np.float32, np.float64):
        words = np.zeros((1, 2), np.uint64)
        bits.pack(np.array([row], dtype), words)
        assert words[0, 0] == 0b1111100 and words[0, 1] == 0
    halves = np.array([[0x0000, 0x8000, 0x7E00, 0x0001, 0x8001] + [0x8000] * 70], np.uint16)
    words = np.zeros((1, 2), np.uint64)
    bits.pack(halves, words)
    assert words[0, 0] == 0b11100 and words[0, 1] == 0


@pytest.mark.parametrize("taps", [1, 2, 9, 25, 49, 64, 121, 200])
def test_kernel_counts(taps: int) -> None:
    mask = random_mask((6, 5 * taps))
    counts = np.zeros((6, 5), np.uint16)
    bits.kernel_counts(numpy_words(mask), taps, counts)
    assert (counts == mask.reshape(6, 5, taps).sum(axis=2)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_pull_and_push(shape) -> None:
    mask, rng = random_mask(shape), np.random.default_rng(0)
    codes = numpy_words(mask).view(np.uint8)
    x, b = np.zeros(8 * codes.shape[1]), rng.integers(0, 2**30, shape[0]).astype(float)
    x[: shape[1]] = rng.integers(0, 2**30, shape[1])
    y, z = np.empty(shape[0]), np.empty(8 * codes.shape[1])
    paths.pull_bits(codes, x, y)
    paths.push_bits(codes, b, z)
    assert (y == mask @ x[: shape[1]]).all()  # integers below 2**53: exact in any order
    assert (z[: shape[1]] == b @ mask).all() and not z[shape[1] :].any()


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_pull_and_push_counts_with_groups(groups: int) -> None:
    rng = np.random.default_rng(groups)
    counts = rng.integers(0, 10, (6, 4)).astype(np.uint16)
    dense = np.zeros((6, 4 * groups))
    for row in range(6):
        group = row // (6 // groups)
        dense[row, 4 * group : 4 * group + 4] = counts[row]
    x, b = rng.random(4 * groups), rng.random(6)
    y, z = np.empty(6), np.empty(4 * groups)
    paths.pull_counts(counts, 6 // groups, x, y)
    paths.push_counts(counts, 6 // groups, b, z)
    assert y == pytest.approx(dense @ x) and z == pytest.approx(b @ dense)


@pytest.mark.parametrize("shape", SHAPES)
def test_reach(shape) -> None:
    mask, rng = random_mask(shape), np.random.default_rng(1)
    words = numpy_words(mask)
    inputs, outputs = rng.random(shape[1]) < 0.3, rng.random(shape[0]) < 0.5
    flags = numpy_words(inputs[None])
    live, back, out = np.empty(shape[0], bool), np.empty_like(flags), np.empty_like(words)
    reach.reach_forward(words, flags, shape[0], live)
    reach.reach_backward(words, outputs, shape[0], back)
    reach.effective(words, flags, outputs, shape[0], out)
    assert (live == (mask & inputs).any(axis=1)).all()
    assert (back == numpy_words((mask & outputs[:, None]).any(axis=0)[None])).all()
    assert (out == numpy_words(mask & inputs & outputs[:, None])).all()


def test_packing_does_not_depend_on_who_packs(monkeypatch) -> None:
    mask = random_mask((40, 333))
    by_numpy = _pack(mask.astype(np.float32))
    monkeypatch.setattr("topo.masks._SMALL", 0)
    assert (_pack(mask.astype(np.float32)) == by_numpy).all()
    assert (_pack(mask.astype(np.float16)) == by_numpy).all()
    assert (_pack(mask) == by_numpy).all() and (_pack(mask.astype(np.int64)) == by_numpy).all()
