"""Null models: what each keeps, exactly, and changes; how it is drawn; numbers against samples."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import topo
import toys
from topo.cli import main
from topo.errors import TopoError, WiringError
from topo.generators.rewiring import expected_overlap, mixing, rewire
from topo.graph import build_graph, paths
from topo.masks import BitRows
from topo.metrics import metrics
from topo.nulls import nulls, requested, score, seeds
from topo.nulls.walk import _proposed
from topo.wiring import Join, Layer, Wiring, chain
from topo.wiring.automorphisms import renumbering

pytestmark = pytest.mark.kernels

MASK = Path(__file__).parents[1] / "notebooks" / "masks" / "synflow_resnet20_d0.02.safetensors"
RUNGS = ["same_total", "same_layers", "same_rows", "same_columns", "same_degrees", "same_kernels"]


def tables(masks: topo.MaskSet, wiring: Wiring) -> dict[str, list[Any]]:
    """What null models may keep, counted on plain arrays."""
    found: dict[str, list[Any]] = {"total": [masks.kept], "layers": [], "rows": [], "columns": [], "kernels": []}
    for name, mask in masks.items():
        flat = mask.reshape(mask.shape[0], -1).astype(int)
        found["layers"].append(int(flat.sum()))
        found["rows"].append(flat.sum(1).tolist())
        found["columns"].append([part.sum(0).tolist() for part in np.split(flat, wiring.layer(name).groups)])
        found["kernels"].append(mask.reshape(*mask.shape[:2], -1).sum(2).tolist())
    found["effective"] = paths.live(build_graph(masks, wiring)).effective.tolist()
    return found


KEPT = {
    "same_total": {"total"},
    "same_layers": {"total", "layers"},
    "same_rows": {"total", "layers", "rows"},
    "same_columns": {"total", "layers", "columns"},
    "same_degrees": {"total", "layers", "rows", "columns"},
    "same_kernels": {"total", "layers", "rows", "kernels"},
    "same_effective": {"total", "layers", "rows", "columns", "effective"},
    "same_kernels_degrees": {"total", "layers", "rows", "columns", "kernels"},
    "relabelled": {"total", "layers"},
}


@pytest.mark.small
def test_the_ladder_in_its_order() -> None:
    assert list(nulls) == [*RUNGS, "same_effective", "same_kernels_degrees", "relabelled"] == list(KEPT)
    assert [name for name, entry in nulls.items() if entry.wired] == ["same_effective", "relabelled"]
    assert all(entry.keeps for entry in nulls.values())


@pytest.mark.parametrize("net", ["residual", "branching", "gated"])
@pytest.mark.parametrize("name", KEPT)
def test_each_keeps_what_it_says_and_changes_the_rest(net: str, name: str) -> None:
    wiring = {"residual": toys.residual(width=6, kernel=3), "branching": toys.branching(), "gated": toys.gated()}[net]
    masks = toys.sparse(wiring, 0.4, 3)
    before, changed = tables(masks, wiring), set()
    for seed in range(8):
        sample = nulls[name](masks, seed, wiring)
        assert sample.shapes == masks.shapes and sample.provenance["method"] == name
        after = tables(sample, wiring)
        assert all(after[what] == before[what] for what in KEPT[name])
        changed |= {what for what in before if after[what] != before[what]} | ({"mask"} if sample != masks else set())
        if name.startswith("same_kernels"):  # a kernel of a linear layer is one weight
            linear = [key for key in masks if len(masks.shapes[key]) == 2]
            assert all(np.array_equal(sample[key], masks[key]) for key in linear)
    still = name.startswith("same_kernels") and net == "gated"
    free = set(before) - KEPT[name] | {"mask"}
    free, changed = free - {"effective"}, changed - {"effective"}  # in most of these nets all units are, whatever moves
    if net == "branching" and name == "relabelled":
        free &= changed  # few of its units may move: the strands are short
    assert changed == (set() if still else free)


@pytest.mark.parametrize("name", [name for name in KEPT if not nulls[name].wired])
def test_without_a_wiring_each_layer_is_taken_by_itself(name: str) -> None:
    masks = toys.sparse(toys.residual(), 0.5)
    apart, wired = nulls[name](masks, 7), nulls[name](masks, 7, toys.residual())
    assert apart == wired != masks


@pytest.mark.small
@pytest.mark.parametrize("density", [0.0, 1.0])
@pytest.mark.parametrize("name", nulls)
def test_empty_and_dense_masks_are_their_only_samples(name: str, density: float) -> None:
    wiring = toys.branching()
    masks = toys.sparse(wiring, density)
    assert nulls[name](masks, 0, wiring) == masks


def states(name: str, masks: topo.MaskSet, draws: int, wiring: Wiring | None = None) -> Counter:
    rng = np.random.default_rng(5)
    drawn = (nulls[name](masks, rng, wiring) for _ in range(draws))
    return Counter(b"".join(sample[key].tobytes() for key in sample) for sample in drawn)


def grouped() -> Wiring:
    return Wiring(np.arange(2), (Layer("a", (6, 1, 1, 1), np.arange(2), 2, "conv", groups=2),), np.arange(2, 8))


SMALL = [  # masks, how many masks have what is kept
    pytest.param("same_total", {"a": [[1, 0], [1, 1]], "b": [[0, 0]]}, None, math.comb(6, 3), id="same_total"),
    pytest.param("same_layers", {"a": [[1, 0, 0], [1, 0, 0]], "b": [[1, 0]]}, None, 15 * 2, id="same_layers"),
    pytest.param("same_rows", {"a": [[1, 0, 0, 0], [1, 1, 0, 0]]}, None, 4 * 6, id="same_rows"),
    pytest.param("same_columns", {"a": [[1, 1, 0], [0, 1, 1], [0, 0, 0]]}, None, 27, id="same_columns"),
    pytest.param("same_columns", {"a": np.array([1, 0, 0, 1, 1, 0]).reshape(6, 1, 1, 1)}, grouped(), 9, id="grouped"),
    pytest.param("same_kernels", {"a": np.array([1, 0, 0, 0, 1, 1]).reshape(1, 2, 1, 3)}, None, 9, id="same_kernels"),
    pytest.param("same_kernels_degrees", {"a": np.eye(3).reshape(3, 1, 1, 3)}, None, 6, id="kernels_and_columns"),
    pytest.param(
        "same_kernels_degrees",
        {"a": np.array([1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 0]).reshape(2, 2, 3), "b": [[1, 0]]},
        None,
        4,
        id="channels_apart",
    ),
    pytest.param(  # hidden unit 2 is not fed: it may not be the one that feeds output 1
        "same_effective",
        {"fc1": [[1, 0], [0, 1], [0, 0]], "fc2": [[0, 1, 1], [1, 0, 0]]},
        toys.complete(2, 3, 2)[1],
        4,
        id="same_effective",
    ),
    pytest.param("same_degrees", {"a": np.eye(3)}, None, 6, id="permutations"),
    pytest.param("same_degrees", {"a": [[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]}, None, 12, id="same_degrees"),
]


@pytest.mark.parametrize("name, masks, wiring, many", SMALL)
def test_uniform_on_a_small_space(name: str, masks: Any, wiring: Wiring | None, many: int) -> None:
    """Chi-square against equal chances: all states come, and the sum is within 4 of its standard deviations."""
    draws = 100 * many
    found = states(name, topo.MaskSet(masks), draws, wiring)
    assert len(found) == many
    chi2 = sum((count - 100) ** 2 / 100 for count in found.values())
    assert abs(chi2 - (many - 1)) < 4 * math.sqrt(2 * (many - 1))


def test_what_a_walk_could_do_is_told() -> None:
    masks = topo.MaskSet({"fc1": [[1, 0], [0, 1], [0, 0]], "fc2": [[0, 1, 1], [1, 0, 0]]})
    wiring = toys.complete(2, 3, 2)[1]
    report = topo.analyze(masks, wiring, metrics="kept,effective_units", nulls="same_effective:3")
    (said,) = [
        note["note"] for note in report.notes if str(note["note"]).startswith("same_effective: ") and not note["metric"]
    ]
    share = int(said.split()[1].rstrip("%"))
    assert 50 < share < 100  # a third of the places that trades of fc2 lead to is refused
    with pytest.raises(TopoError, match="null model 'same_effective' needs the network's wiring"):
        nulls["same_effective"](masks)


def told(masks: topo.MaskSet, wiring: Wiring, null: str) -> list[str]:
    report = topo.analyze(masks, wiring, metrics="kept", nulls={null: 2})
    return [str(n["note"]) for n in report.notes if str(n["note"]).startswith(f"{null}: ") and not n["metric"]]


def test_a_null_model_says_where_no_weight_can_move() -> None:
    layers = (
        Layer("wide", (3, 2, 3, 3), np.arange(2), 2, "conv"),
        Layer("depth", (3, 1, 3, 3), np.arange(2, 5), 5, "conv", groups=3),
        Layer("one", (4, 3, 1, 1), np.arange(5, 8), 8, "conv"),
    )
    wiring = Wiring(np.arange(2), layers, np.arange(8, 12))
    masks = topo.MaskSet({layer.name: np.arange(layer.size).reshape(layer.shape) % 2 for layer in layers})
    (said,) = told(masks, wiring, "same_kernels_degrees")
    assert "in 2 of 3 layers no weight moves" in said and said.endswith(": 'depth', 'one'")
    (said,) = told(masks, wiring, "same_kernels")
    assert "in 1 of 3 layers" in said and said.endswith(": 'one'")
    for seed in range(5):  # what is said holds
        drawn = {null: nulls[null](masks, seed, wiring) for null in ("same_kernels", "same_kernels_degrees")}
        assert all((drawn["same_kernels_degrees"][name] == masks[name]).all() for name in ("depth", "one"))
        assert (drawn["same_kernels"]["one"] == masks["one"]).all()
        assert any((drawn["same_kernels"][name] != masks[name]).any() for name in ("wide", "depth"))
    mlp = topo.MaskSet({"fc1": np.eye(3), "fc2": np.ones((2, 3))})
    for null in ("same_kernels", "same_kernels_degrees"):
        (said,) = told(mlp, topo.chain(mlp), null)
        assert "no weight moves" in said and said.endswith("samples are the masks themselves")
    empty = topo.MaskSet({"fc1": np.zeros((3, 3)), "fc2": np.zeros((2, 3))})
    assert told(empty, topo.chain(empty), "same_effective") == [
        "same_effective: there is nothing to trade: samples are the masks themselves"
    ]


def test_a_walk_trades_rows_and_columns_of_one_group_or_of_all() -> None:
    """A hub of 40 weights changes one place in a trade of rows, and many in one of columns."""
    hub = np.zeros((41, 80), bool)
    hub[0, :40] = True
    hub[np.arange(1, 41), np.arange(40, 80)] = True
    rows, rng = BitRows.of_mask(hub), np.random.default_rng(0)
    moved = [int((_proposed(rows, 1, 1, rng).unpack() & ~hub)[0].sum()) for _ in range(30)]
    assert min(moved) <= 1 and max(moved) >= 5 and 5 <= sum(k >= 5 for k in moved) <= 25
    groups = np.tile(np.eye(6, dtype=bool), (3, 1)).reshape(3, 6, 6)
    rows = BitRows.of_mask(groups.reshape(18, 6))
    changed = [(_proposed(rows, 3, share, rng).unpack().reshape(3, 6, 6) != groups).any((1, 2)) for share in [0.5] * 40]
    assert max(flags.sum() for flags in changed) == 1 and np.any(changed, axis=0).all()
    changed = [(_proposed(rows, 3, 1, rng).unpack().reshape(3, 6, 6) != groups).any((1, 2)) for _ in range(10)]
    assert max(flags.sum() for flags in changed) > 1


def test_the_number_of_small_states_by_enumeration() -> None:
    """The 12 of the last case, and that a wrong null is found: shuffling a layer leaves the margins."""
    margins = Counter(
        (tuple(table.sum(0)), tuple(table.sum(1)))
        for bits in range(1 << 12)
        for table in [np.array([bits >> k & 1 for k in range(12)]).reshape(3, 4)]
    )
    assert margins[(2, 1, 1, 1), (2, 2, 1)] == 12
    assert len(states("same_layers", topo.MaskSet({"a": np.eye(3)}), 600)) == math.comb(9, 3)


# -- relabelling


def graph_of(masks: topo.MaskSet, wiring: Wiring, units: np.ndarray) -> tuple[list[Counter], list[Counter]]:
    """Edges (from, to, weight's position) of each layer, and what each join combines, under other unit numbers."""
    there = np.append(units, -1)
    edges, joins = [], []
    for step in wiring.steps:
        if isinstance(step, Join):
            made = [there[step.start + place // step.width] for place in range(len(step.operands[0]))]
            joins.append(Counter(zip(*(there[operand].tolist() for operand in step.operands), made)))
            continue
        mask, per = masks[step.name], step.outputs // step.groups
        seen: Counter = Counter()
        occurrence = []  # a flatten reads a unit several times: which time is a position too
        for unit in step.reads.tolist():
            occurrence.append(seen[unit])
            seen[unit] += 1
        found: Counter = Counter()
        for row, column, *position in np.argwhere(mask).tolist():
            place = row // per * step.shape[1] + column
            where = (occurrence[place], *position)
            found[there[step.reads[place]], there[step.start + row], where] += 1
        edges.append(found)
    return edges, joins


def crossed() -> Wiring:
    """Two gates of which the second crosses what the first pairs: strands that cannot change places."""
    a, b, c = (Layer(name, (n, 2), np.arange(2), start) for name, n, start in (("a", 2, 2), ("b", 4, 4), ("c", 4, 8)))
    one = Join("gate", (np.array([2, 2, 3, 3]), np.arange(4, 8)), 12)
    two = Join("gate", (np.arange(8, 12), np.array([12, 13, 15, 14])), 16)
    free = Layer("free", (5, 4), np.arange(16, 20), 20)
    return Wiring(np.arange(2), (a, b, c, one, two, free, Layer("out", (2, 5), np.arange(20, 25), 25)), [25, 26])


def separable() -> Wiring:
    """Pointwise, depthwise with two outputs a channel, pointwise, with a skip of zero padding; then a flatten."""
    steps = (
        Layer("up", (4, 2, 1, 1), np.arange(2), 2, "conv"),
        Layer("deep", (8, 1, 3, 3), np.arange(2, 6), 6, "conv", groups=4),
        Layer("down", (6, 8, 1, 1), np.arange(6, 14), 14, "conv"),
        Join("add", (np.arange(14, 20), np.array([-1, 2, 3, 4, 5, -1])), 20),
        Layer("fc", (2, 24), np.tile(np.arange(20, 26), 4), 26),
    )
    return Wiring(np.arange(2), steps, np.arange(26, 28))


NETS: dict[str, Callable[[], Wiring]] = {
    "chain": lambda: toys.complete(3, 7, 6, 2)[1],
    "residual": lambda: toys.residual(width=5),
    "branching": toys.branching,
    "gated": lambda: toys.gated(heads=2, width=3),
    "embedded": toys.embedded,
    "sliced": toys.sliced,
    "crossed": crossed,
    "separable": separable,
}


@pytest.mark.small
@pytest.mark.parametrize("net", NETS)
def test_relabelled_masks_are_the_same_graph(net: str) -> None:
    wiring = NETS[net]()
    masks = toys.sparse(wiring, 0.5, 2)
    moved = 0
    for seed in range(6):
        units = renumbering(wiring, np.random.default_rng(seed))
        assert sorted(units) == list(range(wiring.n_units))
        assert (units[wiring.inputs] == wiring.inputs).all() and (units[wiring.outputs] == wiring.outputs).all()
        other = nulls["relabelled"](masks, np.random.default_rng(seed), wiring)
        stay = np.arange(wiring.n_units)
        assert graph_of(masks, wiring, units) == graph_of(other, wiring, stay)
        moved += int((units != stay).sum())
    assert moved > 3


@pytest.mark.small
def test_which_units_move_together() -> None:
    units = np.array([renumbering(separable(), np.random.default_rng(seed)) for seed in range(150)])
    assert len({tuple(row) for row in units[:, 2:6]}) == 24  # all orders of the depthwise channels
    assert (units[:, 6:14:2] == 6 + 2 * (units[:, 2:6] - 2)).all()  # with both outputs of each
    assert (units[:, 15:19] - 15 == units[:, 2:6] - 2).all()  # and with what is added to them
    assert {tuple(row) for row in units[:, [14, 19]]} == {(14, 19), (19, 14)}  # padding adds nothing to these two
    held = np.array([renumbering(crossed(), np.random.default_rng(seed)) for seed in range(10)])
    assert (held[:, :20] == np.arange(20)).all() and len({tuple(row) for row in held[:, 20:25]}) > 5


def test_relabelled_leaves_every_number_that_knows_no_order() -> None:
    ordered = {entry.name for entry in metrics.values() if entry.ordered}
    for masks, wiring in (
        (topo.read_masks(MASK), "resnet20"),
        (toys.sparse(toys.gated(), 0.6, 1), toys.gated()),
        (toys.sparse(separable(), 0.6, 1), separable()),
    ):
        report = topo.analyze(masks, wiring, metrics="all", nulls={"relabelled": 3})
        assert {entry["metric"] for entry in report.nulls} >= {"effective_nodes", "log10_effective_paths", "sigma2"}
        for entry in report.nulls:
            if entry["metric"] not in ordered:
                assert float(entry["observed"]) == entry["mean"] and entry["std"] == 0 and entry["p"] == 1, entry
                assert math.isnan(entry["z"])
                note = {"metric": entry["metric"], "layer": entry["layer"]}
                assert {**note, "note": "relabelled: every sample has the observed number, z is undefined"} in (
                    report.notes
                )
        assert set(report.first_explaining_null.values()) == {"relabelled"}


# -- numbers against samples


@pytest.mark.small
def test_scores_by_hand() -> None:
    found = score(5, [1, 2, 3])
    assert (found.samples, found.mean, found.std, found.z, found.p, found.note) == (3, 2.0, 1.0, 3.0, 2 / 4, None)
    found = score(1.0, [1.0, 2.0, 3.0, 6.0])  # from below it and one equal sample, from above all five
    assert (found.mean, found.std, found.p) == (3.0, pytest.approx(math.sqrt(14 / 3)), 4 / 5)
    assert found.z == pytest.approx(-2 / math.sqrt(14 / 3))
    left_out = score(2.0, [1.0, math.nan, 3.0, 2.0])
    assert replace(left_out, note=None) == score(2.0, [1.0, 3.0, 2.0]) and left_out.samples == 3
    assert left_out.note == "1 of 4 samples have no number and are left out"
    large = score(3e200, [1e200, 2e200, 3e200])
    assert (large.mean, large.std, large.z) == pytest.approx((2e200, 1e200, 1.0))


@pytest.mark.small
@pytest.mark.parametrize(
    "observed, drawn, mean, std, p, note",
    [
        (3, [3, 3], 3, 0, 1, "every sample has the observed number, z is undefined"),
        (4, [3, 3, 3], 3, 0, 2 / 4, "all samples have the same number, z is undefined"),
        (0.3, [0.1 + 0.2, 0.3], 0.3, 0, 1, "every sample has the observed number, z is undefined"),
        (0.0, [1e-16, -1e-16], 0, 0, 1, "every sample has the observed number, z is undefined"),
        (1e30, [5.0, 5.0], 5, 0, 2 / 3, "all samples have the same number, z is undefined"),
        (2, [1, math.nan], 1, math.nan, 1, "1 of 2 samples have no number and are left out; "
         "a single sample has a number, z is undefined"),
        (2, [math.nan, math.nan], math.nan, math.nan, math.nan, "none of 2 samples has a number"),
        (math.nan, [1, 3], 2, math.sqrt(2), math.nan, "the masks themselves have no number, z is undefined"),
        (10**400, [10**400, 2], math.nan, math.nan, 1, "numbers are beyond float64; see their logarithm"),
        (-math.inf, [-math.inf] * 9, -math.inf, 0, 1, "every sample has the observed number, z is undefined"),
        (1.0, [-math.inf] * 9, -math.inf, 0, 0.2, "all samples have the same number, z is undefined"),
        (-math.inf, [1.0, 3.0], 2, math.sqrt(2), 2 / 3, "the masks' own number is -inf, z is undefined"),
        (1.0, [-math.inf, 3.0, 2.0], math.nan, math.nan, 1,
         "1 of 3 samples are -inf: mean, std and z are undefined"),
    ],
)  # fmt: skip
def test_undefined_scores_say_why(observed, drawn, mean, std, p, note) -> None:
    found = score(observed, drawn)
    assert math.isnan(found.z) and found.note == note
    assert (found.mean, found.std, found.p) == (
        pytest.approx(mean, nan_ok=True),
        pytest.approx(std, nan_ok=True),
        pytest.approx(p, nan_ok=True),
    )


@pytest.mark.parametrize("law", ["normal", "exponential", "lattice", "heavy"])
def test_p_is_calibrated_in_both_tails(law: str) -> None:
    """3000 numbers against 99 samples of their own law: P(p <= a) is a, less where there are ties.

    A distance from the mean would miss the short tail of a skew law: below all of 99 exponential samples it says .16.
    """
    rng = np.random.default_rng(7)
    draw = {
        "normal": lambda n: rng.standard_normal(n),
        "exponential": lambda n: rng.exponential(size=n),
        "lattice": lambda n: rng.integers(0, 4, n),
        "heavy": lambda n: rng.standard_cauchy(n),
    }[law]
    found = np.array([score(*(lambda x: (x[0], x[1:]))(draw(100).tolist())).p for _ in range(3000)])
    for level in (0.02, 0.1, 0.5):  # multiples of 2 / 100
        share, sd = float((found <= level + 1e-12).mean()), math.sqrt(level * (1 - level) / 3000)
        assert share <= level + 4 * sd
        if law != "lattice":
            assert share >= level - 4 * sd
    if law != "lattice":
        assert score(-1e9, draw(99).tolist()).p == score(1e9, draw(99).tolist()).p == 2 / 100


def test_p_of_masks_of_the_null_itself() -> None:
    """300 masks of a null model, each against 199 others: p is uniform on its steps of 1 / 100, within binomial bounds.

    The 199 are drawn from one pool, where all masks are exchangeable.
    """
    start = topo.MaskSet({"a": np.random.default_rng(0).random((12, 18)) < 0.25})
    rng, null = np.random.default_rng(1), nulls["same_degrees"]
    pool = np.array([np.linalg.svd(null(start, rng)["a"].astype(float), compute_uv=False)[1] for _ in range(1500)])
    rest = pool[300:]
    found = np.array([score(one, rng.choice(rest, 199, replace=False).tolist()).p for one in pool[:300].tolist()])
    for level in (0.01, 0.05, 0.1, 0.5):
        assert abs(float((found <= level + 1e-12).mean()) - level) < 3 * math.sqrt(level * (1 - level) / 300)


# -- mixing


def hub(d: int, rows: int) -> np.ndarray:
    """A row of d weights, `rows` rows of one, every column of one."""
    mask = np.zeros((rows + 1, d + rows), bool)
    mask[0, :d] = True
    mask[np.arange(1, rows + 1), np.arange(d, d + rows)] = True
    return mask


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("d, rows", [(200, 200), (50, 450), (300, 30)])
def test_hubs_mix(d: int, rows: int, turned: bool) -> None:
    """The hub of a random such mask has d of the d + rows columns at random: d * d / (d + rows) of its own on average.

    Trades between rows alone move one of its weights a round: after 20 it keeps 182 of 200.
    """
    mask = hub(d, rows).T if turned else hub(d, rows)
    masks, draws = topo.MaskSet({"a": mask}), 40
    kept = []
    for seed in range(draws):
        sample = nulls["same_degrees"](masks, seed)["a"]
        kept.append(int(((sample.T if turned else sample)[0, :d]).sum()))
    chance = d * d / (d + rows)
    sd = math.sqrt(chance * rows / (d + rows))  # no more than a hypergeometric draw's
    assert abs(np.mean(kept) - chance) < 4 * sd / math.sqrt(draws) + 0.01 * (d - chance)


def test_a_whole_network_mixes_and_says_how_far() -> None:
    """Overlap with SynFlow's mask of ResNet-20: what long chains keep, in all within 2 %; expected, 3 % a layer."""
    masks, draws = topo.read_masks(MASK), 6
    drawn = [nulls["same_degrees"](masks, seed) for seed in range(draws)]
    far = 0.0
    for name in masks:
        rows = masks.rows(name)
        long = []
        for seed in range(draws):
            words = rows.words.copy()
            rewire(words, rows.columns, 1, 150, np.random.default_rng(seed))
            long.append(int(np.bitwise_count(words & rows.words).sum()))
        here = [int(np.bitwise_count(sample.rows(name).words & rows.words).sum()) for sample in drawn]
        far += float(np.mean(here) - np.mean(long))
        assert abs(np.mean(long) - expected_overlap(rows)) < 0.03 * rows.kept() + 3, name
    assert abs(far) < 0.02 * masks.kept
    report = topo.analyze(masks, "resnet20", metrics=["kept"], nulls={"same_degrees": 1})
    assert [note for note in report.notes if note["metric"] is None and "rounds a layer" in note["note"]]


def test_what_chance_keeps_where_it_is_known() -> None:
    for mask in (np.ones((4, 5)), np.zeros((4, 5)), np.eye(1, 7), np.ones((1, 6))):
        assert expected_overlap(topo.MaskSet({"a": mask}).rows("a")) == mask.sum()  # the only mask of its sums
    assert expected_overlap(topo.MaskSet({"a": np.eye(40)}).rows("a")) == pytest.approx(1)  # permutations
    rows = topo.MaskSet({"a": hub(200, 200)}).rows("a")
    assert expected_overlap(rows) == pytest.approx(100 + 0.5, abs=1e-6)  # and half a weight of the others
    assert mixing(rows).mixed and mixing(rows) is mixing(rows)


def test_masks_that_cannot_mix_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from topo.generators import rewiring as module

    masks = topo.MaskSet({"a": hub(60, 90)})
    monkeypatch.setattr(module, "_MOST", 4)
    monkeypatch.setattr(module, "_known", {})
    monkeypatch.setattr(module, "rewire", lambda words, *rest: None)
    report = topo.analyze(masks, metrics=["kept"], nulls={"same_degrees": 2})
    assert [note for note in report.notes if note["note"].startswith("same_degrees: a does not mix: 100% left")]


@pytest.mark.small
def test_integers_that_differ_by_one_part_in_1e15_differ() -> None:
    assert score(10**15, [10**15 + 1, 10**15 - 1]).std == pytest.approx(math.sqrt(2))


@pytest.mark.small
@pytest.mark.parametrize("size", [10**15, 10**16, 10**30, 10**400])
def test_whole_numbers_are_ranked_as_such_whatever_their_size(size: int) -> None:
    """Counts of paths pass 2**53 in any network, and float64 in deep ones."""
    below = score(size, [size + step for step in range(1, 50)])
    assert below.p == pytest.approx(2 / 50) and score(size, [size] * 49).p == 1
    assert score(size + 1, [size] * 49).p == pytest.approx(2 / 50)
    if size < 10**300:
        assert below.z == pytest.approx(score(0, list(range(1, 50))).z)
        assert "all samples have the same number" in str(score(size + 1, [size] * 49).note)


# -- analyze


WIRING = chain(topo.MaskSet({"a": np.ones((12, 8)), "b": np.ones((10, 12)), "c": np.ones((5, 10))}))
MASKS = toys.sparse(WIRING, 0.3, 4)
FEW = ["kept", "effective_nodes", "log10_effective_paths", "effective_paths", "sigma2", "sigma_error"]


def test_entries_are_those_of_samples_analysed_one_by_one() -> None:
    wanted = {"same_layers": 6, "same_degrees": 4}
    report = topo.analyze(MASKS, WIRING, metrics=FEW, nulls=wanted, rng=3)
    plain = topo.analyze(MASKS, WIRING, metrics=FEW)
    assert plain.nulls == () and report.rows == plain.rows
    places = [(row.metric, row.layer) for row in report.rows if row.metric != "sigma_error"]  # no property of masks
    assert [(entry["null"], entry["metric"], entry["layer"]) for entry in report.nulls] == [
        (name, *place) for name in wanted for place in places
    ]
    for name, draws in seeds(3, wanted).items():
        drawn = [topo.analyze(nulls[name](MASKS, draw, WIRING), WIRING, metrics=FEW) for draw in draws]
        for entry in report.nulls:
            if entry["null"] == name:
                values = [
                    row.value
                    for found in drawn
                    for row in found.rows
                    if (row.metric, row.layer) == (entry["metric"], entry["layer"])
                ]
                expected = score(entry["observed"], values)
                assert entry["samples"] == expected.samples
                for key in ("mean", "std", "z", "p"):
                    assert entry[key] == pytest.approx(getattr(expected, key), nan_ok=True)


def test_samples_depend_on_the_seed_and_on_nothing_else() -> None:
    def text(nulls: Any, rng: Any = 0, **more: Any) -> str:
        return topo.analyze(MASKS, WIRING, metrics=FEW, nulls=nulls, rng=rng, **more).to_json()

    both = "same_degrees:4, same_layers:5"
    assert text(both, threads=1) == text(both, threads=4) == text({"same_layers": 5, "same_degrees": 4})
    assert text(both) != text(both, rng=1)
    alone = topo.analyze(MASKS, WIRING, metrics=FEW, nulls="same_degrees:4").nulls
    among = topo.analyze(MASKS, WIRING, metrics=FEW, nulls=both).nulls
    assert [repr(entry) for entry in alone] == [repr(entry) for entry in among if entry["null"] == "same_degrees"]
    rng = np.random.default_rng(0)
    assert text(both, rng=rng) == text(both) != text(both, rng=rng)  # a generator goes on


def test_progress_counts_samples() -> None:
    said: list[tuple[int, int, str]] = []
    topo.analyze(MASKS, WIRING, metrics="kept", nulls="same_rows:3", threads=2, progress=lambda *at: said.append(at))
    assert said[-3:] == [(n, 3, "null model same_rows") for n in (1, 2, 3)]


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(TopoError, match=r"no null model is called 'same'; did you mean .same_rows.\? There are: same"):
        topo.analyze(MASKS, WIRING, nulls={"same": 3})
    for count in (0, -1, 2.5, True, "3", None):
        with pytest.raises(TopoError, match=r"'same_rows' is asked for .* samples; it is a whole number, 1 to 100,000"):
            topo.analyze(MASKS, WIRING, nulls={"same_rows": count})
    for text in ("same_rows", "same_rows=3", ":3", "same_rows:3,", "same_rows:3;same_total:2"):
        with pytest.raises(TopoError):
            requested(text)
    with pytest.raises(TopoError, match="KIND:N, as in same_layers:100, not as 'same_rows'"):
        requested("same_rows")
    with pytest.raises(TopoError, match="asked for twice"):
        requested("same_rows:3,same_rows:4")
    assert requested({"same_rows": np.int64(3)}) == {"same_rows": 3}
    unfit = topo.MaskSet({"a": np.ones((3, 4)), "b": np.ones((2, 7))})
    with pytest.raises(TopoError, match="null model 'relabelled' needs the network's wiring"):
        topo.analyze(unfit, nulls="relabelled:2")
    with pytest.raises(TopoError, match="null model 'relabelled' needs the network's wiring"):
        nulls["relabelled"](unfit)
    with pytest.raises(WiringError, match="'a'"):
        nulls["same_rows"](unfit, 0, WIRING)


def test_without_wiring_layers_have_scores_and_the_network_has_none() -> None:
    unfit = topo.MaskSet({"a": np.eye(4)[:3], "b": np.eye(7)[:5]})
    report = topo.analyze(unfit, metrics=["kept", "effective_nodes", "fan_out_max"], nulls="same_layers:20")
    assert not [entry for entry in report.nulls if entry["metric"] == "effective_nodes"]
    spread = [entry for entry in report.nulls if entry["metric"] == "fan_out_max" and entry["layer"]]
    assert spread and all(entry["z"] < 0 for entry in spread)


def test_weights_stay_at_their_places() -> None:
    weights = {name: np.random.default_rng(1).normal(size=MASKS.shapes[name]) for name in MASKS}
    report = topo.analyze(MASKS, WIRING, metrics="weighted_spectral_gap", weights=weights, nulls="same_layers:5")
    assert all(entry["samples"] == 5 and math.isfinite(entry["z"]) for entry in report.nulls if entry["layer"])


def test_what_regular_masks_are_beside_chance() -> None:
    """Evenly dealt fan-ins leave more paths' entropy than chance does, and no more than their degrees explain."""
    masks = topo.generate("biregular", WIRING, density=0.3, rng=0)
    nulls = "same_layers:30,same_degrees:30"
    report = topo.analyze(masks, WIRING, metrics=["kept", "balance_gap", "fan_in_cv"], nulls=nulls)
    (gap, degrees) = [entry for entry in report.nulls if (entry["metric"], entry["layer"]) == ("balance_gap", None)]
    assert gap["z"] < -2 and gap["p"] == 2 / 31
    assert abs(degrees["z"]) < 3
    assert report.first_explaining_null["kept"] == "same_layers"


# -- reports and the command


def test_reports_show_scores_in_every_form() -> None:
    report = topo.analyze(MASKS, WIRING, metrics=FEW, nulls="same_layers:5,same_degrees:5", mask_name="m")
    header, lines = report.tables()[-1]
    assert header == ["null", "samples", "metric", "observed", "mean", "std", "z", "p"]
    assert ["kept"] not in [line[2:3] for line in lines]  # no sample changes it
    assert {line[0] for line in lines} == {"same_layers", "same_degrees"}
    assert "| null | samples | metric | observed |" in report.to_markdown()
    assert "first within noise (p &gt;= 0.05) at same_layers: kept" in report._repr_html_()
    assert "null & samples & metric & observed & mean & std & z & p" in report.to_latex()
    assert report.to_csv() == topo.analyze(MASKS, WIRING, metrics=FEW, mask_name="m").to_csv()
    few = report.only("kept,sigma2").with_notes(["said"])
    assert {entry["metric"] for entry in few.nulls} == {"kept", "sigma2"}
    assert {note["metric"] for note in few.notes} <= {None, "kept", "sigma2"}


def test_a_report_with_scores_reads_back(tmp_path: Path) -> None:
    from topo.report import read_reports

    report = topo.analyze(MASKS, WIRING, metrics=FEW, nulls="same_layers:5")
    (tmp_path / "r.json").write_text(report.to_json())
    (found,) = read_reports(tmp_path / "r.json")
    assert found.to_json() == report.to_json()
    assert not any(row.note for row in found.rows)  # notes on z are of no row


@pytest.fixture
def mask_file(tmp_path: Path) -> str:
    topo.write_masks(MASKS, tmp_path / "m.safetensors")
    return str(tmp_path / "m.safetensors")


def test_json_holds_the_contract(mask_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["analyze", mask_file, "--metrics", ",".join(FEW), "--nulls", "same_layers:4", "--json", "-", "--quiet"]
    assert main(argv) == 0
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    assert report["views"] == {"sigma2": "kernel", "sigma_error": "kernel"}
    keys = ["null", "samples", "metric", "layer", "observed", "mean", "std", "z", "p"]
    assert all(list(entry) == keys for entry in report["nulls"])
    paths, kept = (next(e for e in report["nulls"] if e["metric"] == m) for m in ("effective_paths", "kept"))
    assert paths["observed"] == report["network"]["effective_paths"] and isinstance(paths["mean"], float)
    assert (kept["layer"], kept["observed"], kept["std"], kept["z"]) == (None, MASKS.kept, 0.0, None)
    reason = "same_layers: every sample has the observed number, z is undefined"
    assert {"metric": "kept", "layer": None, "note": reason} in report["notes"]
    assert main([*argv, "--seed", "0", "--threads", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["reports"] == [report]
    assert main([*argv, "--seed", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["reports"] != [report]


def test_the_command_prints_a_table_and_the_first_explaining_null(
    mask_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", mask_file, "--metrics", "kept,log10_effective_paths", "--nulls", "same_layers:5"]) == 0
    out = capsys.readouterr().out
    table = next(part for part in out.split("\n\n") if part.startswith("null "))
    assert [line.split()[:3] for line in table.splitlines()[1:]] == [["same_layers", "5", "log10_effective_paths"]]
    assert "note: first within noise (p >= 0.05) at same_layers: kept" in out
    assert "z is undefined" not in out  # a dash; the reason is in JSON
    assert main(["analyze", mask_file, mask_file, "--metrics", "log10_effective_paths", "--nulls", "same_rows:5"]) == 0
    assert capsys.readouterr().out.count(" same_rows ") >= 2
    assert main(["analyze", mask_file]) == 0 and "null " not in capsys.readouterr().out


def test_holm_on_request(mask_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["analyze", mask_file, "--metrics", "kept,effective_nodes", "--nulls", "same_layers:5", "--quiet"]
    assert main([*argv, "--holm"]) == 0 and "p_holm" in capsys.readouterr().out
    assert main([*argv, "--holm", "--json", "-"]) == 0
    entries = json.loads(capsys.readouterr().out)["reports"][0]["nulls"]
    assert all(entry["p"] <= entry["p_holm"] <= 1 for entry in entries)
    assert main([*argv]) == 0 and "p_holm" not in capsys.readouterr().out
    assert main(["analyze", mask_file, "--holm"]) == 2
    assert "--nulls" in capsys.readouterr().err


def test_no_path_anywhere_is_the_same_and_no_discovery(mask_file: str) -> None:
    """A mask that collapsed: the logarithm of its paths is -inf, and so it is in every sample of its degrees."""
    cut = {name: mask.copy() for name, mask in MASKS.items()}
    cut["b"][:] = False
    report = topo.analyze(topo.MaskSet(cut), WIRING, metrics=["log10_effective_paths"], nulls={"same_layers": 5})
    (entry,) = report.nulls
    assert (entry["samples"], entry["std"], entry["p"]) == (5, 0.0, 1.0) and entry["mean"] == -math.inf
    assert report.first_explaining_null == {"log10_effective_paths": "same_layers"}
    assert json.loads(report.to_json())["reports"][0]["nulls"][0]["mean"] is None


def test_wrong_nulls_of_the_command(mask_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("same:3", "same_rows", "same_rows:0", ""):
        assert main(["analyze", mask_file, "--nulls", text]) == 1
        out, err = capsys.readouterr()
        assert not out and err.startswith("topo: ") and err.count("\n") == 1 and "null model" in err
    assert main(["list", "nulls"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines() if not line.startswith(" ")] == ["null", *nulls]


# -- the page


PAGE = (Path(__file__).parents[1] / "docs" / "nulls.md").read_text("utf-8")


def test_the_page_names_every_null_model_and_draws_the_order_of_the_module() -> None:
    rows = [
        line.split("|")[1].strip(" `") for line in PAGE.partition("## The null models")[2].split("\n\n")[1].splitlines()
    ]
    assert rows[2:] == list(nulls)
    diagram = [line for line in PAGE.splitlines() if line.startswith("    ")]
    assert diagram and "\n".join(diagram) in (topo.nulls.__doc__ or "")


def test_the_table_of_the_page() -> None:
    table = PAGE.partition("computes this table -->\n")[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table]
    rungs, lines = cells[0][1:], {line[0]: line[1:] for line in cells[2:]}
    report = topo.analyze(topo.read_masks(MASK), "resnet20", metrics=list(lines), nulls=dict.fromkeys(rungs, 50))
    assert rungs == RUNGS and len(lines) == 4
    for entry in report.nulls:
        if entry["metric"] in lines and entry["layer"] is None:
            told = lines[entry["metric"]][rungs.index(entry["null"])]
            assert told == ("same" if entry["p"] == 1 and entry["std"] == 0 else f"{entry['z']:.1f}"), entry
    assert {report.first_explaining_null[metric] for metric in lines} == {"same_degrees"}


@pytest.mark.slow
def test_threads_find_what_is_registered_in_a_fresh_process(tmp_path) -> None:
    """Every thread asks a registry that nobody has asked yet; each must wait until all entries are found."""
    topo.write_masks(topo.generate("erk", "mlp:64-32-10", density=0.2), tmp_path / "a.safetensors")
    line = "--threads 4 --quiet analyze a.safetensors --metrics kept --nulls same_layers:8 --json -".split()
    done = subprocess.run([sys.executable, "-m", "topo", *line], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["reports"][0]["nulls"][0]["samples"] == 8
