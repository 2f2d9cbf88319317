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


_AHEAD, _LINE = 4096, 64  # bytes
_GATHERED = 32  # bytes


def _prefetch(builder, pointer, bytes_):
    """Ask for the memory a page ahead of this; an address beyond the array is ignored.

    Processors fetch ahead within a page only. Measured: packing 45 MB that other work had driven out of the nearer
    caches takes 2.2 ms instead of 3.3 ms; 180 MB from memory 14.2 ms instead of 21 with the vectors of AVX2.
    """
    byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
    fetch = builder.module.globals.get("llvm.prefetch") or ir.Function(builder.module, kind, "llvm.prefetch")
    for line in range(0, bytes_, _LINE):
        ahead = builder.gep(builder.bitcast(pointer, byte), [ir.Constant(ir.IntType(64), _AHEAD + line)])
        builder.call(fetch, [ahead, *(ir.Constant(flag, choice) for choice in (0, 3, 1))])  # to read, soon, as data


def _splat(element, count, value):
    return ir.Constant(ir.VectorType(element, count), [ir.Constant(element, value)] * count)


def _not_zero(context, builder, signature, args):
    """values[start : start + 64] through one vector comparison with 0 into a uint64, element j to bit j."""
    dtype = signature.args[0].dtype
    element, zero = _ELEMENT[dtype], _splat(_ELEMENT[dtype], 64, 0)
    pointer = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
    _prefetch(builder, pointer, 8 * dtype.bitwidth)
    lanes = builder.load(builder.bitcast(pointer, zero.type.as_pointer()), align=dtype.bitwidth // 8)
    if dtype == types.uint16:  # the bits of a 16-bit float: the sign is not a magnitude
        lanes = builder.and_(lanes, _splat(element, 64, 0x7FFF))
    unequal = builder.icmp_unsigned if isinstance(element, ir.IntType) else builder.fcmp_unordered
    return builder.bitcast(unequal("!=", lanes, zero), ir.IntType(64))


@intrinsic
def _kept_word(typing_context, values, start):
    return types.uint64(values, types.intp), _not_zero


def _gather(tests):
    """Code generator: odd |= tests(values[start : start + 64]), lane by lane, for an array odd of _GATHERED bytes.

    A word of its own for what is odd would cost as much again as the kept word where there are no mask registers
    (AVX2, NEON): measured with AVX2, 26 ms instead of 14 for 180 MB, as long as np.packbits takes.

    tests(builder, parts, element, infinity): vectors of _GATHERED bytes -> comparisons, whose lanes are odd where true.
    """

    def codegen(context, builder, signature, args):
        dtype = signature.args[0].dtype
        element, lanes = _ELEMENT[dtype], 8 * _GATHERED // dtype.bitwidth
        vector, flags = ir.VectorType(element, lanes), ir.VectorType(ir.IntType(dtype.bitwidth), lanes)
        pointer = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        parts = []
        for first in range(0, 64, lanes):
            part = builder.gep(pointer, [ir.Constant(ir.IntType(64), first)])
            parts.append(builder.load(builder.bitcast(part, vector.as_pointer()), align=dtype.bitwidth // 8))
        if dtype == types.uint16:
            parts = [builder.and_(part, _splat(element, lanes, 0x7FFF)) for part in parts]
        odd = context.make_array(signature.args[3])(context, builder, args[3]).data
        odd = builder.bitcast(odd, flags.as_pointer())
        found = builder.load(odd, align=1)
        for test in tests(builder, parts, element, args[2]):
            found = builder.or_(found, builder.sext(test, flags))
        builder.store(found, odd, align=1)
        return context.get_dummy_value()

    return codegen


def _not_numbers(builder, parts, element, infinity):
    """Of two floats, is one NaN? Bytes never are."""
    if not isinstance(element, ir.IntType):
        return [builder.fcmp_unordered("uno", *pair) for pair in zip(parts[::2], parts[1::2])]
    if element.width == 8:
        return []
    one = builder.insert_element(ir.Constant(parts[0].type, ir.Undefined), infinity, ir.IntType(32)(0))
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), parts[0].type.count), None)
    infinities = builder.shuffle_vector(one, one, everywhere)
    return [builder.icmp_signed(">", part, infinities) for part in parts]


def _not_binary(builder, parts, element, infinity):
    for part in parts:
        if isinstance(element, ir.IntType):
            yield builder.icmp_unsigned(">", part, _splat(element, part.type.count, 1))
        else:
            unequal = (builder.fcmp_unordered("!=", part, _splat(element, part.type.count, x)) for x in (0.0, 1.0))
            yield builder.and_(*unequal)


@intrinsic
def _gather_nan(typing_context, values, start, infinity, odd):
    return types.none(values, types.intp, types.uint16, odd), _gather(_not_numbers)


@intrinsic
def _gather_odd(typing_context, values, start, infinity, odd):
    return types.none(values, types.intp, types.uint16, odd), _gather(_not_binary)


if nb.config.DISABLE_JIT:  # intrinsics exist for the compiler only; numpy says the same, slowly

    def _lanes(values, start):
        lanes = values[start : start + 64]
        return lanes & 0x7FFF if lanes.dtype == np.uint16 else lanes

    def _kept_word(values, start):
        return np.packbits(_lanes(values, start) != 0, bitorder="little").view(np.uint64)[0]

    def _gather_nan(values, start, infinity, odd):
        lanes = _lanes(values, start)
        odd[0] |= (lanes > infinity if lanes.dtype == np.uint16 else lanes != lanes).any()

    def _gather_odd(values, start, infinity, odd):
        odd[0] |= ((_lanes(values, start) != 0) & (_lanes(values, start) != 1)).any()


@nb.njit(cache=True, nogil=True)
def pack(values, words, strict, infinity):
    """values (rows, cols) float32, float64, uint8 or uint16 -> words (rows, ceil(cols / 64)) uint64; is anything odd?

    Bit j of row i is values[i, j] != 0; -0.0 is 0, uint16 holds the bits of float16 or bfloat16 numbers, whose signs do
    not count. Odd is, if strict, a value other than 0 and 1, otherwise NaN: in 16 bits, what is above `infinity`.

    [[0.5, 0, -0.0, 2]] -> [[0b1001]], odd only if strict
    """
    rows, cols = values.shape
    flat = values.reshape(rows * cols)
    full, rest = cols // 64, cols % 64
    tail, odd = np.empty(64, values.dtype), np.empty(_GATHERED, np.uint8)
    for j in range(_GATHERED):
        odd[j] = 0
    for i in range(rows):
        for w in range(full):
            start = i * cols + 64 * w
            words[i, w] = _kept_word(flat, start)
            if strict:
                _gather_odd(flat, start, infinity, odd)
            else:
                _gather_nan(flat, start, infinity, odd)
        if rest:
            start = (i + 1) * cols - 64
            if start >= 0:  # the 64 values that end with the row, and those of before shifted out
                words[i, full] = _kept_word(flat, start) >> np.uint64(64 - rest)
                if strict:
                    _gather_odd(flat, start, infinity, odd)
                else:
                    _gather_nan(flat, start, infinity, odd)
            else:
                for j in range(64):  # not as slices: their assignment alone takes the compiler two seconds
                    tail[j] = flat[i * cols + j] if j < rest else 0
                words[i, 0] = _kept_word(tail, 0)
                if strict:
                    _gather_odd(tail, 0, infinity, odd)
                else:
                    _gather_nan(tail, 0, infinity, odd)
    for j in range(_GATHERED):
        if odd[j]:
            return True
    return False


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
