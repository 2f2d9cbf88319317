"""Tied units: units that move together, because a join combines them, a depthwise layer or a shared parameter."""

from __future__ import annotations

import numpy as np

from topo._support.distinct import distinct
from topo.wiring.steps import Join, Layer
from topo.wiring.wiring import Wiring


def tied_units(wiring: Wiring, *, repeated: bool = True) -> np.ndarray:
    """The first of the units that each unit is tied to: int64 (n_units,); a unit that nothing ties stands for itself.

    Ties: the operands of an `add` or a `gate` and what they make, entry by entry; query and key of a `score`; input k
    and output k of a depthwise layer; inputs and outputs of two uses of one parameter. repeated: also the operands of a
    join that read a unit twice (a score that gates a whole head ties all units of the head).

    >>> from topo.wiring import Join, Layer
    >>> net = Wiring(np.arange(2), (Layer("w", (2, 2), [0, 1], 2), Join("add", ([2, 3], [0, 1]), 4)), [4, 5])
    >>> tied_units(net).tolist()
    [0, 1, 0, 1, 0, 1]
    """
    ties: list[tuple[np.ndarray, np.ndarray]] = []
    first: dict[str, Layer] = {}
    for step in wiring.steps:
        made = np.arange(step.start, step.stop)
        if isinstance(step, Join):
            if step.kind == "score":
                ties.append((step.operands[0], step.operands[1]))
            else:
                ties += [(units, made) for units in step.operands if repeated or len(distinct(units)) == len(units)]
            continue
        before = first.setdefault(step.name, step)
        if before is not step:
            sides = (step.reads, made) if step.axes == before.axes else (made, step.reads)  # W.T beside W
            pairs = zip((before.reads, np.arange(before.start, before.stop)), sides)
            ties += [pair for pair in pairs if len(pair[0]) == len(pair[1])]
        if step.groups > 1 and step.shape[1] == 1:
            ties.append((np.repeat(step.reads, step.outputs // step.groups), made))
    one, two = (np.concatenate([np.zeros(0, np.int64), *side]) for side in (zip(*ties) if ties else ((), ())))
    both = (one >= 0) & (two >= 0)
    return _first_of_each(wiring.n_units, one[both], two[both])


def _first_of_each(units: int, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """int64 (units,): the first unit of the connected component of each, of the graph with edges one[k] to two[k].

    Each round hangs the root of a component under the smallest root that an edge leads to, and makes all paths short:
    some log2(units) rounds. (scipy has the same, and takes as long to import as a small network to be solved.)

    >>> _first_of_each(5, np.array([4, 3]), np.array([3, 1])).tolist()
    [0, 1, 2, 1, 1]
    """
    first, before = np.arange(units), np.empty(0, np.int64)
    while not np.array_equal(first, before):
        before = first.copy()
        low = np.minimum(before[one], before[two])
        np.minimum.at(first, before[one], low)
        np.minimum.at(first, before[two], low)
        while not np.array_equal(first, shorter := first[first]):
            first = shorter
    return first
