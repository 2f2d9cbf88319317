"""Sums over feature maps along bit rows: what a sparse convolution adds, place by place.

words (rows, w) uint64: a row for each output channel, a bit for each weight of its group. `alive` (w,) uint64 has the
weights that meet a place of the map anywhere.

Counts lie in strips (`topo.wiring.maps.Strips`), so that a weight adds one run of places: weight c of group g reads
x[at[c] + g * apart] onward, n places; x (.,) float64 is one strip for each channel, behind each other. Residues are
float64, too: sums of fewer than 2**22 numbers below 2**31 are exact.

For reach, `columns` weights of each group read rows of x: weight c of group g reads x[g * columns + c], a bit for each
place along the last axis.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_PLACES = 256  # of a strip at a time, so that the sum stays in the nearest cache
_LANES = 8  # numbers of a vector


@intrinsic
def _lowest_bit(typing_context, word):
    """The place of the lowest bit that is set in a uint64 word that is not 0."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@intrinsic
def _meet(typing_context, x, z, i, b, j, n):
    """Sum over t < n of x[i + t] * b[j + t], and z[i + t] += b[j + t]; n is a multiple of 8.

    Eight sums side by side, which the compiler does not make of a plain loop: it keeps the order of additions.
    """

    def codegen(context, builder, signature, args):
        number, whole = ir.DoubleType(), ir.IntType(64)
        vector = ir.VectorType(number, _LANES)
        sides = []
        for array, first in ((0, 2), (1, 2), (3, 4)):
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            sides.append(builder.gep(data, [args[first]]))
        before = builder.block
        loop, end = builder.append_basic_block(), builder.append_basic_block()
        zero = ir.Constant(vector, [ir.Constant(number, 0.0)] * _LANES)
        builder.cbranch(builder.icmp_signed(">", args[5], ir.Constant(whole, 0)), loop, end)
        builder.position_at_end(loop)
        t, total = builder.phi(whole), builder.phi(vector)
        places = [builder.bitcast(builder.gep(side, [t]), vector.as_pointer()) for side in sides]
        one, sums, two = (builder.load(place, align=8) for place in places)
        grown = builder.fadd(total, builder.fmul(one, two))
        builder.store(builder.fadd(sums, two), places[1], align=8)
        after = builder.add(t, ir.Constant(whole, _LANES))
        for phi, first, following in ((t, ir.Constant(whole, 0), after), (total, zero, grown)):
            phi.add_incoming(first, before)
            phi.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", after, args[5]), loop, end)
        builder.position_at_end(end)
        found = builder.phi(vector)
        found.add_incoming(zero, before)
        found.add_incoming(grown, loop)
        parts = [builder.extract_element(found, ir.Constant(ir.IntType(32), k)) for k in range(_LANES)]
        while len(parts) > 1:
            parts = [builder.fadd(*two) for two in zip(parts[::2], parts[1::2])]
        return parts[0]

    return types.float64(x, z, types.int64, b, types.int64, types.int64), codegen


if nb.config.DISABLE_JIT:

    def _lowest_bit(word):
        return (int(word) & -int(word)).bit_length() - 1

    def _meet(x, z, i, b, j, n):
        z[i : i + n] += b[j : j + n]
        return float((x[i : i + n] * b[j : j + n]).sum())


@nb.njit(cache=True, nogil=True)
def fill_strips(numbers, tensor, factor, reads, first, runs, step, x):
    """Strips of what a layer reads, one behind the other: factor * the number of each unit, 0 where there is none.

    runs (., 3) int64: where in a strip, from which place on, how many places, each `step` from the last. reads (in,
    places) int32 units, below 0 none; first (in,) int64: their first where they are units in a row, else -1. tensor
    (units,) int32: whose factor (tensors,) a unit has, or (1,) for all alike.
    """
    size, alike = len(x) // len(reads), len(factor) == 1
    for s in range(len(x)):
        x[s] = 0.0
    for i in range(len(reads)):
        for r in range(len(runs)):
            strip, begin = x[i * size + runs[r, 0] : i * size + runs[r, 0] + runs[r, 2]], runs[r, 1]
            if alike and first[i] >= 0:
                row = numbers[first[i] + begin :]
                if step == 1:
                    for t in range(len(strip)):
                        strip[t] = row[t] * factor[0]
                else:
                    for t in range(len(strip)):
                        strip[t] = row[t * step] * factor[0]
                continue
            for t in range(len(strip)):
                unit = reads[i, begin + t * step]
                if unit >= 0:
                    strip[t] = numbers[unit] * (factor[0] if alike else factor[tensor[unit]])


@nb.njit(cache=True, nogil=True)
def add_strips(z, tensor, factor, reads, first, runs, step, numbers):
    """number of each unit += factor * what stands in its strips: the transpose of filling them."""
    size, alike = len(z) // len(reads), len(factor) == 1
    for i in range(len(reads)):
        for r in range(len(runs)):
            strip, begin = z[i * size + runs[r, 0] : i * size + runs[r, 0] + runs[r, 2]], runs[r, 1]
            if alike and first[i] >= 0:
                row = numbers[first[i] + begin :]
                if step == 1:
                    for t in range(len(strip)):
                        row[t] += strip[t] * factor[0]
                else:
                    for t in range(len(strip)):
                        row[t * step] += strip[t] * factor[0]
                continue
            for t in range(len(strip)):
                unit = reads[i, begin + t * step]
                if unit >= 0:
                    numbers[unit] += strip[t] * (factor[0] if alike else factor[tensor[unit]])


@nb.njit(cache=True, nogil=True)
def take_lanes(strips, lanes, row, made):
    """made, row after row of `row` numbers, is what stands on the lanes of each strip: strips[o, lanes[p]]."""
    k = 0
    for o in range(len(strips)):
        for p in range(0, len(lanes), row):
            found, here = strips[o, lanes[p] : lanes[p] + row], made[k : k + row]
            for t in range(row):
                here[t] = found[t]
            k += row


@nb.njit(cache=True, nogil=True)
def lay_lanes(given, lanes, row, strips):
    """The transpose of taking: strips[o, lanes[p]] are the numbers given, 0 elsewhere."""
    k = 0
    for o in range(len(strips)):
        strip = strips[o]
        for s in range(len(strip)):
            strip[s] = 0.0
        for p in range(0, len(lanes), row):
            found, here = strip[lanes[p] : lanes[p] + row], given[k : k + row]
            for t in range(row):
                found[t] = here[t]
            k += row


@nb.njit(cache=True, nogil=True)
def _in_a_row(units):
    """Whether they are u, u + 1, u + 2, ... of a unit u."""
    same = units[0] >= 0
    for t in range(len(units)):
        same &= units[t] == units[0] + t
    return same


@nb.njit(cache=True, nogil=True)
def add_units(numbers, tensor, factor, units, made):
    """made[k] += factor * number of units[k]; below 0 is none: the last of `numbers` are zeros."""
    alike = len(factor) == 1
    for first in range(0, len(units), _PLACES):
        part, sums = units[first : first + _PLACES], made[first : first + _PLACES]
        if alike and _in_a_row(part):
            row = numbers[part[0] : part[0] + len(part)]
            for t in range(len(part)):
                sums[t] += row[t] * factor[0]
            continue
        if alike:
            for t in range(len(part)):
                sums[t] += numbers[part[t]] * factor[0]
            continue
        for t in range(len(part)):
            if part[t] >= 0:
                sums[t] += numbers[part[t]] * factor[tensor[part[t]]]


@nb.njit(cache=True, nogil=True)
def add_to_units(given, tensor, factor, units, numbers):
    """number of units[k] += factor * given[k]; below 0 is none."""
    alike = len(factor) == 1
    for first in range(0, len(units), _PLACES):
        part, parts = units[first : first + _PLACES], given[first : first + _PLACES]
        if alike and _in_a_row(part):
            row = numbers[part[0] : part[0] + len(part)]
            for t in range(len(part)):
                row[t] += parts[t] * factor[0]
            continue
        for t in range(len(part)):
            unit = part[t]
            if unit >= 0:
                numbers[unit] += parts[t] * (factor[0] if alike else factor[tensor[unit]])


@nb.njit(cache=True, nogil=True)
def _kept(row, alive, at, base, found):
    """Where the kept weights of a row read, found[:k], of those that are alive: k."""
    k = 0
    for w in range(len(row)):
        word = row[w] & alive[w]
        while word:
            found[k] = base + at[64 * w + _lowest_bit(word)]
            word &= word - np.uint64(1)
            k += 1
    return k


@nb.njit(cache=True, nogil=True)
def pull(words, alive, at, groups, apart, x, n, y):
    """y[o, t] = sum over kept weights c of output o of x[at[c] + group * apart + t], t < n."""
    each = words.shape[0] // groups
    found = np.empty(len(at), np.int64)
    for first in range(0, n, _PLACES):
        last = min(first + _PLACES, n)
        for o in range(words.shape[0]):
            kept = _kept(words[o], alive, at, o // each * apart, found)
            if n == 1:
                total = 0.0
                for k in range(kept):
                    total += x[found[k]]
                y[o, 0] = total
                continue
            out = y[o, first:last]
            for t in range(last - first):
                out[t] = 0.0
            for k in range(0, kept - 3, 4):  # four at a time: a number of y is loaded and stored a quarter as often
                a = x[found[k] + first : found[k] + last]
                b = x[found[k + 1] + first : found[k + 1] + last]
                c = x[found[k + 2] + first : found[k + 2] + last]
                d = x[found[k + 3] + first : found[k + 3] + last]
                for t in range(last - first):
                    out[t] += (a[t] + b[t]) + (c[t] + d[t])
            for k in range(kept // 4 * 4, kept):
                a = x[found[k] + first : found[k] + last]
                for t in range(last - first):
                    out[t] += a[t]


@nb.njit(cache=True, nogil=True)
def push(words, alive, at, groups, apart, ptr, b, x, z, sums):
    """Both ways through each kept weight c of each output o, t over the places of b, with from = at[c] + group * apart.

    z[from + t] += b[o, t]: the transpose of pull. sums (kept,), row by row: the sum over t of x[from + t] * b[o, t].
    ptr (rows,): how many are kept before each row. b (rows, n): n is a multiple of 8, and 0 beyond the places of
    the map; x and z have room for as many.
    """
    rows, n = words.shape[0], b.shape[1]
    flat, after = b.reshape(-1), np.empty(rows, np.int64)
    wide = 8 if n <= 64 else 1  # words whose strips stay in the nearest cache for all outputs; eight are read at once
    for k in range(len(sums)):
        sums[k] = 0.0
    for first in range(0, n, _PLACES):
        last = min(first + _PLACES, n)
        for o in range(rows):
            after[o] = ptr[o]
        for block in range(0, words.shape[1], wide):
            for o in range(rows):
                base, k = o // (rows // groups) * apart + first, after[o]
                for w in range(block, min(block + wide, words.shape[1])):
                    word = words[o, w]
                    while word:
                        bit = _lowest_bit(word)
                        if alive[w] >> np.uint64(bit) & np.uint64(1):
                            sums[k] += _meet(x, z, base + at[64 * w + bit], flat, o * n + first, last - first)
                        word &= word - np.uint64(1)
                        k += 1
                after[o] = k


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
