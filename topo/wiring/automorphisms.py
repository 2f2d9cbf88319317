"""Automorphisms of a wiring: hidden units renumbered at random so that every layer stays the layer that it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from topo.wiring.steps import CONSTANT, NOTHING, Join, Layer, Step
from topo.wiring.tied_units import tied_units
from topo.wiring.wiring import Wiring


def renumbering(wiring: Wiring, rng: np.random.Generator) -> np.ndarray:
    """A random automorphism of the wiring: int64 (n_units,), unit -> unit; inputs and outputs stay.

    Tied units (`tied_units`: those of a residual stream, one channel through all its blocks) move together. Sets of
    tied units with the same number of units at the same steps change places at random. Each step is then checked; where
    sets do not fit into each other's places (a join that crosses them), those at that step stay, and the rest is drawn
    again. Attention heads, the groups of grouped convolutions and units gated by one score keep their places, so that
    automorphisms which move these are never drawn.
    """
    tied = tied_units(wiring)
    fixed = np.zeros(wiring.n_units, np.bool_)
    fixed[wiring.inputs] = fixed[wiring.outputs] = True
    while True:
        units = _exchanged(tied, _roles(wiring, fixed), rng)
        broken = list(_broken(wiring, units))
        if not broken:
            return units
        for step in broken:
            fixed[step.start : step.stop] = True
            for read in step.operands:
                fixed[read[read >= 0]] = True


def _broken(wiring: Wiring, units: np.ndarray) -> Iterator[Step]:
    """Steps at which `units` is not an automorphism; of a parameter that is used twice, both if they move apart."""
    first: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for step in wiring.steps:
        moved = moved_by(step, units)
        if moved is None:
            yield step
        elif isinstance(step, Layer):
            moved = moved[::-1] if step.axes != wiring.layer(step.name).axes else moved
            before = first.setdefault(step.name, moved)
            still = all(np.array_equal(side, np.arange(len(side))) for side in (*moved, *before))
            if not still and not all(map(np.array_equal, moved, before)):
                yield from (wiring.layer(step.name), step)


def _roles(wiring: Wiring, fixed: np.ndarray) -> np.ndarray:
    """uint64 (n_units,): a sum of hashes of where each unit is made and read; fixed ones have their own."""
    roles = np.zeros(wiring.n_units, np.uint64)
    roles[fixed] = _hash(0, 0, 0, np.flatnonzero(fixed))

    def enter(units: np.ndarray, *role: Any) -> None:
        known = units >= 0
        np.add.at(roles, units[known], np.broadcast_to(_hash(*role), units.shape)[known])

    for at, step in enumerate(wiring.steps):
        made = np.arange(step.start, step.stop)
        if isinstance(step, Join):
            score = step.kind == "score"
            enter(made, 1, at, 0, np.arange(step.outputs) if score else 0)
            for number, operand in enumerate(step.operands):
                enter(operand, 2, at, number, np.arange(len(operand)) // step.width if score else 0)
        else:
            grouped = step.groups if step.shape[1] > 1 else 1
            enter(made, 1, at, 0, np.arange(step.outputs) // (step.outputs // grouped))
            enter(step.reads, 2, at, 0, np.arange(len(step.reads)) // (len(step.reads) // grouped))
    return roles


def _hash(*parts: Any) -> np.ndarray:
    """uint64 of whole numbers and arrays of them; a collision is found when steps are checked."""
    value = np.zeros(1, np.uint64)
    for part in parts:
        value = (value ^ np.asarray(part, np.uint64)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0xD1B54A32D192ED03)
        value ^= value >> np.uint64(29)
        value = value * np.uint64(0xBF58476D1CE4E5B9)
        value ^= value >> np.uint64(32)
    return value


def _exchanged(tied: np.ndarray, roles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """unit -> unit: sets of tied units of equal roles exchanged at random, the units of a set in their order."""
    order = np.argsort(tied, kind="stable")
    _, begin, size = np.unique(tied[order], return_index=True, return_counts=True)
    kind = np.add.reduceat(roles[order], begin) ^ _hash(size)
    units = np.arange(len(tied))
    alike = np.argsort(kind, kind="stable")
    for members in np.split(alike, np.flatnonzero(np.diff(kind[alike])) + 1):
        if len(members) > 1:
            table = order[begin[members][:, None] + np.arange(size[members[0]])]
            units[table] = table[rng.permutation(len(members))]
    return units


def moved_by(step: Step, units: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Where each made unit and each place of what is read goes, within the step; None if they do not fit there."""
    there = np.append(units, (CONSTANT, NOTHING))  # what is not a unit stays
    made = units[step.start : step.stop] - step.start
    if made.min() < 0 or made.max() >= step.outputs:
        return None
    if isinstance(step, Join):
        return (made, made) if _join_fits(step, made, there) else None
    reads = np.empty(len(step.reads), np.int64)
    target = there[step.reads]
    places, moved = np.argsort(step.reads, kind="stable"), np.argsort(target, kind="stable")
    if not np.array_equal(step.reads[places], target[moved]):
        return None
    reads[moved] = places  # the k-th place of a unit goes to the k-th place of the unit that it becomes
    if step.groups > 1:
        into = reads.reshape(step.groups, -1) // step.shape[1]
        rows = made.reshape(step.groups, -1) // (step.outputs // step.groups)
        if (into != into[:, :1]).any() or (rows != into[:, :1]).any():
            return None
    if step.pattern is not None:
        kept = step.pattern.unpack()
        if step.groups > 1 or not np.array_equal(kept, kept[made][:, reads]):
            return None
    return made, reads


def _join_fits(join: Join, made: np.ndarray, there: np.ndarray) -> bool:
    """Whether what unit i is made from becomes what unit made[i] is made from."""
    before = np.stack([there[operand] for operand in join.operands])
    after = np.stack(join.operands).astype(np.int64)
    head = np.arange(before.shape[1]) // join.width
    if join.kind != "score":
        return np.array_equal(after[:, made], before)
    one, two = (np.lexsort((*pairs, heads)) for pairs, heads in ((before, made[head]), (after, head)))
    return np.array_equal(before[:, one], after[:, two]) and np.array_equal(made[head][one], head[two])
