"""Path counts: a pull (each output of a layer sums its inputs) and a push (each input sums its outputs).

A layer comes as bit rows, one bit a kept weight, or as a matrix of multiplicities. Sums are of non-negative float64.

A pass takes steps `first` to `last` of a table (topo.wiring.table.Table: a row a step, its columns below) with the
words of their layers, one behind the other. Units made together share a power of two: a count is mantissa[unit] *
2**exponent[group_of[unit]], step k makes group k + 1, the network's inputs are group 0. Once a pass is through with a
step, the largest mantissa of its group is in [0.5, 1), or all are 0 and the exponent is NEVER.

Without a wrapper for Python stand the functions that only kernels call: they compile in two thirds of the time.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

KIND, START, STOP, READ, READ_STOP, OPERANDS, GROUPS, KERNEL_SIZE, WIDTH, WORDS = range(10)
LAYER, ADD, GATE, SCORE, SOURCE = range(5)
NEVER = -(1 << 40)  # exponent of zeros: smaller than any other, and differences stay far from overflow


@nb.njit(cache=True, nogil=True)
def pull_bits(words, x, y):
    """words (rows, w) uint64, x (64 w,) float64 -> y (rows,): y[i] = sum over set bits j of row i of x[j].

    The sums of all 256 subsets of 8 columns are tabulated, so that a row costs a look-up a byte whatever its density.
    Eight tables, a word's, take 16 KiB: they stay in the first-level cache. The sum of a word is a tree, not a chain:
    measured, three times as fast.

    words [[0b101]], x [1, 2, 4, 0, ...] -> y [5]
    """
    rows, columns = words.shape
    table = np.empty((8, 256))
    y[:] = 0.0
    for w in range(columns):
        for byte in range(8):
            sums = table[byte]
            sums[0] = 0.0
            for bit in range(8):
                value = x[64 * w + 8 * byte + bit]
                for code in range(1 << bit):
                    sums[(1 << bit) + code] = sums[code] + value
        for i in range(rows):
            word = words[i, w]
            y[i] += (
                (table[0, word & 255] + table[1, word >> 8 & 255])
                + (table[2, word >> 16 & 255] + table[3, word >> 24 & 255])
            ) + (
                (table[4, word >> 32 & 255] + table[5, word >> 40 & 255])
                + (table[6, word >> 48 & 255] + table[7, word >> 56])
            )


@nb.njit(cache=True, nogil=True)
def push_bits(words, b, z):
    """words (rows, w) uint64, b (rows,) float64 -> z (64 w,): z[j] = sum over rows i that have bit j of b[i].

    Rows are summed by the value of each byte first; the 256 sums of a byte are then folded into its 8 columns. For few
    rows the folding is the work: then by half bytes, of 16 sums each (measured, up to four times as fast).

    words [[0b101], [0b001]], b [2, 3] -> z [5, 0, 2, 0, ...]
    """
    if len(words) < 256:
        _push_half_bytes(words, b, z)
        return
    rows, columns = words.shape
    table = np.empty((8, 256))
    for w in range(columns):
        table[:] = 0.0
        for i in range(rows):
            value, word = b[i], words[i, w]
            if value != 0.0:
                for n in range(8):
                    table[n, word & np.uint64(255)] += value
                    word >>= np.uint64(8)
        for byte in range(8):
            sums = table[byte]
            for bit in range(7, -1, -1):
                half = 1 << bit
                total = 0.0
                for code in range(half):
                    total += sums[half + code]
                    sums[code] += sums[half + code]
                z[64 * w + 8 * byte + bit] = total


@nb.njit(no_cpython_wrapper=True)
def _push_half_bytes(words, b, z):
    """As `push_bits`."""
    rows, columns = words.shape
    table = np.empty((16, 16))
    for w in range(columns):
        table[:] = 0.0
        for i in range(rows):
            value, word = b[i], words[i, w]
            if value != 0.0:
                for n in range(16):
                    table[n, word & np.uint64(15)] += value
                    word >>= np.uint64(4)
        for n in range(16):
            s, j = table[n], 64 * w + 4 * n
            z[j] = ((s[1] + s[3]) + (s[5] + s[7])) + ((s[9] + s[11]) + (s[13] + s[15]))
            z[j + 1] = ((s[2] + s[3]) + (s[6] + s[7])) + ((s[10] + s[11]) + (s[14] + s[15]))
            z[j + 2] = ((s[4] + s[5]) + (s[6] + s[7])) + ((s[12] + s[13]) + (s[14] + s[15]))
            z[j + 3] = ((s[8] + s[9]) + (s[10] + s[11])) + ((s[12] + s[13]) + (s[14] + s[15]))


@nb.njit(cache=True, nogil=True)
def pull_counts(counts, rows_per_group, x, y):
    """counts (rows, c) uint16, x (groups * c,) float64 -> y (rows,): y[i] = sum_j counts[i, j] x[g c + j].

    Row i is of group g = i // rows_per_group.

    counts [[2, 1]], x [1, 3] -> y [5]
    """
    rows, columns = counts.shape
    for i in range(rows):
        base = (i // rows_per_group) * columns
        total = 0.0
        for j in range(columns):
            total += counts[i, j] * x[base + j]
        y[i] = total


@nb.njit(cache=True, nogil=True)
def push_counts(counts, rows_per_group, b, z):
    """counts (rows, c) uint16, b (rows,) float64 -> z (groups * c,): z[g c + j] = sum_i counts[i, j] b[i].

    The sum runs over the rows i of group g = i // rows_per_group.

    counts [[2, 1], [0, 1]], b [1, 3] -> z [2, 4]
    """
    rows, columns = counts.shape
    z[:] = 0.0
    for i in range(rows):
        base = (i // rows_per_group) * columns
        value = b[i]
        if value != 0.0:
            for j in range(columns):
                z[base + j] += counts[i, j] * value


@nb.njit(cache=True, nogil=True)
def shifted(value, shift):
    """value * 2**shift, 0 for a shift far below any number.

    3.0, -1 -> 1.5
    """
    return math.ldexp(value, int(max(shift, -3000))) if shift else value


@nb.njit(cache=True, nogil=True)
def normalise(values, exponent):
    """values (n,) float64: divides by the power of two that brings the largest into [0.5, 1) -> the new exponent.

    [3, 1], exponent 5 -> values [0.75, 0.25], 7
    """
    largest = 0.0
    for value in values:
        largest = max(largest, value)
    if largest == 0.0:
        return NEVER
    shift = math.frexp(largest)[1]
    half = -shift // 2  # in two factors: 2**1074 is not a float64
    a, b = math.ldexp(1.0, half), math.ldexp(1.0, -shift - half)
    for i in range(len(values)):
        values[i] = values[i] * a * b
    return exponent + shift


@nb.njit(no_cpython_wrapper=True)
def close(values, flags, start):
    """values (n,) become 0 where flags[start + i] is not set."""
    for i in range(len(values)):
        if not flags[start + i]:
            values[i] = 0.0


@nb.njit(no_cpython_wrapper=True)
def top_exponent(units, group_of, mantissa, exponent):
    """The least e with every count of these units below 2**e; NEVER if all are 0 or no unit (-1)."""
    top, group, largest = NEVER, -1, 0.0
    for unit in units:
        if unit >= 0:
            if group_of[unit] != group:
                if largest > 0.0:
                    top = max(top, exponent[group] + math.frexp(largest)[1])
                group, largest = group_of[unit], 0.0
            largest = max(largest, mantissa[unit])
    return max(top, exponent[group] + math.frexp(largest)[1]) if largest > 0.0 else top


@nb.njit(no_cpython_wrapper=True)
def gather(units, group_of, mantissa, exponent, top, out):
    """out (len(units),) += the counts of the units, over 2**top."""
    for j in range(len(units)):
        if units[j] >= 0:
            out[j] += shifted(mantissa[units[j]], exponent[group_of[units[j]]] - top)


@nb.njit(no_cpython_wrapper=True)
def raise_exponent(group, needed, steps, inputs, mantissa, exponent):
    """Counts of a group over a larger power of two. Its units: of the step that makes them, or `inputs` of group 0."""
    shift = exponent[group] - needed
    if exponent[group] != NEVER and group == 0:
        for unit in inputs:
            mantissa[unit] = shifted(mantissa[unit], shift)
    elif exponent[group] != NEVER:
        for unit in range(steps[group - 1, START], steps[group - 1, STOP]):
            mantissa[unit] = shifted(mantissa[unit], shift)
    exponent[group] = needed


@nb.njit(no_cpython_wrapper=True)
def give(units, values, top, steps, inputs, group_of, mantissa, exponent):
    """Adds values * 2**top to the counts of the units, one run of units of the same group after the other."""
    j = 0
    while j < len(units):
        if units[j] < 0:
            j += 1
            continue
        group, stop, largest = group_of[units[j]], j, 0.0
        while stop < len(units) and units[stop] >= 0 and group_of[units[stop]] == group:
            largest = max(largest, values[stop])
            stop += 1
        if largest > 0.0:
            needed = top + math.frexp(largest)[1]
            if needed > exponent[group]:
                raise_exponent(group, needed, steps, inputs, mantissa, exponent)
            for i in range(j, stop):
                mantissa[units[i]] += shifted(values[i], top - exponent[group])
        j = stop


@nb.njit(no_cpython_wrapper=True)
def kept(words, i, j, kernel_size):
    """How many weights row i keeps in input channel j: the bits j kernel_size .. (j + 1) kernel_size - 1 of words[i].

    words [[0b1011]], i 0, j 0, kernel_size 2 -> 2
    """
    at, stop, count = j * kernel_size, (j + 1) * kernel_size, 0
    while at < stop:
        many = min(64 - (at & 63), stop - at)
        word = words[i, at >> 6] >> np.uint64(at & 63) << np.uint64(64 - many)
        while word:
            word &= word - np.uint64(1)  # its lowest bit goes
            count += 1
        at += many
    return count


@nb.njit(cache=True, nogil=True)
def pull_step(words, kernel_size, groups, x, y):
    """words (rows, w) uint64, x (in,) float64 -> y (rows,): y[i] = sum over input channels of their kept weights x.

    words [[0b111]], kernel_size 2, groups 1, x [1, 5] -> y [7]
    """
    rows, width = words.shape
    many = len(x) // groups
    if groups == 1:
        columns = np.empty(64 * width)
        columns[:] = 0.0
        for j in range(many):
            for t in range(kernel_size):
                columns[j * kernel_size + t] = x[j]
        pull_bits(words, columns, y)
        return
    for i in range(rows):
        base, total = i // (rows // groups) * many, 0.0
        for j in range(many):
            total += kept(words, i, j, kernel_size) * x[base + j]
        y[i] = total


@nb.njit(cache=True, nogil=True)
def push_step(words, kernel_size, groups, b, z):
    """words (rows, w) uint64, b (rows,) float64 -> z (in,): z[j] = sum over rows of their kept weights in channel j b.

    words [[0b111]], kernel_size 2, groups 1, b [3] -> z [6, 3]
    """
    rows, width = words.shape
    many = len(z) // groups
    z[:] = 0.0
    if groups == 1:
        columns = np.empty(64 * width)
        push_bits(words, b, columns)
        for j in range(many):
            for t in range(kernel_size):
                z[j] += columns[j * kernel_size + t]
        return
    for i in range(rows):
        base = i // (rows // groups) * many
        if b[i] != 0.0:
            for j in range(many):
                z[base + j] += kept(words, i, j, kernel_size) * b[i]


@nb.njit(cache=True, nogil=True)
def begin(units, group_of, mantissa, exponent):
    """mantissa (units + 2,), exponent (steps + 1,): the counts before a pass, 1 of these units and 0 of all others.

    units [1], group_of [0, 1, -1, -1] -> mantissa [0, 1, 0, 0], exponent [NEVER, 0]
    """
    mantissa[:] = 0.0
    for group in range(len(exponent)):
        exponent[group] = NEVER
    for unit in units:
        mantissa[unit], exponent[group_of[unit]] = 1.0, 0


@nb.njit(cache=True, nogil=True)
def count_forward(steps, reads, words, first, last, group_of, live, only, mantissa, exponent, passed, passed_exponent):
    """mantissa (units + 2,), exponent (steps + 1,): fills the counts of paths from the inputs to what the steps make.

    On entry they hold those of the units before. passed, like reads, and passed_exponent (steps,): the counts that each
    layer reads. live (units + 2,) bool closes gates; only, likewise or empty: the units that paths may meet. Value
    branches of gates count, scores carry no path.
    """
    for k in range(first, last):
        start, stop, read, read_stop = steps[k, START], steps[k, STOP], steps[k, READ], steps[k, READ_STOP]
        kind, made, top = steps[k, KIND], mantissa[start:stop], 0
        if kind == SOURCE:
            made[:] = 1.0
        elif kind == LAYER:
            units, x = reads[read:read_stop], passed[read:read_stop]
            top = passed_exponent[k] = top_exponent(units, group_of, mantissa, exponent)
            x[:] = 0.0
            gather(units, group_of, mantissa, exponent, top, x)
            word, width = steps[k, WORDS] - steps[first, WORDS], steps[k, WIDTH]
            rows = words[word : word + (stop - start) * width].reshape(stop - start, width)
            pull_step(rows, steps[k, KERNEL_SIZE], steps[k, GROUPS], x, made)
        else:
            made[:] = 0.0
            many = stop - start
            counted = 0 if kind == SCORE else 1 if kind == GATE else steps[k, OPERANDS]
            top = top_exponent(reads[read : read + counted * many], group_of, mantissa, exponent)
            for o in range(counted):
                gather(reads[read + o * many : read + (o + 1) * many], group_of, mantissa, exponent, top, made)
            if kind == GATE:
                close(made, live, start)
        if len(only):
            close(made, only, start)
        exponent[k + 1] = normalise(made, top)


@nb.njit(cache=True, nogil=True)
def count_backward(
    steps, reads, words, first, last, group_of, inputs, live, only, mantissa, exponent, passed, passed_exponent
):
    """As count_forward, of the paths from each unit to the outputs: on entry the outputs count 1, all others 0.

    passed: what each layer gives back to its inputs. inputs int32: the network's input units.
    """
    for k in range(last - 1, first - 1, -1):
        start, stop, read, read_stop = steps[k, START], steps[k, STOP], steps[k, READ], steps[k, READ_STOP]
        kind, made = steps[k, KIND], mantissa[start:stop]
        if len(only):
            close(made, only, start)
        top = exponent[k + 1] = normalise(made, exponent[k + 1])
        if kind == LAYER:
            word, width, z = steps[k, WORDS] - steps[first, WORDS], steps[k, WIDTH], passed[read:read_stop]
            rows = words[word : word + (stop - start) * width].reshape(stop - start, width)
            push_step(rows, steps[k, KERNEL_SIZE], steps[k, GROUPS], made, z)
            top = passed_exponent[k] = normalise(z, top)
            give(reads[read:read_stop], z, top, steps, inputs, group_of, mantissa, exponent)
        elif kind == ADD or kind == GATE:
            many, counted = stop - start, steps[k, OPERANDS]
            if kind == GATE:
                made, counted = made.copy(), 1
                close(made, live, start)
            for o in range(counted):
                units = reads[read + o * many : read + (o + 1) * many]
                give(units, made, top, steps, inputs, group_of, mantissa, exponent)
