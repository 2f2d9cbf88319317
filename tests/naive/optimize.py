"""Oracles of the optimizer: the same problems as network flows, linear programs and plain enumeration."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import networkx as nx
import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog


@dataclass(frozen=True)
class LayerCase:
    """One instance of the NPB layer problem, with rational weights."""

    paths: tuple[int, ...]
    columns: int
    kernel_size: int
    budget: int
    demand: int
    alpha: Fraction
    beta: Fraction
    largest: Fraction
    n_m: tuple[int, int] | None = None
    row_cap: int | None = None
    column_cap: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.paths), self.columns

    @property
    def weights(self) -> tuple[Fraction, list[Fraction], Fraction]:
        """(wA, w_i, wR)."""
        a, b = self.shape
        return (
            self.alpha / (a + b),
            [(1 - self.alpha) * p / self.largest for p in self.paths],
            self.beta / self.budget,
        )

    def constant(self) -> Fraction:
        a, b = self.shape
        return self.alpha * (1 - self.demand) + self.beta * Fraction(self.budget - a * b, self.budget)

    def objective(self, matrix: np.ndarray) -> Fraction:
        """The objective as it is written, of a matrix of whole numbers (inputs, outputs)."""
        a, b = self.shape
        short = np.maximum(self.demand - matrix.sum(1), 0).sum() + np.maximum(self.demand - matrix.sum(0), 0).sum()
        paths = Fraction(sum(int(p) * int(r) for p, r in zip(self.paths, matrix.sum(1)))) / self.largest
        empty = Fraction(self.budget - int((matrix == 0).sum()), self.budget)
        return self.alpha * Fraction(a + b - int(short), a + b) + (1 - self.alpha) * paths + self.beta * empty

    def feasible(self, matrix: np.ndarray) -> bool:
        ok = matrix.min() >= 0 and matrix.max() <= self.kernel_size and matrix.sum() <= self.budget
        if self.row_cap is not None:
            ok &= matrix.sum(1).max() <= self.row_cap
        if self.column_cap is not None:
            ok &= matrix.sum(0).max() <= self.column_cap
        if self.n_m is not None:
            n, m = self.n_m
            ok &= all((matrix[k : k + m].sum(0) <= n * self.kernel_size).all() for k in range(0, len(matrix), m))
        return bool(ok)


def largest_path_sum(paths, columns: int, kernel_size: int, budget: int) -> Fraction:
    """The best sum of p_i r_i, unit by unit."""
    units = sorted((p for p in paths for _ in range(columns * kernel_size)), reverse=True)
    return Fraction(sum(units[:budget]))


def by_network_simplex(case: LayerCase) -> Fraction:
    """The optimum as a max-gain flow with exact rational gains, scaled to integers (without N:M)."""
    (a, b), (w_node, w_path, w_kernel) = case.shape, case.weights
    arcs = [("source", "budget", case.budget, Fraction(0))]
    for i in range(a):
        cap = b * case.kernel_size if case.row_cap is None else min(b * case.kernel_size, case.row_cap)
        arcs.append(("budget", ("row", i), min(case.demand, cap), w_path[i] + w_node))
        arcs.append(("budget", ("row", i), max(cap - case.demand, 0), w_path[i]))
        for j in range(b):
            arcs.append((("row", i), ("column", j), 1, w_kernel))
            arcs.append((("row", i), ("column", j), case.kernel_size - 1, Fraction(0)))
    for j in range(b):
        cap = a * case.kernel_size if case.column_cap is None else min(a * case.kernel_size, case.column_cap)
        arcs.append((("column", j), "sink", min(case.demand, cap), w_node))
        arcs.append((("column", j), "sink", max(cap - case.demand, 0), Fraction(0)))
    scale = lcm(*(gain.denominator for *_, gain in arcs))
    graph = nx.MultiDiGraph()
    for tail, head, cap, gain in arcs:
        graph.add_edge(tail, head, capacity=cap, weight=-int(gain * scale))
    graph.add_edge("sink", "source", capacity=case.budget, weight=0)
    cost, _ = nx.network_simplex(graph)
    return Fraction(-cost, scale) + case.constant()


def by_linear_program(cases: list[LayerCase]) -> tuple[np.ndarray, np.ndarray]:
    """(values, distances of the vertex from whole numbers) of many instances, solved as one block-diagonal program."""
    costs, matrices, bounds, uppers = [], [], [], []
    for case in cases:
        (a, b), (w_node, w_path, w_kernel) = case.shape, case.weights
        cells = a * b  # variables: M, first units of kernels, counted units of rows, of columns
        costs.append(
            np.r_[
                np.repeat([-float(w) for w in w_path], b),
                np.full(cells, -float(w_kernel)),
                np.full(a + b, -float(w_node)),
            ]
        )
        rows, columns = sp.kron(sp.eye(a), np.ones((1, b))), sp.kron(np.ones((1, a)), sp.eye(b))
        zero = sp.csr_matrix
        blocks = [
            [-sp.eye(cells), sp.eye(cells), zero((cells, a)), zero((cells, b))],
            [-rows, zero((a, cells)), sp.eye(a), zero((a, b))],
            [-columns, zero((b, cells)), zero((b, a)), sp.eye(b)],
            [np.ones((1, cells)), zero((1, cells)), zero((1, a)), zero((1, b))],
        ]
        upper = [np.zeros(cells + a + b), [case.budget]]
        extra = []
        if case.row_cap is not None:
            extra.append((rows, np.full(a, case.row_cap)))
        if case.column_cap is not None:
            extra.append((columns, np.full(b, case.column_cap)))
        if case.n_m is not None:
            n, m = case.n_m
            spans = np.zeros((-(-a // m), a))
            spans[np.arange(a) // m, np.arange(a)] = 1
            extra.append((sp.kron(spans, sp.eye(b)), np.full(len(spans) * b, n * case.kernel_size)))
        for matrix, most in extra:
            blocks.append([matrix, zero((len(most), cells)), zero((len(most), a)), zero((len(most), b))])
            upper.append(most)
        matrices.append(sp.bmat(blocks))
        uppers.append(np.concatenate(upper))
        bounds.append(np.r_[np.full(cells, case.kernel_size), np.ones(cells), np.full(a + b, case.demand)])
    high = np.concatenate(bounds)
    found = linprog(
        1e5 * np.concatenate(costs),  # the solver stops at reduced costs of 1e-7, which some paths are not worth
        A_ub=sp.block_diag(matrices, format="csr"),
        b_ub=np.concatenate(uppers),
        bounds=np.c_[np.zeros(len(high)), high],
        method="highs-ds",
    )
    assert found.status == 0, found.message
    values, fractions, start = [], [], 0
    for case, cost in zip(cases, costs):
        x = found.x[start : start + len(cost)]
        start += len(cost)
        values.append(-float(cost @ x) + float(case.constant()))
        cells = x[: case.shape[0] * case.shape[1]]
        fractions.append(np.abs(cells - np.rint(cells)).max())
    return np.array(values), np.array(fractions)


def by_enumeration(case: LayerCase) -> Fraction:
    """The optimum over every matrix."""
    a, b = case.shape
    best = None
    for cells in itertools.product(range(case.kernel_size + 1), repeat=a * b):
        if sum(cells) <= case.budget:
            matrix = np.array(cells).reshape(a, b)
            if case.feasible(matrix):
                value = case.objective(matrix)
                best = value if best is None or value > best else best
    assert best is not None
    return best


@dataclass(frozen=True)
class CoverCase:
    """One instance of "all other layers fixed" (docs/theory.md); groups of equal size, F (inputs,), B (outputs,)."""

    ahead: np.ndarray
    behind: np.ndarray
    kernel_size: int
    budget: int
    need_rows: np.ndarray
    need_columns: np.ndarray
    groups: int = 1


def best_cover(cases: list[CoverCase]) -> np.ndarray:
    """Optimal values of that problem, many instances as one block-diagonal linear program."""
    costs, less, less_than, equal, bounds = [], [], [], [], []
    for case in cases:
        f, g = np.asarray(case.ahead), np.asarray(case.behind)
        a, b = len(f), len(g)
        same = np.kron(np.eye(case.groups), np.ones((a // case.groups, b // case.groups))) > 0
        costs.append(-np.outer(f, g).ravel() / (f.max() * g.max()))
        need = sp.vstack(
            [
                sp.kron(sp.eye(a), np.ones((1, b))).tocsr()[case.need_rows],
                sp.kron(np.ones((1, a)), sp.eye(b)).tocsr()[case.need_columns],
                sp.csr_matrix((1, a * b)),
            ]
        )
        less.append(-need)
        less_than.append(np.r_[-np.ones(need.shape[0] - 1), 0])
        equal.append(np.ones((1, a * b)))
        bounds.append(np.where(same & (np.outer(f, g) > 0), case.kernel_size, 0).ravel())
    high = np.concatenate(bounds)
    found = linprog(
        np.concatenate(costs),
        A_ub=sp.block_diag(less, format="csr"),
        b_ub=np.concatenate(less_than),
        A_eq=sp.block_diag(equal, format="csr"),
        b_eq=[case.budget for case in cases],
        bounds=np.c_[np.zeros(len(high)), high],
        method="highs-ds",
    )
    assert found.status == 0, found.message
    values, start = [], 0
    for case, cost in zip(cases, costs):
        x = found.x[start : start + len(cost)]
        start += len(cost)
        values.append(-float(cost @ x) * case.ahead.max() * case.behind.max())
    return np.array(values)


def best_chains(width: int, layers: int) -> dict[int, tuple[int, int]]:
    """Budget -> (most paths with every node alive, most paths of any mask), of a chain of 2 or 3 width x width layers.

    Two layers give sum_k c_k r_k paths, the column sums of the first against the row sums of the second, and a layer
    with column sums c >= 1 can cover all its rows iff sum c >= width; a layer between them enters whole.
    """
    sums = np.array(list(itertools.product(range(width + 1), repeat=width)))
    alive = (sums >= 1).all(axis=1) & (sums.sum(axis=1) >= width)
    if layers == 2:
        middle = [np.eye(width, dtype=int)]
        cost, covering = [0], [True]
    else:
        middle = [np.array(bits).reshape(width, width) for bits in itertools.product((0, 1), repeat=width * width)]
        cost = [int(matrix.sum()) for matrix in middle]
        covering = [bool(matrix.any(axis=0).all() and matrix.any(axis=1).all()) for matrix in middle]
    sorted_ = sums[(np.diff(sums, axis=1) <= 0).all(axis=1)]  # units of the first hidden layer are exchangeable
    first_alive = (sorted_ >= 1).all(axis=1) & (sorted_.sum(axis=1) >= width)
    best: dict[int, tuple[int, int]] = {}
    for matrix, between, covers in zip(middle, cost, covering):
        paths = sorted_ @ matrix @ sums.T
        units = sorted_.sum(axis=1)[:, None] + sums.sum(axis=1) + between
        both = first_alive[:, None] & alive & covers
        for flags, place in ((both, 0), (np.ones_like(both), 1)):
            most = np.zeros(width * width * layers + 1, int)
            np.maximum.at(most, units[flags], paths[flags])
            for n, value in enumerate(most.tolist()):
                held = best.get(n, (0, 0))
                best[n] = (max(held[0], value), held[1]) if place == 0 else (held[0], max(held[1], value))
    return best
