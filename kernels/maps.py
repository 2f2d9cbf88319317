"""Sums over feature maps along bit rows: what a sparse convolution adds, place by place.

words (rows, w) uint64: a row for each output channel, a bit for each weight of its group. Of each group, `columns`
weights read rows of x: weight c of group g reads x[g * columns + c], its places along the last axis. Numbers are
float64, or uint64 below 2**31 for residues: sums of those stay below 2**64.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_PLACES = 1024  # of a map at a time, so that a row of the sum stays in the nearest cache


@intrinsic
def _lowest_bit(typing_context, word):
    """The place of the lowest bit that is set in a uint64 word that is not 0."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


if nb.config.DISABLE_JIT:

    def _lowest_bit(word):
        return (int(word) & -int(word)).bit_length() - 1


@nb.njit(cache=True, nogil=True)
def pull(words, groups, columns, x, y):
    """y[o] = sum over kept weights c of output o of x[c]."""
    each = words.shape[0] // groups
    for first in range(0, y.shape[1], _PLACES):
        last = min(first + _PLACES, y.shape[1])
        for o in range(words.shape[0]):
            base = o // each * columns
            y[o, first:last] = 0
            for w in range(words.shape[1]):
                word = words[o, w]
                while word:
                    c = base + 64 * w + _lowest_bit(word)
                    word &= word - np.uint64(1)
                    for p in range(first, last):
                        y[o, p] += x[c, p]


@nb.njit(cache=True, nogil=True)
def push(words, groups, columns, b, z):
    """z[c] = sum over outputs o that keep weight c of b[o]."""
    each = words.shape[0] // groups
    z[:] = 0
    for first in range(0, b.shape[1], _PLACES):
        last = min(first + _PLACES, b.shape[1])
        for o in range(words.shape[0]):
            base = o // each * columns
            for w in range(words.shape[1]):
                word = words[o, w]
                while word:
                    c = base + 64 * w + _lowest_bit(word)
                    word &= word - np.uint64(1)
                    for p in range(first, last):
                        z[c, p] += b[o, p]


@nb.njit(cache=True, nogil=True)
def pull_live(words, groups, columns, x, y):
    """As `pull` with OR for the sum: x, y (rows, places / 64) uint64, a bit for each place."""
    each = words.shape[0] // groups
    for o in range(words.shape[0]):
        base = o // each * columns
        y[o, :] = 0
        for w in range(words.shape[1]):
            word = words[o, w]
            while word:
                c = base + 64 * w + _lowest_bit(word)
                word &= word - np.uint64(1)
                for p in range(y.shape[1]):
                    y[o, p] |= x[c, p]


@nb.njit(cache=True, nogil=True)
def push_live(words, groups, columns, b, z):
    """As `push` with OR for the sum, a bit for each place."""
    each = words.shape[0] // groups
    z[:] = 0
    for o in range(words.shape[0]):
        base = o // each * columns
        for w in range(words.shape[1]):
            word = words[o, w]
            while word:
                c = base + 64 * w + _lowest_bit(word)
                word &= word - np.uint64(1)
                for p in range(b.shape[1]):
                    z[c, p] |= b[o, p]


@nb.njit(cache=True, nogil=True)
def meeting(words, groups, columns, x, b, out):
    """out, like words: the kept weights c of each output o with a place where both x[c] and b[o] are set."""
    each = words.shape[0] // groups
    for o in range(words.shape[0]):
        base = o // each * columns
        for w in range(words.shape[1]):
            word, found = words[o, w], np.uint64(0)
            while word:
                bit = _lowest_bit(word)
                for p in range(b.shape[1]):
                    if x[base + 64 * w + bit, p] & b[o, p]:
                        found |= np.uint64(1) << np.uint64(bit)
                        break
                word &= word - np.uint64(1)
            out[o, w] = found


@nb.njit(cache=True, nogil=True)
def edge_sums(words, groups, columns, x, b, sums):
    """sums (kept,): for each kept weight, row by row, the sum over places of x[c] * b[o]."""
    each = words.shape[0] // groups
    k = 0
    for o in range(words.shape[0]):
        base = o // each * columns
        for w in range(words.shape[1]):
            word = words[o, w]
            while word:
                c = base + 64 * w + _lowest_bit(word)
                word &= word - np.uint64(1)
                total = 0.0
                for p in range(b.shape[1]):
                    total += x[c, p] * b[o, p]
                sums[k] = total
                k += 1


@nb.njit(cache=True, nogil=True)
def edges(words, groups, columns, meets, start, begin, end):
    """The pairs that a layer joins at places: begin, end (edges,) int32 units; how many.

    meets (in * kernel positions, places) int32: the unit that a weight meets at each place, below 0 none; start: the
    first unit that the layer makes.
    """
    each, places = words.shape[0] // groups, meets.shape[1]
    k = 0
    for o in range(words.shape[0]):
        base = o // each * columns
        for w in range(words.shape[1]):
            word = words[o, w]
            while word:
                c = base + 64 * w + _lowest_bit(word)
                word &= word - np.uint64(1)
                for p in range(places):
                    if meets[c, p] >= 0:
                        begin[k] = meets[c, p]
                        end[k] = start + o * places + p
                        k += 1
    return k
