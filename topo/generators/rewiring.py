"""Rewiring at fixed degrees, as long as a layer is measured to need.

Curveball trades between rows mix masks of even degrees in a few rounds. A row of degree d among rows of degree 1 trades
one weight a round, so that d rounds would be needed; trades between columns move its weights at once. A round here is
one of rows, then one of columns, and how many rounds a layer takes is measured: copies of it are rewired until no more
than `MOST_LEFT` of the weights that chance moves are still the layer's own, and samples get twice as many rounds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from threading import Lock

import numpy as np

from topo.kernels.rewire import trade
from topo.kernels.spectrum import transpose
from topo.masks import BitRows

# Share of the weights that chance moves which may still be the mask's own after half of the rounds.
MOST_LEFT = 0.01
_FEWEST, _MOST = 4, 1024


def rewire(words: np.ndarray, columns: int, groups: int, rounds: int, rng: np.random.Generator) -> None:
    """words (rows, w) of `columns` columns, rewired in place: `rounds` times all rows and then all columns in pairs.

    The rows of each group by themselves. Rows and columns without a weight sit out, so that the others meet.
    """
    if len(words) == groups:
        return  # a single row: its columns fix it
    for group in np.split(words, groups):
        busy = np.flatnonzero(group.any(axis=1))
        some = group[busy]
        turned = np.empty((columns, -(-len(busy) // 64)), np.uint64)
        transpose(some, turned)
        wide = np.flatnonzero(turned.any(axis=1))
        for _ in range(rounds):
            trade(some, 1, rng)
            transpose(some, turned)
            crossing = turned[wide]
            trade(crossing, 1, rng)
            turned[wide] = crossing
            transpose(turned, some)
        group[busy] = some


@dataclass(frozen=True)
class Mixing:
    """How long a layer is rewired. rounds: twice those after which what is left was measured.

    left: share of the weights that chance moves which were still in their places beyond chance, at half of the rounds.
    mixed: that it is at most MOST_LEFT, or that it fell no further while rounds doubled (few masks have these sums, and
    the expectation is that of many).
    """

    rounds: int
    left: float
    mixed: bool


_known: dict[bytes, Mixing] = {}
_lock = Lock()


def mixing(rows: BitRows, groups: int = 1) -> Mixing:
    """How many rounds a layer needs, measured on copies of it, with random numbers of its own.

    The overlap with the layer falls to what chance keeps (`expected_overlap`): rounds double until at most MOST_LEFT of
    what lies between is left. A layer is measured once in a process.
    """
    key = hashlib.blake2b(rows.words.tobytes(), digest_size=16, key=repr((rows.shape, groups)).encode()).digest()
    with _lock:
        found = _known.get(key)
    if found is None:
        found = _measured(rows, groups)
        with _lock:
            _known[key] = found
    return found


def _measured(rows: BitRows, groups: int) -> Mixing:
    kept, by_chance = rows.kept(), expected_overlap(rows, groups)
    free = kept - by_chance
    if free < 0.5:
        return Mixing(2 * _FEWEST, 0.0, True)
    rng = np.random.default_rng(0)
    # The overlap of one copy has a standard deviation of about the root of `free`.
    copies = [rows.words.copy() for _ in range(int(np.clip(20_000 / free, 1, 32)))]
    noise, before, rounds = (free * len(copies)) ** -0.5, 1.0, 0
    while True:
        further = max(rounds, _FEWEST)
        for words in copies:
            rewire(words, rows.columns, groups, further, rng)
        rounds += further
        overlap = float(np.mean([np.bitwise_count(words & rows.words).sum() for words in copies]))
        left = (overlap - by_chance) / free
        settled = before - left < noise and left < 0.1
        if left <= MOST_LEFT + noise or settled or rounds >= _MOST:
            return Mixing(2 * rounds, left, left <= MOST_LEFT + noise or settled)
        before = left


def expected_overlap(rows: BitRows, groups: int = 1) -> float:
    """How many of its weights a layer shares on average with a random one of the same row and column sums.

    Under independent weights of probability x_i y_j / (1 + x_i y_j) with these sums on average, the largest entropy
    (Park & Newman 2004): exact where a row among others of one weight meets columns of one, close where sums are large.
    """
    if len(rows.words) == groups:
        return float(rows.kept())
    return sum(_expected(part) for part in np.split(rows.unpack().reshape(len(rows.words), -1), groups))


def _expected(mask: np.ndarray) -> float:
    """expected_overlap of a matrix."""
    certain = 0
    while True:  # full rows and columns are certain, and what is left may then be full or empty
        rows, columns = mask.sum(axis=1), mask.sum(axis=0)
        full, wide = rows == mask.shape[1], columns == mask.shape[0]
        if not mask.size or not (full.any() or wide.any() or (rows == 0).any() or (columns == 0).any()):
            break
        certain += int(mask[full].sum() + mask[~full][:, wide].sum())
        mask = mask[~full & (rows > 0)][:, ~wide & (columns > 0)]
    if not mask.size:
        return float(certain)
    sums, of_row, count = np.unique(mask.sum(axis=1), return_inverse=True, return_counts=True)
    totals, of_column, wide_ = np.unique(mask.sum(axis=0), return_inverse=True, return_counts=True)
    pairs = np.zeros((len(sums), len(totals)))
    i, j = np.nonzero(mask)
    np.add.at(pairs, (of_row[i], of_column[j]), 1)
    u, v = np.log(sums / mask.shape[1]), np.log(totals / mask.shape[0])
    v -= np.log(mask.mean())
    for _ in range(200):
        for _ in range(2):
            p = 1 / (1 + np.exp(-(u[:, None] + v)))
            off = sums - p @ wide_
            u += np.clip(off / ((p * (1 - p)) @ wide_), -1, 1)
        for _ in range(2):
            p = 1 / (1 + np.exp(-(u[:, None] + v)))
            v += np.clip((totals - count @ p) / (count @ (p * (1 - p))), -1, 1)
        if np.abs(off * count).sum() < 1e-5 * mask.sum():
            break
    return certain + float((pairs / (1 + np.exp(-(u[:, None] + v)))).sum())
