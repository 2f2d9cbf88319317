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
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

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
    n = wiring.n_units
    links = coo_matrix((np.ones(int(both.sum()), np.int8), (one[both], two[both])), shape=(n, n))
    _, label = connected_components(links, directed=False)
    _, begin = np.unique(label, return_index=True)
    return begin[label].astype(np.int64)
