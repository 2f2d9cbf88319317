"""Exact random choice: so many parameters, every subset equally likely. The generators that need nothing else."""

from __future__ import annotations

import math

import numpy as np

from topo.generators import Budgets, Drawn, generator, requested
from topo.masks import BitRows, MaskSet
from topo.wiring import Wiring

# Bits of the probability with which a parameter is kept before the count is made right.
_DEPTH = 16


def choose(shape: tuple[int, ...], kept: int, rng: np.random.Generator) -> BitRows:
    """A mask of `shape` with exactly `kept` parameters, uniformly at random.

    Each parameter is kept by itself with a probability a little under the density, 64 at a time: a random word and-ed
    or or-ed in for each binary digit. Then uniformly random parameters are added, or removed, until the count is right;
    given their count all sets are equally likely, before and after. 25 million parameters take 0.1 s; a permutation
    takes seconds and a hundred times the memory.
    """
    rows, size = shape[0], math.prod(shape)
    columns = size // rows
    few = min(kept, size - kept)  # of a dense mask, the pruned ones are chosen
    words = _coins(rows, columns, max(0.0, few - 3 * math.sqrt(few)) / size, rng)
    _correct(words, columns, few, rng)
    return BitRows(shape, words if few == kept else inverted(words, columns))


def inverted(words: np.ndarray, columns: int) -> np.ndarray:
    """The bit rows of the complement; padding stays 0."""
    words = ~words
    if columns % 64:
        words[:, -1] &= np.uint64((1 << (columns % 64)) - 1)
    return words


def _coins(rows: int, columns: int, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Bit rows of independent coins that come up with the probability, rounded down to _DEPTH binary digits."""
    digits = int(probability * (1 << _DEPTH))
    words = np.zeros((rows, -(-columns // 64)), np.uint64)
    for digit in range(_DEPTH):
        if digits & ((2 << digit) - 1) == 0:
            continue  # nothing yet: and-ing coins into zeros
        coins = rng.integers(0, 1 << 64, words.shape, np.uint64)
        words = words | coins if digits >> digit & 1 else words & coins
    return inverted(inverted(words, columns), columns)


def _correct(words: np.ndarray, columns: int, kept: int, rng: np.random.Generator) -> None:
    """Set (or clear) uniformly random bits of the rows until `kept` are set."""
    size, flat = len(words) * columns, words.reshape(-1)
    missing = kept - int(np.bitwise_count(words).sum(dtype=np.int64))
    adding = missing > 0
    while missing:
        fitting = size - kept + missing if adding else kept - missing
        place = rng.integers(0, size, int(1.2 * abs(missing) * size / fitting) + 64)
        row, column = np.divmod(place, columns)
        word, bit = row * words.shape[1] + (column >> 6), np.uint64(1) << (column & 63).astype(np.uint64)
        fits = np.flatnonzero((flat[word] & bit == 0) == adding)
        first = np.sort(np.unique(place[fits], return_index=True)[1])[: abs(missing)]
        np.bitwise_xor.at(flat, word[fits[first]], bit[fits[first]])
        missing -= len(first) if adding else -len(first)


def shares(sizes: np.ndarray, kept: int, rng: np.random.Generator) -> np.ndarray:
    """How many of `kept` parameters, chosen uniformly among all, fall into each layer (multivariate hypergeometric).

    As in `choose`: independent binomial counts, then uniformly random parameters added or removed. numpy's own
    hypergeometric sampler ends at 10**9 parameters.
    """
    size = int(sizes.sum())
    counts = rng.binomial(sizes, kept / size)
    missing = kept - int(counts.sum())
    pool = np.cumsum(sizes - counts if missing > 0 else counts)
    picked = _distinct(int(pool[-1]), abs(missing), rng)
    changed = np.bincount(np.searchsorted(pool, picked, side="right"), minlength=len(sizes))
    return counts + changed if missing > 0 else counts - changed


def _distinct(below: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` distinct numbers below `below`, uniformly: repeats are drawn again."""
    found = np.zeros(0, np.int64)
    while len(found) < count:
        drawn = np.concatenate((found, rng.integers(0, below, 2 * (count - len(found)) + 8)))
        found = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
    return found[:count]


def _each(wiring: Wiring, budgets: Budgets, rng: np.random.Generator) -> Drawn:
    for layer, budget in requested(wiring, budgets):
        yield layer.name, choose(layer.shape, budget, rng)


@generator(source="definition", quota="uniform", fixed=True, exact="total")
def random(wiring: Wiring, budgets: Budgets, rng: np.random.Generator) -> Drawn:
    """Uniformly random over all parameters of the network; layers get about the same density by chance."""
    sizes = np.array([layer.size for layer, _ in requested(wiring, budgets)])
    counts = shares(sizes, sum(budgets.values()), rng)
    yield from _each(wiring, dict(zip(budgets, counts.tolist())), rng)


@generator(source="definition", quota="uniform", fixed=True)
def uniform(wiring: Wiring, budgets: Budgets, rng: np.random.Generator) -> Drawn:
    """Uniformly random in each layer, the same density everywhere."""
    yield from _each(wiring, budgets, rng)


@generator(source="Mocanu et al. 2018", quota="er", fixed=True)
def er(wiring: Wiring, budgets: Budgets, rng: np.random.Generator) -> Drawn:
    """Uniformly random in each layer, Erdos-Renyi densities."""
    yield from _each(wiring, budgets, rng)


@generator(source="Evci et al. 2020", quota="erk", fixed=True)
def erk(wiring: Wiring, budgets: Budgets, rng: np.random.Generator) -> Drawn:
    """Uniformly random in each layer, Erdos-Renyi-Kernel densities."""
    yield from _each(wiring, budgets, rng)


@generator(source="Liu et al. 2022", quota="erk_plus", fixed=True)
def erk_plus(wiring: Wiring, budgets: Budgets, rng: np.random.Generator) -> Drawn:
    """Uniformly random in each layer, ERK densities with the last layer dense."""
    yield from _each(wiring, budgets, rng)


@generator(source="Vysogorets & Kempe 2021", quota="igq", fixed=True)
def igq(wiring: Wiring, budgets: Budgets, rng: np.random.Generator) -> Drawn:
    """Uniformly random in each layer, ideal-gas densities."""
    yield from _each(wiring, budgets, rng)


@generator(source="Su et al. 2020, section 4", quota="smart_ratio", fixed=True)
def smart_ratio(
    wiring: Wiring, budgets: Budgets, rng: np.random.Generator, *, last: float = 0.3, squares: bool = False
) -> Drawn:
    """Uniformly random in each layer, densities that fall with depth and a last layer at 30 %: random tickets."""
    yield from _each(wiring, budgets, rng)


@generator(source="Frankle et al. 2021", rewires=True)
def shuffle(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> Drawn:
    """Given masks with each layer shuffled: its kept count stays, every arrangement is equally likely."""
    for name in masks:
        rows = masks.rows(name)
        yield name, choose(rows.shape, rows.kept(), rng)
