"""A pull through bit rows for several vectors at once: what exact path counts, held in limbs, are sent through.

The bits of a row are looked up once for all vectors, a half byte at a time: of each four columns the sums of all 16
subsets are tabulated, a sum of each vector side by side, which the processor adds up in one or two instructions.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 8  # vectors taken together
_CODES, _TABLES = 16, 16  # subsets of four columns; half bytes of a word
_ROWS = 512  # taken at a time: their sums, 32 KiB, stay near while the words of their columns go by


def _vectors(context, builder, kind, array, start):
    """Pointer to the vectors of LANES float64 that begin at place `start` of an array."""
    pointer = builder.gep(context.make_array(kind)(context, builder, array).data, [start])
    return builder.bitcast(pointer, ir.VectorType(ir.DoubleType(), LANES).as_pointer())


@intrinsic
def _tabulate(typing_context, x, start, table, place):
    """The sums of all subsets of four vectors of x from `start` on, 16 vectors into table from `place` on."""

    def codegen(context, builder, signature, args):
        vector, at = ir.VectorType(ir.DoubleType(), LANES), ir.IntType(64)
        given = _vectors(context, builder, signature.args[0], args[0], args[1])
        out = _vectors(context, builder, signature.args[2], args[2], args[3])
        sums = [ir.Constant(vector, [ir.Constant(ir.DoubleType(), 0.0)] * LANES)]
        for bit in range(4):
            value = builder.load(builder.gep(given, [at(bit)]), align=8)
            sums += [builder.fadd(total, value) for total in sums]
        for code, total in enumerate(sums):
            builder.store(total, builder.gep(out, [at(code)]), align=8)
        return context.get_dummy_value()

    return types.none(x, types.intp, table, types.intp), codegen


@intrinsic
def _add_word(typing_context, table, word, sums, start):
    """LANES sums from `start` on grow by the entries of the table that the half bytes of a word choose."""

    def codegen(context, builder, signature, args):
        at = ir.IntType(64)
        entries = _vectors(context, builder, signature.args[0], args[0], at(0))
        target = _vectors(context, builder, signature.args[2], args[2], args[3])
        parts = [builder.load(target, align=8)]
        for n in range(_TABLES):
            code = builder.and_(builder.lshr(args[1], at(4 * n)), at(_CODES - 1))
            entry = builder.gep(entries, [builder.add(code, at(_CODES * n))])
            parts.append(builder.load(entry, align=8))
        while len(parts) > 1:  # a tree, not a chain
            pairs = [builder.fadd(*parts[k : k + 2]) for k in range(0, len(parts) - 1, 2)]
            parts = pairs + parts[2 * len(pairs) :]
        builder.store(parts[0], target, align=8)
        return context.get_dummy_value()

    return types.none(table, types.uint64, sums, types.intp), codegen


if nb.config.DISABLE_JIT:  # intrinsics exist for the compiler only; numpy says the same, slowly

    def _tabulate(x, start, table, place):
        values = x[start : start + 4 * LANES].reshape(4, LANES)
        codes = np.arange(_CODES)[:, None] >> np.arange(4) & 1
        np.copyto(table[place : place + _CODES * LANES], (codes @ values).reshape(-1))

    def _add_word(table, word, sums, start):
        for n in range(_TABLES):
            place = LANES * (_CODES * n + (int(word) >> 4 * n & _CODES - 1))
            np.add(sums[start : start + LANES], table[place : place + LANES], sums[start : start + LANES])


@nb.njit(cache=True, nogil=True)
def pull_lanes(words, x, y):
    """words (rows, w) uint64, x (64 w, LANES) float64 -> y (rows, LANES): y[i] = sum over set bits j of row i of x[j].

    Measured, 2048 rows of 32 words: eight vectors take 0.5 ms, and one after the other (`paths.pull_bits`) 1.4.

    words [[0b101]], x [[1, 10, ...], [2, 20, ...], [4, 40, ...], [0, ...], ...] -> y [[5, 50, ...]]
    """
    rows, width = words.shape
    table = np.empty(_TABLES * _CODES * LANES)
    given, sums = x.reshape(x.size), y.reshape(y.size)
    for i in range(len(sums)):
        sums[i] = 0.0
    for first in range(0, rows, _ROWS):
        last = min(first + _ROWS, rows)
        for w in range(width):
            for n in range(_TABLES):
                _tabulate(given, (64 * w + 4 * n) * LANES, table, _CODES * n * LANES)
            for i in range(first, last):
                _add_word(table, words[i, w], sums, i * LANES)
