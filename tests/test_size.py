"""Sizes of formats: break-even densities are where the bytes cross, and small cases by hand."""

from __future__ import annotations

import numpy as np
import pytest

import topo

pytestmark = [pytest.mark.small, pytest.mark.kernels]


def layer(mask: np.ndarray) -> dict:
    return topo.analyze({"w": mask}, metrics="size").layers[0]


def test_a_case_by_hand() -> None:
    found = layer(np.array([[1, 0, 0, 0], [0, 1, 0, 1]]))
    assert found["bytes_dense"] == 32
    assert found["bytes_bitmask"] == 12 + 1
    assert found["bytes_csr"] == 12 + 12 + 12
    assert found["bytes_csr_int16"] == 12 + 6 + 12
    assert found["bytes_2_4"] == 2 * 8 + 1
    assert found["bytes_block"] == 64 + 4 + 8


@pytest.mark.parametrize("format", ["bitmask", "csr", "csr_int16"])
def test_bytes_cross_where_the_break_even_says(format: str) -> None:
    size = 64 * 64
    even = layer(np.ones((64, 64)))[f"break_even_{format}"]
    for kept, less in ((int(even * size) - 1, True), (int(even * size) + 2, False)):
        mask = np.zeros(size)
        mask[:kept] = 1
        found = layer(mask.reshape(64, 64))
        assert (found[f"bytes_{format}"] < found["bytes_dense"]) == less


def test_what_is_not_2_4_has_no_such_size() -> None:
    report = topo.analyze({"w": np.ones((4, 4))}, metrics="size")
    assert np.isnan(report.layers[0]["bytes_2_4"]) and np.isnan(report.network["bytes_2_4"])
    assert any("not 2:4" in str(note) for note in report.notes)
