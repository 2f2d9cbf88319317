"""The pass that counts without keeping a mask: held against numpy and torch, for every type of numbers."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
import torch

from topo.containers.counting import count
from topo.containers.number_types import packed
from topo.containers.pages import release
from topo.containers.tensors import Tensor
from topo.errors import MaskError
from topo.masks import BitRows
from topo.metrics.structure import block_occupancy, n_m_compliance

PATTERNS = ((2, 4), (4, 8), (1, 2), (1, 3), (3, 16), (5, 32), (9, 64), (4, 4))
SHAPES = ((1, 1), (5, 3), (7, 64), (300, 65), (64, 200), (1030, 130), (9, 1000), (3, 4, 3, 3), (4, 5, 6))
INTEGERS = ("int8", "uint8", "bool", "int32")
FLOATS = ("bfloat16", "float16", "float32", "float64",
          "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")  # fmt: skip


def stored(values: torch.Tensor, dtype: str) -> tuple[torch.Tensor, Tensor]:
    """Values rounded to a type, and the same as a tensor of a file."""
    rounded = values.to(getattr(torch, dtype))
    bits = {1: torch.uint8, 2: torch.int16}
    plain = dtype in (*INTEGERS, "float16", "float32", "float64")
    array = rounded.numpy() if plain else rounded.view(bits[rounded.element_size()]).numpy()
    return rounded, Tensor.of(array.view(np.uint16) if dtype == "bfloat16" else array, dtype)


def drawn(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> torch.Tensor:
    """Numbers of all sizes with zeros of both signs, denormal, infinite and NaN ones among them."""
    values = torch.from_numpy(rng.standard_normal(shape) * rng.integers(0, 2, shape))
    if dtype in INTEGERS:
        return (values * 3).clamp(0 if dtype in ("uint8", "bool") else -5, 5)
    values *= torch.from_numpy(10.0 ** rng.integers(-50, 40, shape))
    flat = values.view(-1)
    flat[0] = float("nan")
    flat[len(flat) // 2] = float("-inf")
    return values


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_counts_are_those_of_the_values(dtype):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        rounded, tensor = stored(drawn(shape, dtype, rng), dtype)
        found = count(tensor, PATTERNS, threads=1 + shape[0] % 2)
        values = rounded.to(torch.float64)
        kept = (values != 0).numpy()
        rows = BitRows.of_mask(kept)
        assert found.rows.tolist() == kept.reshape(shape[0], -1).sum(1).tolist()
        assert found.columns.tolist() == kept.reshape(shape[0], -1).sum(0).tolist()
        assert found.kept == kept.sum() and found.size == kept.size
        for (n, m), over in found.over.items():
            assert 1 - over / found.groups(m) == pytest.approx(n_m_compliance(rows, n, m), abs=1e-12)
        assert found.block_occupancy == pytest.approx(block_occupancy(rows), abs=1e-12)
        assert tensor.weights().bits("w").same_as(rows)
        if dtype in INTEGERS:
            assert (found.minus_zeros, found.denormals, found.infinite, found.nan) == (0, 0, 0, 0)
            continue
        small = torch.finfo(getattr(torch, dtype)).smallest_normal
        assert found.nan == values.isnan().sum() and found.infinite == values.isinf().sum()
        assert found.denormals == ((values.abs() < small) & (values != 0)).sum()
        assert found.minus_zeros == ((values == 0) & torch.signbit(values)).sum()


def test_blocks_of_odd_height_and_threads_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    values = (rng.random((1001, 70)) < 0.05).astype(np.float32)
    whole = count(Tensor.of(values), PATTERNS)

    def rows(step):
        start = 0
        while start < len(values):  # as readers give them that put experts together
            yield values[start : start + 7]
            start += 7

    for threads in (1, 3):
        found = count(Tensor(values.shape, "float32", rows), PATTERNS, threads)
        assert found.rows.tolist() == whole.rows.tolist() and found.columns.tolist() == whole.columns.tolist()
        assert found.over == whole.over and found.blocks == whole.blocks


def test_numpy_packs_as_the_kernel_does(monkeypatch):
    rng = np.random.default_rng(2)
    for dtype in (*FLOATS, "int8"):
        _, tensor = stored(drawn((20, 70), dtype, rng), dtype)
        values = tensor.whole()
        found = []
        for modules in ({"numba": None}, {}):
            words, tally = np.empty((20, 2), np.uint64), np.zeros(4, np.int64)
            with monkeypatch.context() as patch:
                patch.setattr("topo.containers.number_types.sys.modules", modules)
                packed(values, dtype, words, tally)
            found.append((words.tolist(), tally.tolist() if dtype in FLOATS else None))
        assert found[0] == found[1], dtype


def test_pages_of_a_mapped_file_are_given_back_and_read_again(tmp_path):
    values = np.arange(1 << 20, dtype=np.float32)
    path = tmp_path / "values.bin"
    values.tofile(path)
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    array = np.frombuffer(mapped, np.float32)[5:]
    assert array.sum() > 0
    release(array)
    release(values)  # memory of its own: nothing happens
    assert np.array_equal(array, values[5:]) and values[-1] == len(values) - 1


def test_what_is_no_matrix_of_numbers_is_refused():
    with pytest.raises(MaskError, match="complex64"):
        count(Tensor.of(np.zeros((2, 2), np.complex64)))
    with pytest.raises(MaskError, match=r"\(3,\)"):
        count(Tensor.of(np.zeros(3, np.float32)))
