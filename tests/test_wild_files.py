"""The files of ../shared/cases/wild, each read with and without its model, against its true masks."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import topo
from topo.errors import TopoError

torch = pytest.importorskip("torch")
WILD = Path(__file__).parents[2] / "shared" / "cases" / "wild"
TRUTH = json.loads((WILD / "truth.json").read_text()) if WILD.is_dir() else {}
pytestmark = pytest.mark.skipif(not TRUTH, reason="the files found in the wild are not beside this checkout")
SHAPES = {"small": (3, 8, 8), "mlp": (1, 4, 4), "lstm": (5, 6), "oned": (2, 12)}


@pytest.fixture(scope="module")
def wirings():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {factory: wiring_of(factory) for factory in SHAPES}


def wiring_of(factory):
    spec = importlib.util.spec_from_file_location("_wild_nets", WILD / "nets.py")
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    return topo.trace(getattr(nets, factory)(), SHAPES[factory])


def verdict(path, wiring):
    """'read', 'partly' (what is missing is named) or 'refused'; AssertionError for anything false."""
    kept = TRUTH[path.name]["kept"]
    truth = np.load(WILD / f"{path.name}.truth.npz")
    try:
        masks = topo.read_masks(path, wiring)
    except TopoError as error:
        assert len(str(error)) <= 400, len(str(error))
        assert "\n" not in str(error)
        assert path.name in str(error)
        return "refused"
    if path.name in ("k.h5", "k.onnx"):  # read where their libraries are installed; their truth is not written down
        return "read"
    assert kept, f"read as {dict(masks.shapes)}, and it holds nothing readable"
    short = {name.removesuffix(".weight"): name for name in masks}
    covered = masks.provenance["coverage"]
    left = [name.removesuffix(".weight") for name in covered["names"]]
    missing = []
    for name in kept:
        plain = name.removesuffix(".weight")
        found = next((full for end, full in short.items() if end == plain or end.endswith(f".{plain}")), None)
        if path.name == "scipy_csr.npz":  # one matrix, which has no name
            (found,) = masks
        if found is None:
            missing.append(name)
            assert any(other == plain or other.endswith(f".{plain}") for other in left), f"{name} vanished"
            continue
        mask = masks[found]
        expected = truth[name]
        if wiring is not None and wiring.layer(found).transposed:
            expected = topo.layout.output_first(expected, wiring.layer(found).groups)
        assert mask.shape == expected.shape
        if path.name == "quant_dyn.pt":  # a weight that was not zero is rounded to it, and the report says so
            assert not (mask & (expected == 0)).any() and (mask != expected).sum() <= 1
            assert any("quantisation makes such zeros" in note for note in masks.provenance["notes"])
            continue
        assert (mask == expected).all(), f"{name} is wrong"
    assert len(missing) < len(kept)
    assert bool(covered["left_out"]) == bool(covered["names"])
    return "partly" if missing else "read"


def cases():
    return [(name, with_model) for name, entry in TRUTH.items() for with_model in (False, True)
            if entry["factory"] or not with_model]  # fmt: skip


# What stays refused, and why: everything else has to be read.
REFUSED = {
    ("ao_model_sd.pt", False), ("ao_model_sd.pt", True),  # the masks are not in the file
    ("edge_popup.pth", False), ("edge_popup.pth", True),  # the rule is not in the file
    ("mpm1.pt", False), ("mpm1.pt", True), ("w.csv", False), ("w.csv", True), ("gptq.safetensors", False),
    ("levels.pt", False), ("levels.pt", True),  # several networks
    ("lth_none.pkl", False), ("chan_masks.pt", False),  # no names, no shapes
    ("keras_get_weights.npz", False), ("k.h5", False), ("k.onnx", False),
}  # fmt: skip


@pytest.mark.parametrize(("name", "with_model"), cases())
def test_read_or_refused_or_told(name, with_model, wirings):
    wiring = wirings[TRUTH[name]["factory"]] if with_model else None
    said = verdict(WILD / name, wiring)
    assert said in ("read", "partly") or (name, with_model) in REFUSED
