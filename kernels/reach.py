"""Reachability over a network on bit rows: booleans, never counts, so nothing underflows or overflows.

A pass takes steps `first` to `last` of a table (topo.wiring.table.Table: a row a step, its columns below) with the
words of their layers, one behind the other. Columns of a grouped layer belong to its group; a layer without groups is
one group.
"""

from __future__ import annotations

import numba as nb
import numpy as np

KIND, START, STOP, READ, READ_STOP, OPERANDS, GROUPS, KERNEL_SIZE, WIDTH, WORDS = range(10)
LAYER, ADD, GATE, SCORE, SOURCE = range(5)


@nb.njit(no_cpython_wrapper=True)
def mark_columns(flags, units, kernel_size, columns):
    """flags (n,) bool, units (in,) int32 -> columns (w,) uint64: every weight column of a flagged input channel.

    flags [False, True], units [1, 0], kernel_size 2 -> columns [0b0011]
    """
    columns[:] = 0
    for j in range(len(units)):
        if flags[units[j]]:
            at, stop = j * kernel_size, (j + 1) * kernel_size
            while at < stop:
                many = min(64 - (at & 63), stop - at)
                columns[at >> 6] |= (~np.uint64(0) >> np.uint64(64 - many)) << np.uint64(at & 63)
                at += many


@nb.njit(no_cpython_wrapper=True)
def has_column(columns, j, kernel_size):
    """columns (w,) uint64 -> whether a weight column of input channel j is flagged.

    columns [0b0100], j 1, kernel_size 2 -> True
    """
    at, stop = j * kernel_size, (j + 1) * kernel_size
    while at < stop:
        many = min(64 - (at & 63), stop - at)
        if columns[at >> 6] & ((~np.uint64(0) >> np.uint64(64 - many)) << np.uint64(at & 63)):
            return True
        at += many
    return False


@nb.njit(cache=True, nogil=True)
def reach_forward(steps, reads, words, first, last, live):
    """live (units + 2,) bool, the last one, nothing, False, the one before it, a constant, True: fills the units of the
    steps that a live unit or a constant reaches.

    A row of a layer is live if it has a kept weight at a live unit; an add if any operand is, a gate if all are, a
    score if all are in any of its entries; a source always.
    """
    for k in range(first, last):
        start, stop, read = steps[k, START], steps[k, STOP], steps[k, READ]
        many = (steps[k, READ_STOP] - read) // steps[k, OPERANDS]
        if steps[k, KIND] == SOURCE:
            live[start:stop] = True
        elif steps[k, KIND] == LAYER:
            rows, width, channels = (stop - start) // steps[k, GROUPS], steps[k, WIDTH], many // steps[k, GROUPS]
            columns = np.empty(width, np.uint64)
            at = steps[k, WORDS] - steps[first, WORDS]
            for g in range(steps[k, GROUPS]):
                behind = reads[read + g * channels : read + (g + 1) * channels]
                mark_columns(live, behind, steps[k, KERNEL_SIZE], columns)
                for i in range(start + g * rows, start + (g + 1) * rows):
                    live[i] = False
                    for w in range(width):
                        if words[at + w] & columns[w]:
                            live[i] = True
                            break
                    at += width
        else:
            live[start:stop] = False
            for i in range(many):
                found = steps[k, KIND] != ADD
                for o in range(steps[k, OPERANDS]):
                    if live[reads[read + o * many + i]] != found:
                        found = not found
                        break
                if found:
                    live[start + i // steps[k, WIDTH]] = True


@nb.njit(cache=True, nogil=True)
def reach_backward(steps, reads, words, first, last, live, ahead):
    """ahead (units + 2,) bool: marks the units from which a path leads on to a marked unit of the steps.

    live: as `reach_forward` fills it; a factor of a product leads on only where the others are live.
    """
    for k in range(last - 1, first - 1, -1):
        start, stop, read = steps[k, START], steps[k, STOP], steps[k, READ]
        many = (steps[k, READ_STOP] - read) // steps[k, OPERANDS]
        if steps[k, KIND] == LAYER:
            rows, width, channels = (stop - start) // steps[k, GROUPS], steps[k, WIDTH], many // steps[k, GROUPS]
            columns = np.empty(width, np.uint64)
            at = steps[k, WORDS] - steps[first, WORDS]
            for g in range(steps[k, GROUPS]):
                columns[:] = 0
                for i in range(start + g * rows, start + (g + 1) * rows):
                    if ahead[i]:
                        for w in range(width):
                            columns[w] |= words[at + w]
                    at += width
                for j in range(channels):
                    unit = reads[read + g * channels + j]
                    if unit >= 0 and has_column(columns, j, steps[k, KERNEL_SIZE]):
                        ahead[unit] = True
        elif steps[k, KIND] != SOURCE:
            for i in range(many):
                if ahead[start + i // steps[k, WIDTH]]:
                    for o in range(steps[k, OPERANDS]):
                        unit = reads[read + o * many + i]
                        leads = unit >= 0
                        for other in range(steps[k, OPERANDS]):
                            if steps[k, KIND] != ADD and other != o:
                                leads &= live[reads[read + other * many + i]]
                        if leads:
                            ahead[unit] = True


@nb.njit(cache=True, nogil=True)
def effective(steps, reads, words, first, last, live, ahead, out, used):
    """live, ahead (units + 2,) bool -> out, like words: the kept weights that join a live unit to one that leads on.

    used (steps,) int64: of each layer, how many distinct units it reads with one of them.
    """
    for k in range(first, last):
        if steps[k, KIND] != LAYER:
            continue
        start, read, groups = steps[k, START], steps[k, READ], steps[k, GROUPS]
        rows, channels = (steps[k, STOP] - start) // groups, (steps[k, READ_STOP] - read) // groups
        width = steps[k, WIDTH]
        columns, met = np.empty(width, np.uint64), np.empty(width, np.uint64)
        at = steps[k, WORDS] - steps[first, WORDS]
        low, high = len(live), 0
        for unit in reads[read : read + groups * channels]:
            if unit >= 0:
                low, high = min(low, unit), max(high, unit + 1)
        seen = np.empty(max(high - low, 0), np.bool_)
        seen[:] = False
        used[k] = 0
        for g in range(groups):
            behind = reads[read + g * channels : read + (g + 1) * channels]
            mark_columns(live, behind, steps[k, KERNEL_SIZE], columns)
            met[:] = 0
            for i in range(start + g * rows, start + (g + 1) * rows):
                for w in range(width):
                    word = words[at + w] & columns[w] if ahead[i] else np.uint64(0)
                    out[at + w] = word
                    met[w] |= word
                at += width
            for j in range(channels):
                unit = reads[read + g * channels + j]
                if unit >= 0 and has_column(met, j, steps[k, KERNEL_SIZE]) and not seen[unit - low]:
                    seen[unit - low] = True
                    used[k] += 1
