"""Building one layer of a balanced mask: fill tiers of value, deal units to columns, place them in bit rows.

A layer takes `inputs` channels (its rows here, as in the papers) to `outputs` channels (its columns), in groups; a
kernel, the pair (input, output) of one group, holds up to `kernel_size` units. Input i of the whole layer belongs to
group i // (inputs / groups), and its bits in the row of an output are (i mod inputs / groups) * kernel_size + tap.
"""

from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True)
def _copy(source, start, target, place, many):
    """target[place : place + many] = source[start : start + many]; as slices this takes the compiler two seconds."""
    for k in range(many):
        target[place + k] = source[start + k]


@nb.njit(cache=True, nogil=True)
def _level(lengths, start, stop, units, taken):
    """Share `units` over lengths[start:stop] as evenly as their caps allow; ones left over go to the first."""
    caps = np.sort(lengths[start:stop])
    many, left, level = stop - start, units, 0
    for k in range(many):
        step = caps[k] - level
        if step * (many - k) > left:
            level += left // (many - k)
            left -= left // (many - k) * (many - k)
            break
        left -= step * (many - k)
        level = caps[k]
    for k in range(start, stop):
        taken[k] = min(lengths[k], level)
        if left > 0 and lengths[k] > level:
            taken[k] += 1
            left -= 1


@nb.njit(cache=True, nogil=True)
def fill(slopes, lengths, ends, caps, even, taken):
    """slopes, lengths (n,), in groups that end at `ends`, slopes falling within each; caps (groups,) -> taken (n,).

    The most valuable caps[g] units of group g. Among equal slopes units are shared evenly if `even`, else in order.

    slopes [3, 2, 2, 1], lengths [2, 5, 5, 9], ends [4], caps [8] -> taken [2, 3, 3, 0]
    """
    start = 0
    for g in range(ends.size):
        left = caps[g]
        while start < ends[g]:
            stop, whole = start, 0
            while stop < ends[g] and slopes[stop] == slopes[start]:
                whole += lengths[stop]
                stop += 1
            if whole <= left:
                _copy(lengths, start, taken, start, stop - start)
                left -= whole
            elif even:
                _level(lengths, start, stop, left, taken)
                left = 0
            else:
                for k in range(start, stop):
                    taken[k] = min(lengths[k], left)
                    left -= taken[k]
            start = stop


@nb.njit(cache=True, nogil=True)
def _shuffle(cards, start, stop, rng):
    for k in range(stop - 1, start, -1):
        t = start + int(rng.random() * (k + 1 - start))
        cards[k], cards[t] = cards[t], cards[k]


@nb.njit(cache=True, nogil=True)
def _draw(deck, size, head, many, drawn, rng):
    """`many` different cards of deck[:size] into `drawn`; returns the new head.

    Cards are used up before the deck is shuffled again, so that no card is ever two uses ahead of another. A draw that
    goes beyond the end takes the rest, then cards that it does not hold yet.
    """
    rest = min(many, size - head)
    _copy(deck, head, drawn, 0, rest)
    if rest == many:
        return head + rest
    more, fresh = many - rest, size - rest  # deck[fresh:size] are the cards just drawn
    _shuffle(deck, 0, fresh, rng)
    _copy(deck, 0, drawn, rest, more)
    _shuffle(deck, more, size, rng)
    return more


@nb.njit(cache=True, nogil=True)
def _lightest_first(cards, start, stop, load, spare):
    """Cards of least load to the front of cards[start:stop], order kept otherwise."""
    if start >= stop:
        return
    least = load[cards[start]]
    for k in range(start, stop):
        least = min(least, load[cards[k]])
    front, back = start, 0
    for k in range(start, stop):
        if load[cards[k]] == least:
            cards[front] = cards[k]
            front += 1
        else:
            spare[back] = cards[k]
            back += 1
    _copy(spare, 0, cards, front, back)


@nb.njit(cache=True, nogil=True)
def deal(words, units, open_, kernel_size, groups, rng):
    """units (inputs,) int64, open_ (outputs,) bool -> words (outputs, w) uint64, which start as zeros.

    A random near-biregular layer: input i gets units[i] units, its kernels differ by at most one unit, and so do the
    open outputs of a group; kernel positions are used equally often. Cost per unit: two random numbers.

    units [1, 1], open_ [True, True], kernel_size 1 -> words [[1], [2]] or [[2], [1]]
    """
    inputs, outputs = units.size // groups, words.shape[0] // groups
    columns, drawn = np.empty(outputs, np.int64), np.empty(outputs, np.int64)
    order = np.arange(inputs)
    extra = np.zeros(outputs, np.bool_)
    positions, chosen, tap_head = np.arange(kernel_size), np.empty(kernel_size, np.int64), kernel_size
    for g in range(groups):
        size = 0
        for j in range(outputs):
            if open_[g * outputs + j]:
                columns[size] = j
                size += 1
        if size == 0:
            continue
        head = size
        _shuffle(order, 0, inputs, rng)
        for i in order:
            many = units[g * inputs + i]
            if many == 0:
                continue
            every, rest = many // size, many % size
            head = _draw(columns, size, head, rest, drawn, rng)
            if every > 0:
                for k in range(rest):
                    extra[drawn[k]] = True
            for k in range(size if every > 0 else rest):
                j = columns[k] if every > 0 else drawn[k]
                count = every + (1 if extra[j] else 0) if every > 0 else 1
                tap_head = _draw(positions, kernel_size, tap_head, count, chosen, rng)
                for t in range(count):
                    bit = i * kernel_size + chosen[t]
                    words[g * outputs + j, bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)
            if every > 0:
                extra[:] = False


@nb.njit(cache=True, nogil=True)
def deal_n_m(words, units, open_, kernel_size, groups, span, rng):
    """As `deal`, and the units of `span` consecutive inputs are spread evenly over the places (output, position).

    With at most N * outputs * kernel_size units for each span, every output keeps at most N of them at every position:
    N:M. The open outputs of a group differ by at most two units. inputs of a group / span, rounded up, spans a group.
    """
    inputs, outputs = units.size // groups, words.shape[0] // groups
    columns, drawn, spare = np.empty(outputs, np.int64), np.empty(outputs, np.int64), np.empty(outputs, np.int64)
    load, seen, offset = np.empty(outputs, np.int64), np.empty(outputs, np.int64), np.empty(outputs, np.int64)
    extra = np.zeros(outputs, np.bool_)
    positions = np.arange(kernel_size)
    for g in range(groups):
        size = 0
        for j in range(outputs):
            if open_[g * outputs + j]:
                columns[size] = j
                size += 1
        if size == 0:
            continue
        load[:] = 0
        for first in range(0, inputs, span):
            last = min(first + span, inputs)
            order = np.arange(first, last)
            _shuffle(order, 0, last - first, rng)
            _shuffle(positions, 0, kernel_size, rng)
            _shuffle(columns, 0, size, rng)
            _lightest_first(columns, 0, size, load, spare)
            head = 0
            for j in range(outputs):
                seen[j], offset[j] = 0, int(rng.random() * kernel_size)
            for i in order:
                many = units[g * inputs + i]
                if many == 0:
                    continue
                every, rest = many // size, many % size
                before = head
                head = _draw(columns, size, head, rest, drawn, rng)
                if before + rest > size:  # a new deck was begun
                    _lightest_first(columns, head, size, load, spare)
                for k in range(rest):
                    extra[drawn[k]] = True
                for k in range(size):
                    j = columns[k]
                    count = every + (1 if extra[j] else 0)
                    for _ in range(count):
                        bit = i * kernel_size + positions[(offset[j] + seen[j]) % kernel_size]
                        words[g * outputs + j, bit >> 6] |= np.uint64(1) << np.uint64(bit & 63)
                        seen[j] += 1
                    load[j] += count
                extra[:] = False


@nb.njit(cache=True, nogil=True)
def place(words, sources, targets, counts, kernel_size, inputs, rng):
    """(source, target, count) of each kernel -> words (outputs, w) uint64: count positions of it, used equally often.

    source: input channel of the whole layer, target: output channel. inputs: of one group. Positions that a kernel
    holds already stay, and further ones are added.

    sources [1], targets [0], counts [2], kernel_size 2, inputs 2 -> words [[0b1100]]
    """
    positions, chosen, head = np.arange(kernel_size), np.empty(kernel_size, np.int64), kernel_size
    for k in range(sources.size):
        base, left = (sources[k] % inputs) * kernel_size, counts[k]
        head = _draw(positions, kernel_size, head, left, chosen, rng)
        for t in range(left):
            bit = base + chosen[t]
            flag = np.uint64(1) << np.uint64(bit & 63)
            if words[targets[k], bit >> 6] & flag:  # taken: the next free position
                for shift in range(1, kernel_size):
                    bit = base + (chosen[t] + shift) % kernel_size
                    flag = np.uint64(1) << np.uint64(bit & 63)
                    if not words[targets[k], bit >> 6] & flag:
                        break
            words[targets[k], bit >> 6] |= flag
