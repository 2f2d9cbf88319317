"""What is counted of a weight matrix in one pass over its bytes: kept weights by row and column, N:M groups, blocks,
and the numbers that are odd (-0.0, denormal, infinite, NaN).

Weights come as the unsigned integers that hold their bits. A bit row is as in `bits`: column j is bit j % 64 of word
j // 64.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_AHEAD, _LINE = 2048, 64  # bytes: processors fetch ahead within a page only


@intrinsic
def _classes(typing_context, values, start, magnitude, normal, largest, sign):
    """values[start : start + 64] -> four words, element j at bit j: not zero, minus zero, below normal, not finite.

    Of each element its bits under `magnitude` are compared; minus zero is the pattern `sign` itself.
    """
    word = types.uint64
    signature = types.UniTuple(word, 4)(values, types.intp, values.dtype, values.dtype, values.dtype, values.dtype)

    def codegen(context, builder, signature, args):
        bits = signature.args[0].dtype.bitwidth
        element, flag = ir.IntType(bits), ir.IntType(32)
        vector = ir.VectorType(element, 64)

        def all_lanes(value):
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(flag, 0))
            lanes = ir.Constant(ir.VectorType(flag, 64), [ir.Constant(flag, 0)] * 64)
            return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lanes)

        array = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = builder.gep(array.data, [args[1]])
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        fetch = builder.module.globals.get("llvm.prefetch") or ir.Function(builder.module, kind, "llvm.prefetch")
        for line in range(0, 8 * bits, _LINE):
            ahead = builder.gep(builder.bitcast(pointer, byte), [ir.Constant(ir.IntType(64), _AHEAD + line)])
            builder.call(fetch, [ahead, *(ir.Constant(flag, choice) for choice in (0, 3, 1))])
        lanes = builder.load(builder.bitcast(pointer, vector.as_pointer()))
        lanes.align = bits // 8
        magnitude, normal, largest, sign = map(all_lanes, args[2:])
        sizes = builder.and_(lanes, magnitude)
        zero = ir.Constant(vector, [ir.Constant(element, 0)] * 64)
        found = (
            builder.icmp_unsigned("!=", sizes, zero),
            builder.icmp_unsigned("==", lanes, sign),
            builder.icmp_unsigned("<", sizes, normal),
            builder.icmp_unsigned(">", sizes, largest),
        )
        words = [builder.bitcast(flags, ir.IntType(64)) for flags in found]
        return context.make_tuple(builder, signature.return_type, words)

    return signature, codegen


@intrinsic
def _popcount(typing_context, word):
    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


if nb.config.DISABLE_JIT:  # intrinsics exist for the compiler only; numpy says the same, slowly

    def _classes(values, start, magnitude, normal, largest, sign):
        lanes = values[start : start + 64]
        sizes = lanes & magnitude
        found = (sizes != 0, lanes == sign, sizes < normal, sizes > largest)
        return tuple(np.packbits(flags, bitorder="little").view(np.uint64)[0] for flags in found)

    def _popcount(word):
        return int(word).bit_count()


@nb.njit(cache=True, nogil=True)
def _tally_large(flat, start, count, magnitude, largest, tally):
    """Of the elements from start on, tally[2] grows by those one step above the largest finite, tally[3] by others."""
    for j in range(start, start + count):
        size = flat[j] & magnitude
        if size > largest:
            tally[2 if size - largest == 1 else 3] += 1


@nb.njit(cache=True, nogil=True)
def pack_and_tally(values, pattern, words, tally):
    """values (rows, cols) unsigned -> words (rows, ceil(cols / 64)) uint64: bit j of row i is values[i, j] not zero.

    pattern: (magnitude, normal, largest, sign), of the type of values: the bits that are not the sign; the smallest
    normal number; the largest finite one; the pattern of -0.0. tally (4,) int64 grows by how many are -0.0, denormal,
    one step above the largest finite number (infinity, where the type has one), and further above it (NaN).

    bfloat16 [[0x3F80, 0x8000, 0x0001, 0x7FC0]], (0x7FFF, 0x80, 0x7F7F, 0x8000) -> [[0b1101]], [1, 1, 0, 1]
    """
    rows, cols = values.shape
    flat = values.reshape(rows * cols)
    magnitude, normal, largest, sign = pattern[0], pattern[1], pattern[2], pattern[3]
    full, rest = cols // 64, cols % 64
    tail = np.zeros(64, values.dtype)
    minus_zeros, denormals = np.uint64(0), np.uint64(0)
    for i in range(rows):
        for w in range(full):
            kept, minus, small, large = _classes(flat, i * cols + 64 * w, magnitude, normal, largest, sign)
            words[i, w] = kept
            minus_zeros += _popcount(minus)
            denormals += _popcount(small & kept)
            if large:
                _tally_large(flat, i * cols + 64 * w, 64, magnitude, largest, tally)
        if rest:
            for j in range(rest):  # not as slices: their assignment alone takes the compiler two seconds
                tail[j] = flat[i * cols + 64 * full + j]
            kept, minus, small, large = _classes(tail, 0, magnitude, normal, largest, sign)
            words[i, full] = kept
            minus_zeros += _popcount(minus)
            denormals += _popcount(small & kept)
            if large:
                _tally_large(tail, 0, rest, magnitude, largest, tally)
    tally[0] += np.int64(minus_zeros)
    tally[1] += np.int64(denormals)


@nb.njit(cache=True, nogil=True)
def row_counts(words, counts):
    """words (rows, w) uint64 -> counts (rows,) int64: kept weights of each row.

    [[0b101], [0b001]] -> [2, 1]
    """
    rows, width = words.shape
    for i in range(rows):
        total = np.uint64(0)
        for w in range(width):
            total += _popcount(words[i, w])
        counts[i] = np.int64(total)


@nb.njit(cache=True, nogil=True)
def add_columns(words, planes, counts):
    """words (rows, w) uint64: counts (64 w,) int64 grow by the rows that have bit j. planes (12, w) uint64: scratch.

    Eight rows are added bit by bit, a plane for each binary digit of the sum (carry-save adders); the digit of eight is
    spread over the bytes of lanes, which are emptied before one overflows. Per word that is one and a half operations.

    [[0b101], [0b001]] -> counts [2, 0, 1, 0, ...]
    """
    rows, width = words.shape
    lowest = np.uint64(0x0101010101010101)
    planes[:] = 0
    pending = 0
    whole = rows - rows % 8
    for i in range(0, whole, 8):
        for w in range(width):
            ones, twos, fours = planes[8, w], planes[9, w], planes[10, w]
            a, b = words[i, w], words[i + 1, w]
            half = ones ^ a
            two_a, ones = (ones & a) | (half & b), half ^ b
            a, b = words[i + 2, w], words[i + 3, w]
            half = ones ^ a
            two_b, ones = (ones & a) | (half & b), half ^ b
            half = twos ^ two_a
            four_a, twos = (twos & two_a) | (half & two_b), half ^ two_b
            a, b = words[i + 4, w], words[i + 5, w]
            half = ones ^ a
            two_a, ones = (ones & a) | (half & b), half ^ b
            a, b = words[i + 6, w], words[i + 7, w]
            half = ones ^ a
            two_b, ones = (ones & a) | (half & b), half ^ b
            half = twos ^ two_a
            four_b, twos = (twos & two_a) | (half & two_b), half ^ two_b
            half = fours ^ four_a
            planes[11, w] = (fours & four_a) | (half & four_b)
            planes[8, w], planes[9, w], planes[10, w] = ones, twos, half ^ four_b
        for shift in range(8):
            for w in range(width):
                planes[shift, w] += (planes[11, w] >> np.uint64(shift)) & lowest
        pending += 1
        if pending == 255 or i + 8 == whole:
            for w in range(width):
                for shift in range(8):
                    for byte in range(8):
                        place = np.uint64(8 * byte)
                        counts[64 * w + 8 * byte + shift] += 8 * np.int64((planes[shift, w] >> place) & np.uint64(255))
                    planes[shift, w] = 0
            pending = 0
    for w in range(width):
        ones, twos, fours = planes[8, w], planes[9, w], planes[10, w]
        for j in range(64):
            place = np.uint64(j)
            one = np.uint64(1)
            few = (ones >> place & one) + np.uint64(2) * (twos >> place & one) + np.uint64(4) * (fours >> place & one)
            for i in range(whole, rows):
                few += words[i, w] >> place & one
            counts[64 * w + j] += np.int64(few)


@nb.njit(cache=True, nogil=True)
def over_groups(words, n, m):
    """words (rows, w) uint64 -> how many groups of m bits keep more than n; m is 2, 4, 8, 16, 32 or 64, n < m.

    [[0b0111_0011]], n 2, m 4 -> 1
    """
    rows, width = words.shape
    every = ~np.uint64(0)
    second, fourth, eighth = every // np.uint64(3), every // np.uint64(5), every // np.uint64(17)
    sixteenth, thirtieth = every // np.uint64(257), every // np.uint64(65537)
    last = np.uint64(1) << np.uint64(m - 1)
    heads = last
    for group in range(1, 64 // m):
        heads |= last << np.uint64(group * m)
    room = (heads >> np.uint64(m - 1)) * (last - np.uint64(1 + n))
    total = np.uint64(0)
    for i in range(rows):
        for w in range(width):
            word = words[i, w]
            word -= (word >> np.uint64(1)) & second
            if m > 2:
                word = (word & fourth) + ((word >> np.uint64(2)) & fourth)
            if m > 4:
                word = (word + (word >> np.uint64(4))) & eighth
            if m > 8:
                word = (word + (word >> np.uint64(8))) & sixteenth
            if m > 16:
                word = (word + (word >> np.uint64(16))) & thirtieth
            if m > 32:
                word = (word + (word >> np.uint64(32))) & np.uint64(0xFFFFFFFF)
            total += _popcount((word + room) & heads)
    return total


@nb.njit(cache=True, nogil=True)
def occupied_blocks(words):
    """words (rows, w) uint64 -> how many blocks of 4 rows and 4 columns hold a bit; the last rows may be fewer.

    [[0b0001_0000], [0b0010_0001]] -> 2
    """
    rows, width = words.shape
    lowest = ~np.uint64(0) // np.uint64(15)
    total = np.uint64(0)
    for i in range(0, rows, 4):
        second, third, last = min(i + 1, rows - 1), min(i + 2, rows - 1), min(i + 3, rows - 1)
        for w in range(width):
            word = words[i, w] | words[second, w] | words[third, w] | words[last, w]
            word |= word >> np.uint64(1)
            word |= word >> np.uint64(2)
            total += _popcount(word & lowest)
    return total
