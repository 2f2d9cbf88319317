"""Which unit of one mask set is which unit of another: layer by layer, at the least difference of what feeds them.

Units that sums and gates pair are one strand, and move together. Inputs and outputs stay. Of units that are equally far
the one is taken whose surroundings, forwards and backwards, are the same (colours that are refined a few times).
"""

from __future__ import annotations

import numpy as np

from topo.graph.graph import used_bits
from topo.masks import MaskSet
from topo.wiring import Join, Layer, Wiring

_ROUNDS = 6
_COLOURS = 1 << 20  # sums of colours stay exact in float64


def strands(wiring: Wiring) -> np.ndarray:
    """int64 (units,): the lowest unit that each moves with."""
    found = np.arange(wiring.n_units)

    def top(unit: int) -> int:
        while found[unit] != unit:
            found[unit] = found[found[unit]]
            unit = int(found[unit])
        return unit

    for step in wiring.steps:
        if isinstance(step, Join):
            operands = [operand.tolist() for operand in step.operands]
            if step.width == 1:
                operands.append(list(range(step.start, step.start + len(operands[0]))))
            for units in zip(*operands):
                tops = [top(unit) for unit in units if unit >= 0]
                for one in tops:
                    found[one] = min(tops)
    return np.array([top(unit) for unit in range(wiring.n_units)])


def _matrix(masks: MaskSet, layer: Layer) -> np.ndarray:
    """float64 (out, in / groups, positions): the kept weights of one use, dense without a mask."""
    shape = (*layer.shape[:2], -1)
    if layer.name not in masks:
        return np.ones((*layer.shape[:2], int(np.prod(layer.shape[2:]))))
    return used_bits(layer.laid_out(masks.rows(layer.name)), layer).unpack().reshape(shape).astype(np.float64)


def _mixed(*numbers: np.ndarray) -> np.ndarray:
    """Colours of rows of whole numbers, as good as random."""
    found = np.zeros(numbers[0].shape, np.uint64)
    with np.errstate(over="ignore"):
        for number in numbers:
            found = (found ^ number.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            found ^= found >> np.uint64(29)
            found *= np.uint64(0xBF58476D1CE4E5B9)
    return (found >> np.uint64(40)).astype(np.int64) % _COLOURS


def _colours(masks: MaskSet, wiring: Wiring, strand: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    colour = np.where(fixed, _mixed(np.arange(len(strand))), 0)
    layers = [(k, step, _matrix(masks, step)) for k, step in enumerate(wiring.steps) if isinstance(step, Layer)]
    for _ in range(_ROUNDS):
        sums = np.zeros((2, len(strand)))
        for k, step, kept in layers:
            per_group = step.shape[0] // step.groups
            own = colour[strand[step.start : step.start + step.shape[0]]]
            there = np.where(step.reads >= 0, colour[strand[step.reads]], 1).reshape(step.groups, -1)
            for group in range(step.groups):
                rows = slice(group * per_group, (group + 1) * per_group)
                for place in range(kept.shape[2]):
                    part = kept[rows, :, place]
                    label = np.full(1, k * 4096 + place)
                    fed = part @ _mixed(there[group], label.repeat(len(there[group])))
                    np.add.at(sums[0], strand[step.start + np.arange(rows.start, rows.stop)], fed)
                    leads = part.T @ _mixed(own[rows], label.repeat(per_group))
                    reads = step.reads.reshape(step.groups, -1)[group]
                    np.add.at(sums[1], strand[reads[reads >= 0]], leads[reads >= 0])
        colour = np.where(fixed, colour, _mixed(colour, *sums.astype(np.int64)))
    return colour


def matched_costs(a: MaskSet, b: MaskSet, wiring: Wiring) -> dict[str, np.ndarray]:
    """Layer -> how far each of its outputs of A is from the one of B it is matched with: Jaccard distance of what feeds
    them, under the matching of the layers before; 0 where nothing feeds both.

    Layers are those that both mask; others stand as complete, and have no cost of their own. A parameter that is used
    several times has the costs of every use, one after the other.

    Source: Liu et al., Topological Insights into Sparse Neural Networks, ECML 2020 (NNSTD).
    """
    from scipy.optimize import linear_sum_assignment

    strand = strands(wiring)
    fixed = np.zeros(wiring.n_units, np.bool_)
    fixed[strand[wiring.inputs]] = fixed[strand[wiring.outputs]] = True
    to = np.where(fixed, np.arange(wiring.n_units), -1)  # strand of B -> strand of A
    colours = [_colours(masks, wiring, strand, fixed) for masks in (a, b)]
    costs: dict[str, list[np.ndarray]] = {}
    for step in wiring.steps:
        if not isinstance(step, Layer):
            continue
        ours, theirs = _matrix(a, step), _matrix(b, step)
        per_group = step.shape[0] // step.groups
        for group in range(step.groups):
            rows = np.arange(group * per_group, (group + 1) * per_group)
            rows = rows[step.part[0][rows]]
            if not len(rows):
                continue
            reads = step.reads.reshape(step.groups, -1)[group]
            moved = theirs[rows][:, _columns(reads, strand, to)].reshape(len(rows), -1)
            own = ours[rows].reshape(len(rows), -1)
            both = own @ moved.T
            union = own.sum(axis=1)[:, None] + moved.sum(axis=1) - both
            cost = np.where(union > 0, 1 - both / np.maximum(union, 1), 0.0)
            made = strand[step.start + rows]
            partner = np.full(len(rows), -1)  # of each output of B, the output of A
            places = {int(unit): place for place, unit in enumerate(made)}
            for place, unit in enumerate(made):
                if to[unit] >= 0:
                    partner[place] = places.get(int(to[unit]), place)
            free = np.flatnonzero(partner < 0)
            left = np.setdiff1d(np.arange(len(rows)), partner)
            if len(free):
                differs = colours[0][made[left]][:, None] != colours[1][made[free]]
                chosen = linear_sum_assignment(cost[np.ix_(left, free)] + 1e-9 * differs)
                partner[free[chosen[1]]] = left[chosen[0]]
                to[made[free]] = made[partner[free]]
            if step.name in a and step.name in b:
                costs.setdefault(step.name, []).append(cost[partner, np.arange(len(rows))])
    return {name: np.concatenate(parts) for name, parts in costs.items()}


def _columns(reads: np.ndarray, strand: np.ndarray, to: np.ndarray) -> np.ndarray:
    """For each column of A the column of B that is matched with it; of a unit read twice the same time of reading."""
    where: dict[tuple[int, int], int] = {}
    seen: dict[int, int] = {}
    for column, unit in enumerate(reads.tolist()):
        target = int(to[strand[unit]]) if unit >= 0 else unit
        target = int(strand[unit]) if unit >= 0 and target < 0 else target  # matched with nothing: itself
        time = seen[target] = seen.get(target, -1) + 1
        where[target, time] = column
    found, seen = np.arange(len(reads)), {}
    for column, unit in enumerate(reads.tolist()):
        own = int(strand[unit]) if unit >= 0 else unit
        time = seen[own] = seen.get(own, -1) + 1
        found[column] = where.get((own, time), column)
    return found
