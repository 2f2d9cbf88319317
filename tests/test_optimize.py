"""The optimizer's layers and bounds: closed forms against flows, linear programs and enumeration."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import topo
import toys
from naive import optimize as oracle
from naive.optimize import CoverCase, LayerCase
from topo.errors import TopoError
from topo.graph import build_graph
from topo.kernels import cores, coverage
from topo.kernels.balance import deal, deal_n_m, fill, place
from topo.kernels.rank_one import rank_one
from topo.kernels.scores import ascend
from topo.masks import MaskSet
from topo.metrics import metrics
from topo.networks import find_wiring
from topo.optimize import methods, solve_layer_npb, solve_layer_rank1, upper_bound, water_fill
from topo.optimize.coverage import coverage_bound
from topo.optimize.interchangeable import InterchangeableUnits
from topo.optimize.layers import max_path
from topo.optimize.problem import Problem
from topo.wiring import Join, Layer, Wiring

pytestmark = pytest.mark.kernels


def some_case(rng: np.random.Generator, largest: int = 8, *, n_m: bool = False, caps: bool = False) -> LayerCase:
    """A random layer problem: ties, equal and very unequal path counts, demands, all weights."""
    a, b = (int(n) for n in rng.integers(1, largest + 1, 2))
    kernel_size = int(rng.integers(1, 10 if largest > 3 else 3))
    budget = int(rng.integers(1, a * b * kernel_size + 1 if rng.random() < 0.5 else max(2, a * b + 1)))
    kind = rng.integers(4)
    drawn = [rng.integers(1, 50, a), np.full(a, rng.integers(1, 9)), rng.integers(1, 3, a), 10 ** (4 * rng.random(a))]
    paths = tuple(int(p) for p in drawn[kind])
    demand = 1 if rng.random() < 0.6 else int(rng.integers(1, 6))
    alpha = Fraction(int(rng.choice([0, 1, 5, 10, 30, 50, 70, 90, 99, 100])), 100)
    beta = Fraction(int(rng.choice([0, 1, 10, 100, 1000, 2000])), 1000)
    m = int(rng.choice([2, 4]))
    return LayerCase(
        paths,
        b,
        kernel_size,
        budget,
        demand,
        alpha,
        beta,
        oracle.largest_path_sum(paths, b, kernel_size, budget),
        n_m=(int(rng.integers(1, m + 1)), m) if n_m else None,
        row_cap=int(rng.integers(1, b * kernel_size + 1)) if caps else None,
        column_cap=int(rng.integers(1, a * kernel_size + 1)) if caps else None,
    )


def solve(case: LayerCase, **options):
    return solve_layer_npb(
        case.paths,
        case.columns,
        case.kernel_size,
        case.budget,
        alpha=float(case.alpha),
        beta=float(case.beta),
        demand=case.demand,
        n_m=case.n_m,
        row_cap=case.row_cap,
        column_cap=case.column_cap,
        **options,
    )


def dealt(units, open_, kernel_size: int, rng, *, n_m=None, groups: int = 1) -> np.ndarray:
    """(outputs, inputs / groups, kernel_size) bool of a random deal."""
    columns = len(units) // groups * kernel_size
    words = np.zeros((len(open_), -(-columns // 64)), np.uint64)
    if n_m is None:
        deal(words, units, open_, kernel_size, groups, rng)
    else:
        deal_n_m(words, units, open_, kernel_size, groups, n_m[1], rng)
    bits = np.unpackbits(words.view(np.uint8), axis=1, count=columns, bitorder="little")
    return bits.reshape(len(open_), -1, kernel_size).astype(bool)


# -- one layer of NPB in closed form


@pytest.mark.parametrize("kind", [{}, {"n_m": True}, {"caps": True}], ids=["plain", "n_m", "caps"])
def test_layer_npb_against_linear_programs(kind) -> None:
    """1200 instances: same value, whole vertices, and the random deal is feasible and reaches the optimum."""
    rng = np.random.default_rng(1)
    cases = [some_case(rng, **kind) for _ in range(400)]
    for start in range(0, len(cases), 200):
        values, fractions = oracle.by_linear_program(cases[start : start + 200])
        assert fractions.max() < 1e-7
        for case, value in zip(cases[start : start + 200], values):
            found = solve(case)
            assert found.value == pytest.approx(value, abs=1e-9), case
            kept = dealt(found.units, found.open_, case.kernel_size, rng, n_m=case.n_m)
            matrix = kept.sum(axis=2).T.astype(int)
            assert case.feasible(matrix), case
            assert float(case.objective(matrix)) == pytest.approx(value, abs=1e-9), case
            if case.n_m is not None:
                n, m = case.n_m
                for first in range(0, kept.shape[1], m):
                    assert kept[:, first : first + m].sum(axis=1).max() <= n


def test_layer_npb_against_network_simplex_in_rationals() -> None:
    """600 instances, gains as whole numbers: no rounding in the oracle."""
    rng = np.random.default_rng(2)
    for k in range(600):
        case = some_case(rng, caps=k % 2 == 1)
        assert solve(case).value == pytest.approx(float(oracle.by_network_simplex(case)), abs=1e-12), case


def test_layer_npb_against_enumeration() -> None:
    """200 tiny instances against every matrix there is, the objective as it is written."""
    rng, done = np.random.default_rng(3), 0
    while done < 200:
        case = some_case(rng, 3, n_m=rng.random() < 0.3, caps=rng.random() < 0.3)
        if (case.kernel_size + 1) ** math.prod(case.shape) <= 800:
            assert solve(case).value == pytest.approx(float(oracle.by_enumeration(case)), abs=1e-12), case
            done += 1


def test_layer_npb_with_a_minimum_fan_in_against_enumeration() -> None:
    """Columns hold 0 or at least f: giving columns up first is optimal."""
    rng, done = np.random.default_rng(4), 0
    while done < 60:
        case, least = some_case(rng, 3), int(rng.integers(2, 4))
        a, b = case.shape
        if (case.kernel_size + 1) ** (a * b) > 800 or least > a * case.kernel_size or least > case.budget:
            continue
        best = None
        for cells in np.ndindex(*[case.kernel_size + 1] * (a * b)):
            matrix = np.array(cells).reshape(a, b)
            sums = matrix.sum(axis=0)
            if matrix.sum() <= case.budget and ((sums == 0) | (sums >= least)).all():
                best = max(case.objective(matrix), best) if best is not None else case.objective(matrix)
        found = solve(case, min_fan_in=least)
        matrix = dealt(found.units, found.open_, case.kernel_size, rng).sum(axis=2).T.astype(int)
        sums = matrix.sum(axis=0)
        assert ((sums == 0) | (sums >= least)).all()
        # Closed columns leave room for fewer units in the path term's divisor, so that the paper's is put back.
        scaled = LayerCase(**{**case.__dict__, "largest": case.largest})
        assert float(scaled.objective(matrix)) == pytest.approx(float(best), abs=1e-9), (case, least)
        done += 1


@pytest.mark.small
def test_layer_npb_by_hand() -> None:
    """One unit for each row first, since nodes count; the second of the better row only then."""
    assert solve_layer_npb([4.0, 1.0], 2, 1, 2, alpha=0.9).units.tolist() == [1, 1]
    assert solve_layer_npb([4.0, 1.0], 2, 1, 2, alpha=0.0, beta=0.0).units.tolist() == [2, 0]
    assert solve_layer_npb([5.0, 5.0, 5.0], 8, 1, 12, alpha=0.0).units.tolist() == [4, 4, 4]  # ties are shared
    with pytest.raises(TopoError, match="beta"):
        solve_layer_npb([1.0], 1, 1, 1, beta=-1.0)


@pytest.mark.small
def test_layer_npb_as_released() -> None:
    """Dead inputs earn, ties go row by row, and the path term is divided by whole rows at high sparsity."""
    assert max_path(np.array([3.0, 2.0]), 4, 1, 3, released=True) == 4 * (3 + 2) + 3 * 3  # sort(p)[-0:] is all of p
    assert max_path(np.array([3.0, 2.0]), 4, 1, 3) == 3 * 3
    assert solve_layer_npb([5.0, 0.0], 4, 1, 4, alpha=0.9).units.tolist() == [4, 0]
    assert solve_layer_npb([5.0, 0.0], 4, 1, 4, alpha=0.9, released=True).units.tolist() == [3, 1]
    assert solve_layer_npb([5.0, 5.0], 8, 1, 8, alpha=0.0, released=True).units.tolist() == [8, 0]


@pytest.mark.small
def test_layer_npb_of_groups_is_exact() -> None:
    """Two groups of one row each: a column bonus of its own for each group."""
    found = solve_layer_npb([2.0, 1.0], 4, 1, 3, alpha=1.0, beta=0.0, groups=2)
    assert found.units.tolist() in ([2, 1], [1, 2])
    assert solve_layer_npb([9.0, 1.0], 4, 2, 8, alpha=0.0, groups=2).units.tolist() == [4, 4]


# -- deals


@pytest.mark.small
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_a_deal_is_near_biregular(seed: int) -> None:
    """Rows as asked; columns, kernels and positions within one unit; closed columns empty."""
    rng = np.random.default_rng(seed)
    groups, kernel_size = int(rng.integers(1, 4)), int(rng.choice([1, 4, 9]))
    a, b = int(rng.integers(1, 8)), int(rng.integers(1, 8))
    open_ = rng.random(groups * b) < 0.8
    wide = open_.reshape(groups, b).sum(axis=1).repeat(a)
    units = (rng.random(groups * a) * (wide * kernel_size + 1)).astype(np.int64)
    kept = dealt(units, open_, kernel_size, rng, groups=groups)
    counts = kept.sum(axis=2).reshape(groups, b, a)
    assert (counts.sum(axis=1).reshape(-1) == units).all()
    assert not kept[~open_].any()
    for matrix, mine in zip(counts, open_.reshape(groups, b)):
        if mine.any():
            assert np.ptp(matrix[mine].sum(axis=1)) <= 1
            assert np.ptp(matrix[mine], axis=0).max() <= 1
    assert np.ptp(kept.sum(axis=(0, 1))) <= 1


@pytest.mark.small
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_a_deal_with_n_m_keeps_it_to_the_last_unit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel_size, b, m = int(rng.choice([1, 4])), int(rng.integers(1, 9)), int(rng.choice([2, 4]))
    n, a = int(rng.integers(1, m + 1)), int(rng.integers(1, 12))
    full = sum(min(n, len(range(first, min(first + m, a)))) * b * kernel_size for first in range(0, a, m))
    budget = full if rng.random() < 0.4 else int(rng.integers(1, full + 1))
    found = solve_layer_npb(np.ones(a), b, kernel_size, budget, alpha=0.0, beta=0.0, n_m=(n, m), rng=rng)
    assert found.units.sum() == budget
    kept = dealt(found.units, found.open_, kernel_size, rng, n_m=(n, m))
    assert (kept.sum(axis=(0, 2)) == found.units).all()
    groups = [kept[:, first : first + m].sum(axis=1) for first in range(0, a, m)]
    assert max(group.max() for group in groups) <= n
    assert np.ptp(kept.sum(axis=(1, 2))) <= 2


@pytest.mark.small
def test_fill_shares_ties_or_takes_them_in_order() -> None:
    taken = np.zeros(4, np.int64)
    fill(np.array([3.0, 2, 2, 1]), np.array([2, 5, 5, 9]), np.array([4]), np.array([8]), True, taken)
    assert taken.tolist() == [2, 3, 3, 0]
    fill(np.array([3.0, 2, 2, 1]), np.array([2, 5, 5, 9]), np.array([4]), np.array([8]), False, taken)
    assert taken.tolist() == [2, 5, 1, 0]
    fill(np.array([1.0, 1, 1, 1]), np.array([1, 9, 2, 9]), np.array([4]), np.array([12]), True, taken)
    assert taken.tolist() == [1, 5, 2, 4]


@pytest.mark.small
def test_place_puts_units_at_free_positions() -> None:
    words = np.array([[0b0100]], np.uint64)
    place(words, np.array([1]), np.array([0]), np.array([1]), 2, 2, np.random.default_rng(0))
    assert words.tolist() == [[0b1100]]


@pytest.mark.small
def test_adam_goes_uphill_by_the_rate_at_first() -> None:
    scores = np.array([[1.0, -1.0]], np.float32)
    ascend(scores, np.zeros_like(scores), np.zeros_like(scores), np.array([2.0]), 0.1, 1)
    assert scores.tolist() == [pytest.approx([1.1, -1.1])]


# -- one layer, all others fixed


def some_cover(rng: np.random.Generator, groups: int = 1) -> CoverCase | None:
    a, b, kernel_size = int(rng.integers(1, 9)), int(rng.integers(1, 9)), int(rng.integers(1, 10))
    a, b = (a, b) if groups == 1 else (min(a, 4) * groups, min(b, 4) * groups)
    drawn = [
        lambda n: rng.integers(1, 5, n).astype(float),
        lambda n: 10 ** (3 * rng.random(n)),
        lambda n: np.ones(n),
        lambda n: rng.integers(0, 3, n).astype(float),
    ][rng.integers(4)]
    f, g = drawn(a), drawn(b)
    inside = np.kron(np.eye(groups), np.ones((a // groups, b // groups))) > 0
    usable = inside & np.outer(f > 0, g > 0)
    rows, columns = (rng.random(a) < 0.6) & usable.any(axis=1), (rng.random(b) < 0.6) & usable.any(axis=0)
    room = kernel_size * int(usable.sum())
    per_row = rows.reshape(groups, -1).sum(axis=1)
    least = int(np.maximum(per_row, columns.reshape(groups, -1).sum(axis=1)).sum())
    if room < max(1, least):
        return None
    tight = min(room, 2 * least + 3) if rng.random() < 0.6 else room
    return CoverCase(f, g, kernel_size, int(rng.integers(max(1, least), tight + 1)), rows, columns, groups)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_layer_rank1_against_linear_programs(groups: int) -> None:
    """3000 instances with ties, zeros, and budgets near the cover."""
    rng = np.random.default_rng(groups)
    cases = [case for _ in range(1100) if (case := some_cover(rng, groups)) is not None][:1000]
    for start in range(0, len(cases), 250):
        for case, best in zip(cases[start : start + 250], oracle.best_cover(cases[start : start + 250])):
            need = {"need_rows": case.need_rows, "need_columns": case.need_columns}
            found = solve_layer_rank1(case.ahead, case.behind, case.kernel_size, case.budget, groups=groups, **need)
            assert found.value == pytest.approx(best, rel=1e-9), case
            matrix = np.zeros((len(case.ahead), len(case.behind)), int)
            np.add.at(matrix, (found.sources, found.targets), found.counts)
            assert len(set(zip(found.sources.tolist(), found.targets.tolist()))) == len(found.sources)
            assert matrix.sum() == case.budget and 0 <= matrix.min() and matrix.max() <= case.kernel_size
            assert (matrix.sum(axis=1)[case.need_rows] >= 1).all()
            assert (matrix.sum(axis=0)[case.need_columns] >= 1).all()


@pytest.mark.small
def test_layer_rank1_by_hand() -> None:
    """A weak row and a weak column share a kernel while units are dear, and part when one is left over."""
    options = {"need_rows": [False, True], "need_columns": [False, True]}
    paired = solve_layer_rank1([4.0, 1.0], [4.0, 1.0], 1, 2, **options)
    assert (paired.value, sorted(zip(paired.sources, paired.targets))) == (17.0, [(0, 0), (1, 1)])
    apart = solve_layer_rank1([4.0, 1.0], [4.0, 1.0], 1, 3, **options)
    assert (apart.value, sorted(zip(apart.sources, apart.targets))) == (24.0, [(0, 0), (0, 1), (1, 0)])
    with pytest.raises(TopoError, match="cannot cover"):
        solve_layer_rank1([1.0, 1.0, 1.0], [1.0], 1, 2, need_rows=[True] * 3)
    with pytest.raises(TopoError, match="do not fit"):
        solve_layer_rank1([1.0, 0.0], [1.0], 2, 3)


@pytest.mark.small
def test_layer_rank1_output_grows_with_the_budget_only() -> None:
    f = np.random.default_rng(0).random(300) + 0.1
    nobody = np.zeros(300, bool)
    sources, *_ = rank_one(f, f, nobody, nobody, 1, 1, 40)
    best = np.sort(np.outer(f, f).ravel())[-40:]
    assert len(sources) == 40 and (f[sources].min() * f.max()) >= best[0]


# -- budgets


@pytest.mark.small
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=7), st.integers(0, 10**6))
def test_water_filling_is_optimal(caps: list[int], seed: int) -> None:
    """Exact total, within bounds; no unit is better off elsewhere; under a limit none that could be paid."""
    rng = np.random.default_rng(seed)
    total = int(rng.integers(len(caps), sum(caps) + 1))
    found = water_fill(caps, total)
    assert found.sum() == total and (found >= 1).all() and (found <= caps).all()
    for i in range(len(caps)):
        for j in range(len(caps)):
            if i != j and found[i] > 1 and found[j] < caps[j]:
                assert (found[i] - 1) * (found[j] + 1) <= found[i] * found[j]
    costs = rng.integers(1, 50, len(caps)).astype(float)
    dearest = float(costs @ found)
    order = np.argsort(costs)
    low = np.ones(len(caps), int)
    for k in order:
        low[k] += min(caps[k] - 1, total - low.sum())
    limit = float(costs @ low) + rng.random() * max(dearest - float(costs @ low), 0)
    paid = water_fill(caps, total, costs=costs, limit=limit)
    assert paid.sum() == total and (paid >= 1).all() and (paid <= caps).all() and costs @ paid <= limit + 1e-9


def test_water_filling_under_a_limit_against_enumeration() -> None:
    """Rounding of the continuous optimum loses less than what moving one unit of each layer could."""
    rng = np.random.default_rng(5)
    for _ in range(30):
        caps = rng.integers(4, 12, 3)
        costs, total = rng.integers(1, 20, 3).astype(float), int(rng.integers(6, caps.sum()))
        grid = np.stack(np.meshgrid(*[np.arange(1, c + 1) for c in caps]), -1).reshape(-1, 3)
        grid = grid[grid.sum(axis=1) == total]
        limit = float(np.quantile(grid @ costs, 0.4))
        best = np.log(grid[grid @ costs <= limit]).sum(axis=1).max()
        found = water_fill(caps, total, costs=costs, limit=limit)
        assert costs @ found <= limit
        assert np.log(found).sum() >= best - 1.0


@pytest.mark.small
def test_budgets_that_do_not_exist_are_refused() -> None:
    with pytest.raises(TopoError, match="hold 2 to 7"):
        water_fill([3, 4], 8)
    with pytest.raises(TopoError, match="FLOPs"):
        water_fill([5, 5], 8, costs=[1.0, 10.0], limit=20.0)


# -- pools


@pytest.mark.small
def test_pools_of_toys() -> None:
    pools = InterchangeableUnits(toys.residual(width=4, blocks=2))
    assert pools.sizes.tolist() == [3, 4, 4, 4, 4, 5]  # inputs, stem stream, two middles, shortcut stream, classes
    assert pools.terminal.tolist() == [True, False, False, False, False, True]
    needs = {index: (rows, int(columns.sum())) for index, (rows, columns) in pools.needs.items()}
    # second convolutions of identity blocks need not make what the skip brings; shortcuts need not read all
    assert needs == {0: (True, 4), 1: (True, 4), 2: (True, 0), 4: (True, 4), 5: (True, 4), 6: (False, 0), 8: (True, 5)}


def test_pools_of_networks() -> None:
    """A residual stage is one stream; a depthwise convolution ties its input to its output."""
    assert InterchangeableUnits(find_wiring("resnet20")).sizes.tolist() == [
        3,
        16,
        16,
        16,
        16,
        32,
        32,
        32,
        32,
        64,
        64,
        64,
        64,
        10,
    ]
    mobile = find_wiring("mobilenetv2")
    pools = InterchangeableUnits(mobile)
    layer = next(layer for layer in mobile.layers if layer.groups > 1)
    made = np.arange(layer.start, layer.stop)
    assert (pools.tie[layer.reads] == pools.tie[made]).all()


# -- the bound on paths and the balance law


def some_masks(wiring, rng: np.random.Generator) -> MaskSet:
    """Random masks of every kind of imbalance: row and column weights over decades."""
    masks = {}
    for name, shape in wiring.shapes.items():
        weights = np.exp(2 * rng.standard_normal(shape[0]))[:, None] * np.exp(2 * rng.standard_normal(shape[1]))
        weights = weights.reshape(*weights.shape, *[1] * (len(shape) - 2)) * rng.random(shape)
        masks[name] = weights >= np.quantile(weights, rng.random() * 0.95)
    return MaskSet(masks)


def value(masks: MaskSet, wiring, name: str) -> float:
    return metrics[f"network:{name}"](build_graph(masks, wiring)).number


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_no_mask_passes_the_upper_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = rng.integers(2, 7, int(rng.integers(3, 6))).tolist()
    for wiring in (toys.complete(*widths)[1], toys.residual(4, 3), toys.branching(), toys.gated()):
        masks = some_masks(wiring, rng)
        log_paths = value(masks, wiring, "log10_effective_paths")
        kept = {name: masks.rows(name).kept() for name in masks}
        assert log_paths <= upper_bound(wiring, budgets=kept).log10_paths + 1e-9
        bound = upper_bound(wiring, total=masks.kept)
        assert log_paths <= bound.log10_paths + 1e-9
        assert value(masks, wiring, "balance_gap") >= -1e-12 or math.isnan(value(masks, wiring, "balance_gap"))


@pytest.mark.small
def test_the_bound_counts_joins_that_repeat_a_unit() -> None:
    """Each of 4 units goes into two of a gate's 8, as heads that share their keys do."""
    steps = (
        Layer("a", (4, 4), np.arange(4), 4),
        Layer("b", (8, 4), np.arange(4), 8),
        Join("gate", (np.repeat(np.arange(4, 8), 2), np.arange(8, 16)), 16),
        Layer("o", (3, 8), np.arange(16, 24), 24),
    )
    wiring = Wiring(np.arange(4), steps, np.arange(24, 27))
    dense = MaskSet({name: np.ones(shape, bool) for name, shape in wiring.shapes.items()})
    paths = topo.analyze(dense, wiring).network["log10_effective_paths"]
    assert paths == pytest.approx(math.log10(4 * 8 * 3))
    budgets = {name: mask.size for name, mask in dense.items()}
    for bound in (upper_bound(wiring, total=dense.size), upper_bound(wiring, budgets=budgets)):
        assert bound.log10_paths >= paths - 1e-9


def test_the_bound_is_reached_by_dense_chains_and_says_where_it_is_not_proved() -> None:
    masks, wiring = toys.complete(4, 4, 4)
    assert upper_bound(wiring, total=masks.kept).log10_paths == pytest.approx(math.log10(64))
    assert upper_bound(wiring, total=masks.kept).certified
    assert upper_bound(toys.residual(), total=100).certified
    assert not upper_bound(toys.branching(), total=100).certified


def test_bounds_of_networks() -> None:
    """The figures of the derivation, ResNet-20; bottlenecks are not certified."""
    wiring = find_wiring("resnet20")
    for density, log_paths in ((0.1, 41.0), (0.05, 38.1), (0.02, 34.1), (0.01, 31.1), (0.005, 28.1)):
        bound = upper_bound(wiring, total=round(270896 * density))
        assert bound.certified and bound.note is None
        assert bound.log10_paths == pytest.approx(log_paths, abs=0.06)
    bottleneck = upper_bound(find_wiring("resnet50"), total=2_550_291)
    assert not bottleneck.certified and "three layers" in str(bottleneck.note)


# -- the most paths on networks small enough to enumerate


def test_paths_mode_against_every_mask_of_small_chains() -> None:
    """57 budgets of chains 3-3-3, 4-4-4, 3-3-3-3, all nodes alive: each optimum, and the bound holds for any mask."""
    optimal, worst, budgets = 0, 1.0, 0
    for width, layers in ((3, 2), (4, 2), (3, 3)):
        best = oracle.best_chains(width, layers)
        _, wiring = toys.complete(*[width] * (layers + 1))
        for total in range(width * layers, width * width * layers + 1):
            found = methods["balance"](wiring, total=total, mode="paths", sweeps=60)
            paths = value(found.masks, wiring, "effective_paths")
            assert value(found.masks, wiring, "effective_nodes") == width * (layers + 1)
            assert found.masks.kept == total and paths <= best[total][0]
            assert math.log10(best[total][1]) <= upper_bound(wiring, total=total).log10_paths + 1e-9
            optimal, worst, budgets = (
                optimal + (paths == best[total][0]),
                min(worst, paths / best[total][0]),
                budgets + 1,
            )
    assert (budgets, optimal, worst) == (57, 57, 1.0)


SHAPES = [(2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 3, 1), (2, 3, 3), (3, 2, 2), (3, 3, 1), (3, 3, 2), (3, 4, 1), (2, 5, 2)]


@pytest.mark.parametrize("rows, columns, most", SHAPES)
def test_no_layer_that_keeps_units_alive_has_a_larger_norm(rows: int, columns: int, most: int) -> None:
    """Every matrix of a shape: its norm, and that of its column sums, for each number of units and of live ones."""
    every = np.indices((most + 1,) * (rows * columns)).reshape(rows * columns, -1).T.reshape(-1, rows, columns)
    gram = np.einsum("mij,mkj->mik", every, every).astype(float)
    norms = np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[:, -1], 0))
    sums = np.sqrt((every.sum(1).astype(float) ** 2).sum(1))
    units, live = every.sum((1, 2)), ((every.sum(2) > 0).sum(1), (every.sum(1) > 0).sum(1))
    ns = np.arange(most * rows * columns + 1)
    for a, b in product(range(rows + 1), range(columns + 1)):
        alive = (live[0] >= a) & (live[1] >= b)
        for values, found in (
            (norms, coverage.norms(ns, a, b, rows, columns, most)),
            (sums, coverage.column_norms(ns, a, b, rows, columns, most)),
        ):
            best = np.full(len(ns), -1.0)
            np.maximum.at(best, units[alive], values[alive])
            assert (found >= best - 1e-9)[1:].all()  # without a unit there is no norm
            if values is sums:
                assert found[best > 0] == pytest.approx(best[best > 0])
            elif a == rows and b == columns:
                assert (found / best)[best > 0].mean() < 1.03
        rough = np.array([coverage._rough(n, a, b, most) for n in ns])
        best = np.zeros(len(ns))
        np.maximum.at(best, units[alive], norms[alive])
        assert (rough[best > 1] >= best[best > 1] ** 2 - 1e-9).all()


@pytest.mark.parametrize("width, layers", [(3, 2), (4, 2), (3, 3)])
def test_the_coverage_bound_of_every_mask_of_small_chains(width: int, layers: int) -> None:
    best = oracle.best_chains(width, layers)
    _, wiring = toys.complete(*[width] * (layers + 1))
    for total in range(width * layers, width * width * layers + 1):
        bound = coverage_bound(wiring, total, nodes=width * (layers + 1))
        assert (
            math.log10(best[total][0]) <= bound + 1e-9
            and math.log10(best[total][1]) <= coverage_bound(wiring, total, nodes=0) + 1e-9
        )
        assert upper_bound(wiring, total=total, nodes=width * (layers + 1)).log10_paths <= bound


@pytest.mark.parametrize("down", [False, True])
def test_the_coverage_bound_of_residual_networks_holds_for_random_masks(down: bool) -> None:
    """Masks of ResNet-20, searched, regular and at random: none passes the bound of its own nodes and FLOPs."""
    wiring = toys.residual(4, 2) if not down else find_wiring("resnet20")
    shapes = {name: wiring.shapes[name] for name in wiring.names}
    for seed, density in product(range(1 if down else 3), (0.3, 0.1)):
        rng = np.random.default_rng(seed)
        masks = MaskSet({name: rng.random(shape) < density for name, shape in shapes.items()})
        graph = build_graph(masks, wiring)
        nodes, log_paths, flops = (
            metrics[f"network:{name}"](graph).number
            for name in ("effective_nodes", "log10_effective_paths", "flops_kept")
        )
        bound = upper_bound(wiring, total=masks.kept, nodes=nodes, flops=None if math.isnan(flops) else flops)
        assert log_paths <= bound.log10_paths


def test_the_coverage_bound_of_resnet20() -> None:
    """The gap to what is found with all 701 nodes at 0.5 % falls from 3.4 decades to .5."""
    wiring = find_wiring("resnet20")
    for total, expected in ((27090, 41.004), (1354, 25.265)):
        assert coverage_bound(wiring, total, nodes=701) == pytest.approx(expected, abs=2e-3)
    assert coverage_bound(wiring, 1354, nodes=701, macs=0.0098 * 40813184) == pytest.approx(25.073, abs=2e-3)
    fewer = [upper_bound(wiring, total=1354, nodes=k).log10_paths for k in (75, 650, 701)]
    assert fewer == sorted(fewer, reverse=True) and fewer[1] < 26.7
    deep = upper_bound(find_wiring("resnet50:stem=tiny"), total=200_000, nodes=1)
    assert deep.certified and not upper_bound(find_wiring("resnet50:stem=tiny"), total=200_000).certified
    assert coverage_bound(toys.gated(2, 3), 10, nodes=0) is None  # gates are no sums


@pytest.mark.small
def test_the_network_at_large_counts_paths_of_cores() -> None:
    """A chain 3-4-3 with cores 2, 3, 2 of all: by hand, and the core of a large budget is everything."""
    net = (
        np.array([0, 0]), np.array([0, 1, 2]), np.array([0, 1]), np.ones(2), np.array([0, 1, 2]), np.array([1, 2]),
        np.ones(2, bool), np.ones(2, bool), np.ones(2), np.ones(2), np.array([0, 1, 2]), np.array([0]), np.array([2]),
    )  # fmt: skip
    k, a, units = np.array([2, 3, 2]), np.array([3, 4, 3]), np.zeros(2)
    state = np.empty(3), np.empty(3), np.empty(3, np.int64)
    found, total = cores.paths_and_units(net, k, a, *state, units)
    # a core of 2 x 3 and a pair, then 3 x 2 and a pair: core units hold 2, the others 1 path
    assert (total, round(math.exp(found))) == (14, 3 * 2 * 2 + 1)
    core = np.ones(3, np.int64)
    limits = (24.0, np.inf, np.zeros(2), np.full(2, np.inf))
    one = np.ones(3, np.int64)
    assert math.exp(cores.best_cores(net, limits, core, a, one, 0.0, 3, units)) == pytest.approx(36)
    assert core.tolist() == [3, 4, 3]
    for tight in ((24.0, 71.0, np.array([3.0, 3.0]), limits[3]), (24.0, np.inf, limits[2], np.array([11.0, 12.0]))):
        core = one.copy()
        assert 0 < math.exp(cores.best_cores(net, tight, core, a, one, 1.0, 3, units)) < 36
        assert tight[2] @ units <= tight[1] and (units <= tight[3]).all()
    whole = (np.array([3, 0]), *net[1:])  # a layer that is kept whole makes no difference between core and periphery
    assert math.exp(cores.log_paths(whole, limits, one, a, units)) == pytest.approx(3 * (1 + 3)) and units[0] == 12


@pytest.mark.small
@pytest.mark.parametrize("seed", range(12))
def test_no_exchange_of_a_core_unit_is_left_that_helps(seed: int) -> None:
    """Chains of five pools: a unit less of a core and one more of another gives no more paths, or costs too much."""
    rng = np.random.default_rng(seed)
    n = 4
    one, flags = np.ones(n), np.ones(n, bool)
    net = (
        np.zeros(n, int), np.arange(n + 1), np.arange(n), one, np.arange(n + 1), np.arange(1, n + 1),
        flags, flags, one, one, np.arange(n + 1), np.array([0]), np.array([n]),
    )  # fmt: skip
    a, units = rng.integers(3, 12, n + 1), np.zeros(n)
    state = np.empty(n + 1), np.empty(n + 1), np.empty(n + 1, np.int64)
    limit = float(cores.paths_and_units(net, np.ones(n + 1, int), a, *state, units)[1] + rng.integers(10, 60))
    core = np.ones(n + 1, np.int64)
    limits = (limit, np.inf, np.zeros(n), np.full(n, np.inf))
    value = cores.best_cores(net, limits, core, a, np.ones(n + 1, np.int64), 0.0, 100, units)
    found, total = cores.paths_and_units(net, core, a, *state, units)
    assert (found, True) == (pytest.approx(value), total <= limit) and (core <= a).all()
    for less, more in permutations(range(n + 1), 2):
        if core[less] > 1 and core[more] < a[more]:
            core[[less, more]] += -1, 1
            found, total = cores.paths_and_units(net, core, a, *state, units)
            core[[less, more]] += 1, -1
            assert total > limit or found <= value + 2e-9


@pytest.mark.small
def test_a_problem_says_what_is_wrong() -> None:
    _, wiring = toys.complete(4, 8, 8)
    for options, said in (
        ({"total": 5, "budgets": {}}, "either"),
        ({"total": 97}, "hold 1 parameter .* to 96 parameters"),
        ({"total": 60, "n_m": (1, 4)}, "under 1:4"),
        ({"total": 9, "dense": ("spam",)}, "no layer matches 'spam'"),
        ({"budgets": {"fc1": 3}}, "fc2"),
        ({"total": 9, "min_fan_in": 5}, "minimum fan-in of 5"),
    ):
        with pytest.raises(TopoError, match=said):
            Problem(wiring, **options)
    assert list(pairwise(Problem(wiring, total=40).split().values())) == [(20, 20)]
