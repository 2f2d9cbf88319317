"""Which kept weights lie on a path from an input to an output: reachability over the steps of a wiring, one at a time.

Forward: a layer's output is live if a kept weight joins it to a live unit; an `add` if any operand is, a `gate` if
all are, a `score` if for some entry both query and key are. Backward: a layer's input is needed if a kept weight
joins it to a needed output; the operands of an `add` are needed with it, an operand of a `gate` where the others are
live, the query of a `score` where its key is live and the other way round. Where an operand has no unit there is
nothing (-1), which adds nothing to a sum and closes a product, or a constant (-2), which is always live.
"""

from __future__ import annotations

import numpy as np

from topo.wiring import CONSTANT, Layer, Wiring


def _laid_out(layer, mask):
    """The mask as this use of the layer has it: its axes in their order, without what takes no part."""
    if layer.axes is not None:
        mask = mask.transpose(layer.axes).reshape(layer.shape)
    rows, columns = layer.part
    mask = mask & rows.reshape(-1, *[1] * (mask.ndim - 1)) & columns.reshape(1, -1, *[1] * (mask.ndim - 2))
    return mask if layer.pattern is None else mask & layer.pattern.unpack()


def _as_mask(layer, found):
    if layer.axes is None:
        return found
    return found.reshape([layer.own[axis] for axis in layer.axes]).transpose(np.argsort(layer.axes))


def _blocks(layer, mask):
    """(rows, columns, kept) of each group: which output, which entry of `reads`, is there a kept weight."""
    per_out, per_in = layer.shape[0] // layer.groups, layer.shape[1]
    kept = mask.reshape(*layer.shape[:2], -1).any(2)
    for g in range(layer.groups):
        rows = slice(g * per_out, (g + 1) * per_out)
        yield rows, slice(g * per_in, (g + 1) * per_in), kept[rows]


def _at(flags, units):
    return np.where(units >= 0, flags[units], units == CONSTANT)


def effective(wiring: Wiring, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Per parameter a bool array of its mask's shape: kept, and on a path. Layers without a mask are dense."""
    live = np.zeros(wiring.n_units, bool)
    live[wiring.inputs] = True
    kept = {name: masks.get(name, np.ones(shape, bool)) for name, shape in wiring.shapes.items()}
    for step in wiring.steps:
        made = slice(step.start, step.stop)
        if isinstance(step, Layer):
            source = _at(live, step.reads)
            for rows, columns, block in _blocks(step, _laid_out(step, kept[step.name])):
                live[made][rows] = (block & source[columns]).any(1)
        elif step.kind == "add":
            live[made] = np.any([_at(live, operand) for operand in step.operands], axis=0)
        elif step.kind == "gate":
            live[made] = np.all([_at(live, operand) for operand in step.operands], axis=0)
        else:
            query, key = (_at(live, operand).reshape(-1, step.width) for operand in step.operands)
            live[made] = (query & key).any(1)
    needed = np.zeros(wiring.n_units, bool)
    needed[wiring.outputs] = True
    found = {name: np.zeros(shape, bool) for name, shape in wiring.shapes.items()}
    for step in reversed(wiring.steps):
        want = needed[step.start : step.stop]
        if isinstance(step, Layer):
            source = _at(live, step.reads)
            mask = _laid_out(step, kept[step.name])
            whole, mine = mask.reshape(*step.shape[:2], -1), np.zeros(step.shape, bool)
            for rows, columns, block in _blocks(step, mask):
                read = (block & want[rows, None]).any(0)
                units = step.reads[columns][read]
                needed[units[units >= 0]] = True
                on = want[rows, None] & source[columns]
                mine.reshape(whole.shape)[rows] = whole[rows] & on[:, :, None]
            found[step.name] |= _as_mask(step, mine)
            continue
        wants = np.repeat(want, step.width)
        for at, operand in enumerate(step.operands):
            others = [o for i, o in enumerate(step.operands) if i != at]
            use = wants & (operand >= 0)
            if step.kind != "add":
                use &= np.all([_at(live, other) for other in others], axis=0)
            needed[operand[use]] = True
    return found
