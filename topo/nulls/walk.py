"""A walk through masks of the same degrees that leaves the set of effective units as it is.

A step trades pairs of rows, or of columns, of one layer (curveball) and stays where it was if another set of units
would be effective. Proposals are symmetric, so that all masks that the walk reaches are equally likely in the end.
Where whole layers of trades are seldom accepted, fewer pairs trade at a time: how many is measured on a walk of its
own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from threading import Lock

import numpy as np

from topo.generators.rewiring import expected_overlap, mixing
from topo.graph import build_graph, paths
from topo.kernels.rewire import trade
from topo.kernels.spectrum import transpose
from topo.masks import BitRows, MaskSet
from topo.wiring import Wiring

_TRIES = 8
_MOST = 400  # steps of a layer


@dataclass(frozen=True)
class Plan:
    """How a mask set is walked. share: of each layer's pairs, how many trade at a time. steps: of each layer.

    accepted: share of the steps that were, on a walk of its own; left: share of the weights that chance moves which lay
    in their places at its end beyond chance.
    """

    share: dict[str, float]
    steps: dict[str, int]
    accepted: float
    left: float


def _proposed(rows: BitRows, groups: int, share: float, rng: np.random.Generator) -> BitRows:
    """Rows or columns, whichever a coin says, of which a share trades in pairs; below 1 those of one group alone."""
    words, turn = rows.words.copy(), rng.random() < 0.5
    parts = np.split(words, groups)
    for part in parts if share == 1 else [parts[int(rng.integers(groups))]]:
        side = part
        if turn:
            side = np.empty((rows.columns, -(-len(part) // 64)), np.uint64)
            transpose(np.ascontiguousarray(part), side)
        busy = rng.permutation(np.flatnonzero(side.any(axis=1)))
        some = busy[: 2 * max(int(share * (len(busy) // 2)), 1)]
        if len(some) < 2:
            continue
        traded = side[some]
        trade(traded, 1, rng)
        side[some] = traded
        if turn:
            back = np.empty_like(part)
            transpose(side, back)
            part[:] = back
    return BitRows(rows.shape, words)


def _effective(wiring: Wiring, rows: dict[str, BitRows]) -> bytes:
    return paths.live(build_graph(MaskSet(rows), wiring)).effective.tobytes()


def walked(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> dict[str, BitRows]:
    """The masks at the end of a walk, as long as `plan` says."""
    how = plan(wiring, masks)
    return _walk(wiring, masks, how.share, how.steps, rng)[0]


def _walk(
    wiring: Wiring, masks: MaskSet, share: dict[str, float], steps: dict[str, int], rng: np.random.Generator
) -> tuple[dict[str, BitRows], int]:
    """Where a walk ends, and how many of its steps were accepted."""
    rows = {name: masks.rows(name) for name in masks}
    names, accepted, held = list(steps), 0, _effective(wiring, rows)
    for place in rng.permutation(np.repeat(np.arange(len(names)), list(steps.values()))):
        name = names[place]
        moved = {**rows, name: _proposed(rows[name], wiring.layer(name).groups, share[name], rng)}
        if _effective(wiring, moved) == held:
            rows, accepted = moved, accepted + 1
    return rows, accepted


_known: dict[bytes, Plan] = {}
_lock = Lock()


def plan(wiring: Wiring, masks: MaskSet) -> Plan:
    """How far these masks are walked, measured once in a process, with random numbers of its own."""
    found = hashlib.blake2b(repr([(name, shape) for name, shape in wiring.shapes.items()]).encode(), digest_size=16)
    for name in masks:
        found.update(name.encode() + masks.rows(name).words.tobytes())
    key = found.digest()
    with _lock:
        known = _known.get(key)
    if known is None:
        known = _measured(wiring, masks)
        with _lock:
            _known[key] = known
    return known


def _measured(wiring: Wiring, masks: MaskSet) -> Plan:
    rng, share, steps = np.random.default_rng(0), {}, {}
    rows = {name: masks.rows(name) for name in masks}
    held = _effective(wiring, rows)
    for name, own in rows.items():
        groups, part = wiring.layer(name).groups, 1.0
        pairs = max(len(own.words), own.columns) / 2
        while part * pairs > 1:
            tries = [{**rows, name: _proposed(own, groups, part, rng)} for _ in range(_TRIES)]
            if sum(_effective(wiring, moved) == held for moved in tries) >= _TRIES // 4:
                break
            part /= 4
        rounds = mixing(own, groups).rounds if own.kept() else 0
        share[name], steps[name] = part, min(int(2 * rounds / part), _MOST)
    ended, accepted = _walk(wiring, masks, share, steps, rng)
    by_chance = {name: expected_overlap(own, wiring.layer(name).groups) for name, own in rows.items() if own.kept()}
    free = sum(rows[name].kept() - by_chance[name] for name in by_chance)
    over = sum(int(np.bitwise_count(ended[n].words & rows[n].words).sum()) - chance for n, chance in by_chance.items())
    return Plan(share, steps, accepted / max(sum(steps.values()), 1), max(over, 0.0) / free if free >= 0.5 else 0.0)
