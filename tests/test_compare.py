"""compare: overlap and Hamming distance against plain numpy, and what cannot be compared."""

import json
import math

import numpy as np
import pytest

import topo
import toys
from topo.cli import main
from topo.compare import compare, distances, trajectory
from topo.errors import MaskError
from topo.files import write_masks
from topo.graph.matching import matched_costs
from topo.graph.pictures import picture
from topo.masks import BitRows, MaskSet
from topo.nulls import nulls


def _masks(seed, shapes=None, density=0.3):
    rng = np.random.default_rng(seed)
    shapes = shapes or {"conv.weight": (8, 3, 3, 3), "fc.weight": (10, 70)}
    return MaskSet({name: rng.random(shape) < density for name, shape in shapes.items()})


@pytest.mark.small
def test_equals_the_definition():
    a, b = _masks(0), _masks(1)
    found = compare(a, b)
    for entry in found.layers:
        x, y = a[entry["layer"]], b[entry["layer"]]
        assert entry["shape"] == x.shape
        assert entry["size"] == x.size
        assert (entry["kept_a"], entry["kept_b"]) == (x.sum(), y.sum())
        assert entry["both"] == (x & y).sum()
        assert entry["only_a"] == (x & ~y).sum()
        assert entry["only_b"] == (~x & y).sum()
        assert entry["overlap"] == (x & y).sum() / (x | y).sum()
        assert entry["hamming"] == (x != y).sum()
        assert entry["hamming_share"] == (x != y).mean()
    x, y = (np.concatenate([m[name].ravel() for name in m]) for m in (a, b))
    assert found.total["overlap"] == (x & y).sum() / (x | y).sum()
    assert found.total["hamming"] == (x != y).sum()
    assert not found.notes


@pytest.mark.small
def test_a_mask_and_itself():
    found = compare(_masks(0), _masks(0))
    assert found.total["overlap"] == 1.0
    assert found.total["hamming"] == 0


@pytest.mark.small
def test_two_empty_masks_have_no_overlap_to_speak_of():
    a = MaskSet({"a": np.zeros((2, 3)), "b": np.ones((2, 2))})
    found = compare(a, a)
    assert math.isnan(found.layers[0]["overlap"])
    assert found.layers[0]["hamming"] == 0
    assert found.total["overlap"] == 1.0
    assert [note["layer"] for note in found.notes] == ["a"]
    document = json.loads(found.to_json(a="x", b="y"))
    assert document["schema"] == "topo-compare/1"
    assert document["layers"][0]["overlap"] is None
    assert document["layers"][0]["shape"] == [2, 3]
    assert (document["a"], document["b"]) == ("x", "y")


@pytest.mark.small
def test_layers_of_one_side_only_are_named():
    a = _masks(0, {"x": (2, 3), "y": (4, 4)})
    b = _masks(1, {"y": (4, 4), "z": (2, 2)})
    found = compare(a, b)
    assert [entry["layer"] for entry in found.layers] == ["y"]
    assert [(note["layer"], note["note"][:9]) for note in found.notes] == [("x", "only in A"), ("z", "only in B")]


@pytest.mark.small
def test_what_cannot_be_compared():
    with pytest.raises(MaskError, match=r"'y' has shape \(4, 4\) in A but \(4, 5\) in B"):
        compare(_masks(0, {"y": (4, 4)}), _masks(0, {"y": (4, 5)}))
    with pytest.raises(MaskError, match="share no layer"):
        compare(_masks(0, {"y": (4, 4)}), _masks(0, {"z": (4, 4)}))


NETS = {
    "chain": lambda: toys.complete(4, 8, 7, 3)[1],
    "residual": lambda: toys.residual(width=5),
    "branching": toys.branching,
    "gated": toys.gated,
    "grouped": toys.grouped,
    "words": toys.embedded,
}


@pytest.mark.small
@pytest.mark.parametrize("net", NETS)
def test_a_relabelled_mask_is_no_distance_away(net):
    """Hidden units under other numbers, of skips, groups, flattened maps and gates too; another mask is far."""
    wiring = NETS[net]()
    for density in (0.3, 0.5):
        masks = toys.sparse(wiring, density, 1)
        other = distances(masks, nulls["relabelled"](masks, 3, wiring), wiring)
        assert other == pytest.approx(dict.fromkeys(other, 0.0), abs=1e-12)
        assert distances(masks, toys.sparse(wiring, density, 2), wiring)["nnstd"] > 0.2


@pytest.mark.small
@pytest.mark.parametrize("net", NETS)
def test_a_distance_is_the_same_from_both_sides(net):
    wiring = NETS[net]()
    for seed in range(4):
        a, b = (toys.sparse(wiring, 0.3, seed + offset) for offset in (0, 20))
        assert distances(a, b, wiring) == distances(b, a, wiring)


@pytest.mark.small
def test_layers_that_only_one_masks_have_no_part_in_the_distance():
    """A layer without a mask is complete for both: it has no cost, and hides which unit is which after it."""
    wiring = toys.complete(4, 8, 7, 3)[1]
    a, b = toys.sparse(wiring, 0.5, 1), toys.sparse(wiring, 0.5, 2)
    for left_out in wiring.names:
        fewer = MaskSet({name: b[name] for name in b if name != left_out})
        both = [MaskSet({name: masks[name] for name in fewer}) for masks in (a, b)]
        assert distances(a, fewer, wiring) == distances(fewer, a, wiring) == distances(*both, wiring)
        assert set(matched_costs(a, fewer, wiring)) == set(fewer)
    first = MaskSet({"fc1": a["fc1"]})
    assert distances(first, first, wiring)["nnstd"] == 0


@pytest.mark.small
def test_units_are_matched_at_the_least_cost():
    """Of one layer every order of the outputs is tried, which a second layer leaves free to move."""
    from itertools import permutations

    wiring = toys.complete(5, 4, 2)[1]
    for seed in range(5):
        a, b = toys.sparse(wiring, 0.5, seed), toys.sparse(wiring, 0.5, seed + 10)

        def far(i, j, a=a, b=b):
            x, y = a["fc1"][i], b["fc1"][j]
            return 1 - (x & y).sum() / (x | y).sum() if (x | y).any() else 0.0

        best = min(sum(far(i, j) for j, i in enumerate(order)) for order in permutations(range(4)))
        assert matched_costs(a, b, wiring)["fc1"].sum() == pytest.approx(best)


@pytest.mark.small
def test_pictures_share_the_places_of_equal_degrees():
    """The mean over all orders of units of one degree, by trying them."""
    from itertools import permutations

    mask = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]], bool)
    seen = []
    for rows in permutations(range(4)):
        for columns in permutations(range(3)):
            turned = mask[list(rows)][:, list(columns)]
            if (np.diff(turned.sum(1)) <= 0).all() and (np.diff(turned.sum(0)) <= 0).all():
                seen.append(np.kron(turned, np.ones((3, 4))).reshape(6, 2, 6, 2).mean((1, 3)))
    np.testing.assert_allclose(picture(BitRows.of_mask(mask), grid=6), np.mean(seen, axis=0), atol=1e-12)


def _course():
    rng = np.random.default_rng(0)
    wiring = toys.complete(6, 8, 4)[1]
    return {f"epoch_{k}": toys.sparse(wiring, 0.5, int(rng.integers(99))) for k in (1, 2, 10)}, wiring


@pytest.mark.small
def test_a_course_is_counted_weight_by_weight():
    series, wiring = _course()
    flat = [np.concatenate([m[name].ravel() for name in m]) for m in series.values()]
    steps = trajectory(series, wiring)
    assert [step["mask"] for step in steps] == list(series)
    assert math.isnan(steps[0]["born"]) and steps[0]["degree_drift"] == 0 and steps[0]["survived"] == 1
    for k in (1, 2):
        assert steps[k]["born"] == (flat[k] & ~flat[k - 1]).mean()
        assert steps[k]["died"] == (~flat[k] & flat[k - 1]).mean()
        assert steps[k]["survived"] == (flat[k] & flat[0]).sum() / flat[0].sum()
        assert steps[k]["exploration"] == np.logical_or.reduce(flat[: k + 1]).mean()
        assert 0 < steps[k]["active_neuron_rate"] <= 1
        first, now = series["epoch_1"], list(series.values())[k]
        apart = sum(np.abs(first[n].sum(axis).astype(int) - now[n].sum(axis)).sum() for n in first for axis in (0, 1))
        assert steps[k]["degree_drift"] == apart / (2 * flat[0].sum())
    assert math.isnan(trajectory(series)[1]["active_neuron_rate"])
    with pytest.raises(MaskError, match="'x' has other layers"):
        trajectory({**series, "x": MaskSet({"fc1": np.ones((8, 6))})})


def test_the_command_shows_distances_and_the_course_of_a_folder(tmp_path, capsys):
    series, wiring = _course()
    for name, masks in series.items():
        write_masks(masks, tmp_path / f"{name}.npz")
    assert main(["compare", str(tmp_path), "--json", "-", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "topo-course/1"
    assert [step["mask"] for step in document["steps"]] == ["epoch_1.npz", "epoch_2.npz", "epoch_10.npz"]
    assert document["steps"][0]["active_neuron_rate"] > 0  # a plain chain needs no model
    assert document["steps"][0]["born"] is None and document["steps"][2]["exploration"] > 0.7
    assert main(["compare", str(tmp_path)]) == 0
    assert "exploration" in capsys.readouterr().out
    pair = [str(tmp_path / f"epoch_{k}.npz") for k in (1, 2)]
    assert main(["compare", *pair, "--json", "-", "--quiet"]) == 0
    far = json.loads(capsys.readouterr().out)["distances"]
    assert far == pytest.approx(distances(series["epoch_1"], series["epoch_2"], wiring))
    assert main(["compare", *pair, pair[0], "--json", "-", "--quiet"]) == 0
    several = json.loads(capsys.readouterr().out)["distances"]
    assert several["nnstd"][0][1] == pytest.approx(far["nnstd"]) and several["nnstd"][0][2] == 0
    fig = topo.plots.mask_dynamics(series, metric="exploration", wiring=wiring)
    lines = [line.get_ydata() for ax in fig.axes for line in ax.lines]
    explored = [step["exploration"] for step in document["steps"]]
    assert any(len(line) == 3 and np.allclose(line, explored) for line in lines)
    out = tmp_path.parent / f"{tmp_path.name}.svg"
    assert main(["plot", "mask_dynamics", str(tmp_path), "-O", "metric=degree_drift", "-o", str(out), "--quiet"]) == 0
    assert main(["compare", pair[0]]) == 2
    assert "name another, or a folder of mask files" in capsys.readouterr().err


def test_the_course_of_a_folder_says_what_each_file_left_out(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for epoch in (1, 2, 10):
        weight = rng.normal(size=(6, 8)).astype(np.float32) * (rng.random((6, 8)) < 0.5)
        codes = {} if epoch == 2 else {"b.codes": np.arange(96, dtype=np.int32).reshape(12, 8)}
        np.savez(tmp_path / f"e_{epoch}.npz", **{"a.weight": weight}, **codes)
    assert main(["compare", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for name in ("e_1.npz", "e_10.npz"):
        assert f"note: {name}: 1 weight without a mask left out: 'b.codes'; 96 of 144 parameters" in said
        assert f"note: {name}: masks inferred from zeros" in said
    assert "e_2.npz: 1 weight" not in said
    assert main(["compare", str(tmp_path), "--json", "-", "--quiet"]) == 0
    assert [covered["left_out"] for covered in json.loads(capsys.readouterr().out)["coverage"]] == [96, 0, 96]


def test_masks_of_different_networks_have_no_distance_of_graphs(tmp_path, capsys):
    """They share the shape of one layer by chance; what holds for that layer alone is no distance of the networks."""
    for model in ("digits_conv", "resnet20"):
        write_masks(topo.generate("erk", model, density=0.1, rng=0), tmp_path / f"{model}.safetensors")
    pair = [str(tmp_path / "resnet20.safetensors"), str(tmp_path / "digits_conv.safetensors"), "--quiet"]
    assert main(["compare", *pair, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["distances"] == {} and [entry["layer"] for entry in found["layers"]] == ["fc.weight"]
    said = [note["note"] for note in found["notes"]]
    assert "distances of graphs are left out: the masks are of different networks" in said


@pytest.mark.small
def test_without_a_network_the_layers_of_both_are_chained(tmp_path, capsys):
    wiring = toys.complete(4, 8, 7, 3)[1]
    a, b = toys.sparse(wiring, 0.5, 1), toys.sparse(wiring, 0.5, 2)
    topo.write_masks(a, tmp_path / "a.npz")
    topo.write_masks(MaskSet({name: b[name] for name in [*wiring.names][:-1]}), tmp_path / "fewer.npz")
    found = []
    for pair in (("a.npz", "fewer.npz"), ("fewer.npz", "a.npz")):
        assert main(["compare", *(str(tmp_path / name) for name in pair), "--json", "-", "--quiet"]) == 0
        found.append(json.loads(capsys.readouterr().out)["distances"])
    assert found[0] == found[1] and found[0]["nnstd"] > 0
