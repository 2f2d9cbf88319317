"""Bit rows: packing, and the counts that are read straight off them.

A bit row is a row of little-endian uint64 words: column j of the matrix is bit j % 64 of word j // 64, padding bits are
0.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def _word(typing_context, values, start):
    """64 consecutive elements compared with 0 in one vector comparison, as a uint64."""

    def codegen(context, builder, signature, args):
        element, zero, magnitude = {
            types.float32: (ir.FloatType(), 0.0, None),
            types.float64: (ir.DoubleType(), 0.0, None),
            types.uint16: (ir.IntType(16), 0, 0x7FFF),  # the bits of a 16-bit float: the sign is no magnitude
            types.uint8: (ir.IntType(8), 0, None),
        }[signature.args[0].dtype]
        array = context.make_array(signature.args[0])(context, builder, args[0])
        vector = ir.VectorType(element, 64)
        lanes = builder.load(builder.bitcast(builder.gep(array.data, [args[1]]), vector.as_pointer()))
        lanes.align = signature.args[0].dtype.bitwidth // 8
        if magnitude is not None:
            lanes = builder.and_(lanes, ir.Constant(vector, [ir.Constant(element, magnitude)] * 64))
        compare = builder.fcmp_unordered if isinstance(zero, float) else builder.icmp_unsigned
        kept = compare("!=", lanes, ir.Constant(vector, [ir.Constant(element, zero)] * 64))
        return builder.bitcast(kept, ir.IntType(64))

    return types.uint64(values, types.intp), codegen


if nb.config.DISABLE_JIT:  # an intrinsic exists for the compiler only; numpy says the same, slowly

    def _word(values, start):
        lanes = values[start : start + 64]
        if lanes.dtype == np.uint16:
            lanes = lanes & 0x7FFF
        return np.packbits(lanes != 0, bitorder="little").view(np.uint64)[0]


@nb.njit(cache=True, nogil=True)
def pack(values, words):
    """values (rows, cols) float32, float64, uint8 or uint16 -> words (rows, ceil(cols / 64)) uint64.

    Bit j of row i is values[i, j] != 0. NaN is not 0; -0.0 is 0. uint16 holds the bits of float16 or bfloat16 numbers.

    [[0.5, 0, -0.0, 2]] -> [[0b1001]]
    """
    rows, cols = values.shape
    flat = values.reshape(rows * cols)
    full, rest = cols // 64, cols % 64
    tail = np.zeros(64, values.dtype)
    for i in range(rows):
        for w in range(full):
            words[i, w] = _word(flat, i * cols + 64 * w)
        if rest:
            tail[:rest] = flat[i * cols + 64 * full : (i + 1) * cols]
            words[i, full] = _word(tail, 0)


@intrinsic
def _popcount(typing_context, word):
    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


if nb.config.DISABLE_JIT:

    def _popcount(word):
        return int(word).bit_count()


@nb.njit(cache=True, nogil=True)
def kernel_counts(words, taps, counts):
    """words (rows, w) uint64 -> counts (rows, kernels) uint16: kept weights in columns k taps .. (k + 1) taps - 1.

    words [[0b1011]], taps 2 -> counts [[2, 1]]
    """
    rows, kernels = counts.shape
    for i in range(rows):
        for k in range(kernels):
            first, last = k * taps, (k + 1) * taps
            w, shift = first >> 6, np.uint64(first & 63)
            total = np.uint64(0)
            left = last - first
            word = words[i, w] >> shift
            room = 64 - (first & 63)
            while left > room:
                total += _popcount(word)
                left -= room
                w += 1
                word = words[i, w]
                room = 64
            if left < 64:
                word &= (np.uint64(1) << np.uint64(left)) - np.uint64(1)
            counts[i, k] = total + _popcount(word)
