"""Layers of extreme shapes and spectra, where every number is known in closed form."""

import json
import math
import sys
import tracemalloc

import numpy as np
import pytest

import topo
from topo._support.distinct import distinct
from topo.errors import TopoError
from topo.masks import MaskSet

_METRICS = "kept,effective_params,sigma1,sigma2,effective_paths"


def _analyzed(mask):
    return topo.analyze(MaskSet({"w": mask}), metrics=_METRICS, threads=1)


@pytest.mark.parametrize("shape", [(1, 10**6), (10**6, 1), (10**5, 10), (1, 1)])
def test_a_dense_layer_of_any_proportions(shape):
    report, size = _analyzed(np.ones(shape, np.bool_)), math.prod(shape)
    layer = report.layers[0]
    assert report.network["effective_paths"] == report.network["kept"] == layer["effective_params"] == size
    assert layer["sigma1"] == pytest.approx(math.sqrt(size), rel=1e-9)
    assert layer["sigma2"] == pytest.approx(0, abs=1e-6 * math.sqrt(size)) or math.isnan(layer["sigma2"])


@pytest.mark.parametrize(
    ("mask", "first", "second"),
    [
        (np.outer(np.arange(40) < 7, np.arange(50) < 11), math.sqrt(77), 0.0),  # of rank one
        (np.eye(60)[np.random.default_rng(0).permutation(60)], 1.0, 1.0),
        (np.kron(np.eye(2), np.ones((30, 30)))[:, :59], 30.0, math.sqrt(30 * 29)),  # nearly equal
    ],
)
def test_spectra_that_are_hard_to_tell(mask, first, second):
    layer = _analyzed(mask).layers[0]
    assert layer["sigma1"] == pytest.approx(first, rel=1e-9)
    assert layer["sigma2"] == pytest.approx(second, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 10**5), (10**5, 1), (2000, 10), (10, 2000)])
def test_every_metric_of_a_layer_of_any_proportions_in_bounded_memory(shape, monkeypatch):
    """Ten million inputs took all memory once: 256 flags of each unit, and 32 bytes for each flag of a product."""
    monkeypatch.setattr(sys.modules["topo.analyze"], "_WIDE", 0)
    masks = MaskSet({"w": np.ones(shape, np.bool_)})
    topo.analyze(MaskSet({"w": np.ones((2, 3), np.bool_)}), metrics="all", threads=1)  # compiling takes memory, too
    most = 200 * math.prod(shape) + (20 << 20)
    for _ in range(2):  # a second time where the first still compiled
        tracemalloc.start()
        try:
            report = topo.analyze(masks, metrics="all", threads=1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if peak < most:
            break
    assert peak < most
    network, size = report.network, math.prod(shape)
    assert network["pairs_joined"] == 1 and network["effective_paths"] == network["kept"] == size
    assert network["disconnected"] == 0


def test_what_wide_networks_share_is_let_go_and_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    masks = MaskSet({"a": rng.random((9, 12)) < 0.4, "b": rng.random((5, 9)) < 0.5})
    together = topo.analyze(masks, metrics="all", threads=1).to_json()
    monkeypatch.setattr(sys.modules["topo.analyze"], "_WIDE", 0)
    assert topo.analyze(masks, metrics="all", threads=1).to_json() == together


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (4, 3, 0, 3)])
def test_a_layer_without_weights_is_right_or_refused(shape):
    try:
        report = _analyzed(np.zeros(shape, np.bool_))
    except TopoError as error:
        assert "\n" not in str(error)
    else:
        assert report.network["kept"] == 0 and "NaN" not in report.to_json()


def test_integers_of_any_length_are_printed_everywhere():
    """Python refuses to print integers of more digits than a limit: 4,300, here 640."""
    before = sys.get_int_max_str_digits()
    paths = 100**351
    masks = MaskSet({f"l{n:03}": np.ones((100, 100), np.bool_) for n in range(350)})
    try:
        report = topo.analyze(masks, metrics="effective_paths", threads=1)
        assert report.network["effective_paths"] == paths
        sys.set_int_max_str_digits(640)
        document = json.loads(report.to_json())
        texts = [repr(report), str(report), report.to_csv(), report.to_latex(), report.to_markdown()]
        texts += [report._repr_html_(), repr(report.to_frame()), report.to_frame().to_csv()]
    finally:
        sys.set_int_max_str_digits(before)
    assert document["reports"][0]["network"]["effective_paths"] == str(paths) and str(paths) in texts[2]
    assert all(texts)


def test_distinct_is_unique():
    rng = np.random.default_rng(0)
    for numbers in (np.array([], np.int64), np.arange(5), np.zeros(4, np.int32), rng.integers(-3, 9, 50)):
        assert np.array_equal(distinct(numbers), np.unique(numbers))
        assert distinct(numbers).dtype == numbers.dtype
