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

_ELEMENT = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.uint16: ir.IntType(16),
    types.uint8: ir.IntType(8),
}


_AHEAD, _LINE = 2048, 64  # bytes


def _prefetch(builder, pointer, bytes_):
    """Ask for the memory half a page ahead of this; an address beyond the array is ignored.

    Processors fetch ahead within a page only. Measured: packing 45 MB that other work had driven out of the nearer
    caches takes 2.2 ms instead of 3.3 ms, and no longer where it comes from memory at full speed.
    """
    byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
    fetch = builder.module.globals.get("llvm.prefetch") or ir.Function(builder.module, kind, "llvm.prefetch")
    for line in range(0, bytes_, _LINE):
        ahead = builder.gep(builder.bitcast(pointer, byte), [ir.Constant(ir.IntType(64), _AHEAD + line)])
        builder.call(fetch, [ahead, *(ir.Constant(flag, choice) for choice in (0, 3, 1))])  # to read, soon, as data


def _word(compare, prefetch=False):
    """Code generator: values[start : start + 64] through one vector comparison into a uint64, element j to bit j.

    compare(builder, lanes, constant, floating) gives the comparison; constant(x) is the vector of 64 times x.
    """

    def codegen(context, builder, signature, args):
        element = _ELEMENT[signature.args[0].dtype]
        vector = ir.VectorType(element, 64)

        def constant(value):
            return ir.Constant(vector, [ir.Constant(element, value)] * 64)

        array = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = builder.gep(array.data, [args[1]])
        if prefetch:
            _prefetch(builder, pointer, 8 * signature.args[0].dtype.bitwidth)
        lanes = builder.load(builder.bitcast(pointer, vector.as_pointer()))
        lanes.align = signature.args[0].dtype.bitwidth // 8
        if signature.args[0].dtype == types.uint16:  # the bits of a 16-bit float: the sign is not a magnitude
            lanes = builder.and_(lanes, constant(0x7FFF))
        found = compare(builder, lanes, constant, not isinstance(element, ir.IntType))
        return builder.bitcast(found, ir.IntType(64))

    return codegen


def _not_zero(builder, lanes, constant, floating):
    if floating:
        return builder.fcmp_unordered("!=", lanes, constant(0.0))
    return builder.icmp_unsigned("!=", lanes, constant(0))


def _not_a_number(builder, lanes, constant, floating):
    if floating:
        return builder.fcmp_unordered("uno", lanes, lanes)
    return builder.icmp_unsigned("!=", lanes, lanes)


def _not_binary(builder, lanes, constant, floating):
    if floating:
        return builder.and_(
            builder.fcmp_unordered("!=", lanes, constant(0.0)), builder.fcmp_unordered("!=", lanes, constant(1.0))
        )
    return builder.icmp_unsigned(">", lanes, constant(1))


@intrinsic
def _kept_word(typing_context, values, start):
    return types.uint64(values, types.intp), _word(_not_zero, prefetch=True)


@intrinsic
def _nan_word(typing_context, values, start):
    return types.uint64(values, types.intp), _word(_not_a_number)


@intrinsic
def _odd_word(typing_context, values, start):
    return types.uint64(values, types.intp), _word(_not_binary)


if nb.config.DISABLE_JIT:  # intrinsics exist for the compiler only; numpy says the same, slowly

    def _bits(flags):
        return np.packbits(flags, bitorder="little").view(np.uint64)[0]

    def _lanes(values, start):
        lanes = values[start : start + 64]
        return lanes & 0x7FFF if lanes.dtype == np.uint16 else lanes

    def _kept_word(values, start):
        return _bits(_lanes(values, start) != 0)

    def _nan_word(values, start):
        return _bits(_lanes(values, start) != _lanes(values, start))

    def _odd_word(values, start):
        return _bits((_lanes(values, start) != 0) & (_lanes(values, start) != 1))


@nb.njit(cache=True, nogil=True)
def pack(values, words, strict):
    """values (rows, cols) float32, float64, uint8 or uint16 -> words (rows, ceil(cols / 64)) uint64; is anything odd?

    Bit j of row i is values[i, j] != 0; -0.0 is 0, uint16 holds the bits of float16 or bfloat16 numbers. Odd is, if
    strict, a value other than 0 and 1, otherwise NaN (of 32 or 64 bits; for 16 see `largest_magnitude`).

    [[0.5, 0, -0.0, 2]] -> [[0b1001]], odd only if strict
    """
    rows, cols = values.shape
    flat = values.reshape(rows * cols)
    full, rest = cols // 64, cols % 64
    tail = np.empty(64, values.dtype)
    odd = np.uint64(0)
    for i in range(rows):
        for w in range(full):
            start = i * cols + 64 * w
            words[i, w] = _kept_word(flat, start)
            odd |= _odd_word(flat, start) if strict else _nan_word(flat, start)
        if rest:
            start = (i + 1) * cols - 64
            shift = np.uint64(64 - rest)
            if start >= 0:  # the 64 values that end with the row, and those of before shifted out
                words[i, full] = _kept_word(flat, start) >> shift
                odd |= _odd_word(flat, start) if strict else _nan_word(flat, start)
            else:
                for j in range(64):  # not as slices: their assignment alone takes the compiler two seconds
                    tail[j] = flat[i * cols + j] if j < rest else 0
                words[i, 0] = _kept_word(tail, 0)
                odd |= _odd_word(tail, 0) if strict else _nan_word(tail, 0)
    return odd != 0


@nb.njit(cache=True, nogil=True)
def largest_magnitude(halves):
    """halves (n,) uint16 -> the largest of them without its sign bit: above infinity it is NaN.

    [0x8001, 0x0003] -> 3
    """
    largest = np.uint16(0)
    for half in halves:
        largest = max(largest, half & np.uint16(0x7FFF))
    return largest


@intrinsic
def _popcount(typing_context, word):
    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


if nb.config.DISABLE_JIT:

    def _popcount(word):
        return int(word).bit_count()


@nb.njit(cache=True, nogil=True)
def kernel_counts(words, kernel_size, counts):
    """words (rows, w) uint64 -> counts (rows, kernels) uint16: kept weights in columns k kernel_size .. (k + 1)
    kernel_size - 1.

    words [[0b1011]], kernel_size 2 -> counts [[2, 1]]
    """
    rows, kernels = counts.shape
    last = words.shape[1] - 1
    if kernel_size < 64:  # a kernel lies in one word or in two neighbours
        mask = (np.uint64(1) << np.uint64(kernel_size)) - np.uint64(1)
        for i in range(rows):
            for k in range(kernels):
                w, shift = (k * kernel_size) >> 6, np.uint64((k * kernel_size) & 63)
                low = words[i, w] >> shift
                high = words[i, min(w + 1, last)] << np.uint64(1) << (np.uint64(63) - shift)
                counts[i, k] = _popcount((low | high) & mask)
        return
    for i in range(rows):
        for k in range(kernels):
            total = np.uint64(0)
            for w in range((k * kernel_size) >> 6, min(((k + 1) * kernel_size - 1) >> 6, last) + 1):
                word = words[i, w]
                before, after = k * kernel_size - 64 * w, 64 * (w + 1) - (k + 1) * kernel_size
                if before > 0:
                    word = word >> np.uint64(before) << np.uint64(before)
                if after > 0:
                    word = word << np.uint64(after)
                total += _popcount(word)
            counts[i, k] = total


@nb.njit(cache=True, nogil=True)
def column_counts(words, counts):
    """words (rows, w) uint64 -> counts (64 w,) int64: how many rows have bit j.

    Byte b of lanes[s, w] counts the bits 8 b + s of word w; every 255 rows, before a byte overflows, the lanes are
    emptied into the counts. The inner loop runs along the words of a row, which the compiler takes eight at a time.

    words [[0b101], [0b001]] -> counts [2, 0, 1, 0, ...]
    """
    rows, width = words.shape
    lanes = np.empty((8, width), np.uint64)
    lowest = np.uint64(0x0101010101010101)
    counts[:] = 0
    lanes[:] = 0
    for start in range(0, rows, 255):
        for i in range(start, min(start + 255, rows)):
            for shift in range(8):
                for w in range(width):
                    lanes[shift, w] += (words[i, w] >> np.uint64(shift)) & lowest
        for w in range(width):
            for shift in range(8):
                lane = lanes[shift, w]
                for byte in range(8):
                    counts[64 * w + 8 * byte + shift] += np.int64((lane >> np.uint64(8 * byte)) & np.uint64(255))
                lanes[shift, w] = 0
