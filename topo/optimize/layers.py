"""One layer, solved exactly: two theorems in closed form, where integer programs were solved before.

A layer is a matrix M of whole numbers, M_ij in 0..kernel_size the kept weights of the kernel from input i to output j
(kernel_size = height * width, 1 of a linear layer), r_i and c_j its row and column sums, and n the units that it may
keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from topo.errors import TopoError


@dataclass(frozen=True, eq=False)
class Rows:
    """The optimum of `solve_layer_npb`.

    units: int64 (inputs,), r_i. open_: bool (outputs,), the columns that units may go to. value: of the objective.
    terms: its three parts (nodes, paths, kernels) before they are weighted.
    """

    units: np.ndarray
    open_: np.ndarray
    value: float
    terms: tuple[float, float, float]


def max_path(paths: np.ndarray, columns: int, kernel_size: int, budget: int, *, released: bool = False) -> float:
    """The largest sum_i p_i r_i with r_i <= columns * kernel_size and sum r_i <= budget: what the path term is divided
    by.

    released: as the released code has it. Where the budget is smaller than one full row, it takes *all* rows full (its
    slice `p[-0:]` is the whole array), so that alpha means something else at high sparsity.
    """
    best = np.sort(np.asarray(paths, np.float64))[::-1]
    full, rest = divmod(budget, columns * kernel_size)
    taken = best if released and full == 0 else best[:full]
    total = float(taken.sum()) * columns * kernel_size
    return total + rest * float(best[full]) if full < len(best) else total


def _clip(tiers: np.ndarray, groups: np.ndarray, caps: np.ndarray, even: bool, shuffle: np.ndarray) -> np.ndarray:
    """tiers: records with slope, length and row; keep the most valuable caps[g] units of each group g = groups[row]."""
    from topo.kernels.balance import fill

    group = groups[tiers["row"]]
    ties = (shuffle[tiers["row"]], tiers["rank"]) if even else (tiers["rank"], shuffle[tiers["row"]])
    order = np.lexsort((*ties, -tiers["slope"], group))
    tiers, group = tiers[order], group[order]
    ends = np.searchsorted(group, np.arange(len(caps)), side="right")
    taken = np.zeros(len(tiers), np.int64)
    fill(np.ascontiguousarray(tiers["slope"]), np.ascontiguousarray(tiers["length"]), ends, caps, even, taken)
    tiers["length"] = taken
    return tiers


_TIER = np.dtype([("slope", np.float64), ("length", np.int64), ("row", np.int64), ("rank", np.int64)])


def _tier(rank: int, slopes: Any, lengths: Any) -> np.ndarray:
    tier = np.empty(len(slopes), _TIER)
    tier["slope"], tier["length"], tier["row"], tier["rank"] = slopes, lengths, np.arange(len(slopes)), rank
    return tier


def solve_layer_npb(
    paths: Any,
    columns: int,
    kernel_size: int,
    budget: int,
    *,
    alpha: float = 0.01,
    beta: float = 1.0,
    demand: int = 1,
    groups: int = 1,
    n_m: tuple[int, int] | None = None,
    row_cap: int | None = None,
    column_cap: int | None = None,
    min_fan_in: int = 1,
    usable: Any = None,
    open_: Any = None,
    released: bool = False,
    rng: np.random.Generator | None = None,
) -> Rows:
    """The layer problem of Node-Path Balancing, exactly, in O(a log a): no integer program, no solver.

        maximise  alpha A + (1 - alpha) B + beta R  over whole 0 <= M_ij <= kernel_size, sum M <= budget
        A = 1 - [sum_i (q - r_i)+ + sum_j (q - c_j)+] / (a + b)      q = demand
        B = sum_i p_i r_i / max_path(p)
        R = 1 - (empty kernels) / budget

    paths: p_i >= 0 (a,), the paths that reach input i. columns: b, outputs of the layer.

    Given the row sums r, dealing the units of row 1, 2, ... cyclically over the columns makes rows as even as possible
    (min(r_i, b) kernels of each are not empty) and columns too (sum_j min(c_j, q) = min(sum r, b q)), both at
    their largest. So only r matters, and with wA = alpha / (a + b), w_i = (1 - alpha) p_i / max_path, wR = beta /
    budget it maximises
        sum_i wA min(r_i, q) + w_i r_i + wR min(r_i, b)   +   wA min(sum_i r_i, b q):
    each row offers min(q, b) units at wA + w_i + wR, then |b - q| at w_i + wR or wA + w_i, then the rest at w_i. Fill
    in that order.
    Any matrix with even rows and even columns reaches the optimum (`topo.kernels.balance.deal` draws one at random).

    groups: of a grouped convolution; each has its own rows and columns, the budget is common.
    n_m: (N, M), at most N of M consecutive inputs at each output and kernel position: N b kernel_size units for each M
    rows.
    row_cap, column_cap: largest r_i, c_j. min_fan_in: an output that keeps anything keeps at least this many; columns
    are given up until it holds, which is optimal, since every term grows with the number of columns.
    Rows, groups of M rows, groups of the layer and the whole are nested sets, so that filling by value stays exact.
    usable: bool (a,), rows that may hold units. open_: bool (columns,), columns that may. By default all; those that
    may not are not counted in a and b.

    Where the paper's definition of a node and the released code differ, the paper's holds: inputs that no path reaches
    earn nothing, and equal rows share evenly. released: as the released code, which pays for dead inputs, takes the max
    over whole rows (see `max_path`) and gives equal rows units one after the other.

    The objective counts what the budget cannot fill as it is; all of budget is used unless caps forbid.

    >>> solve_layer_npb([4.0, 1.0], columns=2, kernel_size=1, budget=3, alpha=0.5).units
    array([2, 1])

    Raises TopoError for weights outside of 0 <= alpha <= 1 and 0 <= beta (the objective is not concave there).
    Source: Pham et al., NeurIPS 2023, and the network-flow argument in the docstring.
    """
    p = np.asarray(paths, np.float64)
    if not (0 <= alpha <= 1 and beta >= 0):
        raise TopoError(f"alpha is {alpha} and beta {beta}; 0 <= alpha <= 1 and beta >= 0")
    if budget < 1:
        raise TopoError(f"a layer's budget is {budget}; it is at least 1")
    usable = (np.ones(len(p), bool) if usable is None else np.asarray(usable, bool)) & (released | (p > 0))
    open_ = np.ones(columns, bool) if open_ is None else np.array(open_, bool)
    if min_fan_in > 1:
        open_ = _fewer(open_, budget // min_fan_in, groups, rng)
    a, b = int(usable.sum()), int(open_.sum())
    if a == 0 or b == 0:
        return Rows(np.zeros(len(p), np.int64), open_, 0.0, (0.0, 0.0, 0.0))
    largest = max_path(p[usable], b, kernel_size, budget, released=released)
    w_node, w_kernel = alpha / (a + b), beta / budget
    w_path = (1 - alpha) * p / largest if largest else np.zeros(len(p))

    group = np.arange(len(p)) // (len(p) // groups)
    width = open_.reshape(groups, -1).sum(axis=1)  # open columns of each group
    wide = width[group]
    cap = np.where(usable, wide * kernel_size if row_cap is None else np.minimum(wide * kernel_size, row_cap), 0)
    near, far = np.minimum(np.minimum(demand, wide), cap), np.minimum(np.maximum(demand, wide), cap)
    tiers = np.concatenate(
        [
            _tier(0, w_path + w_node + w_kernel, near),
            _tier(1, w_path + np.where(demand < wide, w_kernel, w_node), far - near),
            _tier(2, w_path, cap - far),
        ]
    )
    shuffle = rng.random(len(p)) if rng is not None else np.arange(len(p), dtype=float)
    if n_m is not None:
        span, per_group = _spans(len(p), groups, n_m[1])
        tiers = _clip(
            tiers, span, n_m[0] * width[np.repeat(np.arange(groups), per_group)] * kernel_size, not released, shuffle
        )
    column_room = width * np.iinfo(np.int32).max if column_cap is None else width * column_cap
    tiers = _clip(tiers, group, column_room, not released, shuffle)
    if w_node > 0:
        tiers = _with_bonus(tiers, group, width * demand, w_node)
    tiers = _clip(tiers, group * 0, np.array([budget]), not released, shuffle)
    units = np.bincount(tiers["row"], tiers["length"], len(p)).astype(np.int64)

    by_group = np.bincount(group, units, groups)
    short = np.maximum(demand - units[usable], 0).sum() + (width * demand - np.minimum(by_group, width * demand)).sum()
    nodes = float(a + b - short) / (a + b)
    share = float(p @ units) / largest if largest else 0.0
    kernels = 1.0 - float((wide[usable] - np.minimum(units, wide)[usable]).sum()) / budget
    value = alpha * nodes + (1 - alpha) * share + beta * kernels
    return Rows(units, open_, value, (nodes, share, kernels))


def _spans(inputs: int, groups: int, span: int) -> tuple[np.ndarray, int]:
    """(span of M consecutive inputs that each input belongs to, spans in a group)."""
    inside = np.arange(inputs) % (inputs // groups)
    per_group = -(-(inputs // groups) // span)
    return np.arange(inputs) // (inputs // groups) * per_group + inside // span, per_group


def _fewer(open_: np.ndarray, most: int, groups: int, rng: np.random.Generator | None) -> np.ndarray:
    """At most `most` of the open columns, equally many of each group but for one."""
    found = np.flatnonzero(open_)
    if rng is not None:
        rng.shuffle(found)
    group = found // (len(open_) // groups)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], group[order])
    turn = np.empty(len(found), np.int64)
    turn[order] = np.arange(len(found)) - starts  # first columns of all groups before the second ones
    kept = np.zeros(len(open_), bool)
    kept[found[np.argsort(turn, kind="stable")[:most]]] = True
    return kept


def _with_bonus(tiers: np.ndarray, groups: np.ndarray, caps: np.ndarray, bonus: float) -> np.ndarray:
    """The first caps[g] units of each group are worth `bonus` more; tiers come sorted by group and falling slope."""
    group = groups[tiers["row"]]
    after = np.cumsum(tiers["length"])
    starts = np.searchsorted(group, np.arange(len(caps)))
    base = np.concatenate(([0], after))[starts]
    head = np.clip(caps[group] - (after - tiers["length"] - base[group]), 0, tiers["length"])
    rich, plain = tiers.copy(), tiers.copy()
    rich["slope"] += bonus
    rich["length"], plain["length"] = head, tiers["length"] - head
    return np.concatenate([rich, plain])


@dataclass(frozen=True, eq=False)
class Kernels:
    """The optimum of `solve_layer_rank1`: the kernels that hold units.

    sources, targets, counts: int64 (m,), each kernel once. price: value of one more unit, up to ties. value: of all.
    """

    sources: np.ndarray
    targets: np.ndarray
    counts: np.ndarray
    price: float
    value: float


def solve_layer_rank1(
    ahead: Any,
    behind: Any,
    kernel_size: int,
    budget: int,
    *,
    need_rows: Any = None,
    need_columns: Any = None,
    groups: int = 1,
) -> Kernels:
    """The layer with the most paths when all other layers are fixed, with nodes that must be covered.

    maximise sum_ij F_i B_j M_ij  over whole 0 <= M_ij <= kernel_size, sum M = budget, r_i >= 1 for needing rows i, c_j
    >= 1 for needing columns j. ahead: F (a,), behind: B (b,). P is linear in each layer, so this is exact, not a
    relaxation.

    A network flow with lower bounds has a whole optimum; for a price l of a unit it is a staircase of full kernels, a
    cover on the best row and column, and a sorted pairing (see `topo.kernels.rank_one`), and the price is bisected.
    Output and memory grow with the budget, never with a * b.

    >>> solve_layer_rank1([2.0, 1.0], [3.0, 1.0], 1, 2, need_rows=[False, True]).value
    9.0

    Raises TopoError if the budget is smaller than the cover, max(needing rows, needing columns), or larger than the
    layer; a row or column that no path can use (F or B is 0) cannot need.
    """
    from topo.kernels.rank_one import rank_one

    f = np.ascontiguousarray(ahead, np.float64)
    g = np.ascontiguousarray(behind, np.float64)
    rows = np.zeros(len(f), bool) if need_rows is None else np.asarray(need_rows, bool)
    columns = np.zeros(len(g), bool) if need_columns is None else np.asarray(need_columns, bool)
    if (rows & (f <= 0)).any() or (columns & (g <= 0)).any():
        raise TopoError("a row or column that no path can use needs a unit; only those with F > 0 or B > 0 can")
    sources, targets, counts, price = rank_one(f, g, rows, columns, kernel_size, groups, int(budget))
    if price == -1.0:
        raise TopoError(f"{budget} units cannot cover {rows.sum()} rows and {columns.sum()} columns that need one")
    if price == -2.0:
        raise TopoError(
            f"{budget} units do not fit into a layer of {(f > 0).sum()} x {(g > 0).sum()} kernels of {kernel_size}"
        )
    return Kernels(sources, targets, counts, price, float((f[sources] * g[targets]) @ counts))
