"""Wirings that need no model: a plain chain of layers, and layers that stand apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from topo.errors import WiringError
from topo.masks import MaskSet
from topo.wiring.steps import Layer
from topo.wiring.wiring import Wiring


def chain(masks: MaskSet) -> Wiring:
    """The wiring of a plain stack: each layer reads all units of the one before, in the order of `masks`.

    A layer may take m times as many inputs as the one before gives (a flatten: each channel becomes m features). A
    convolution of shape (c, 1, ...) on c units is depthwise. Residual connections leave no trace in masks, so this is
    an assumption, and the wiring's notes say so.

    >>> masks = topo.MaskSet({"a": np.array([[1, 1], [1, 0]]), "b": np.array([[1, 1]])})
    >>> [(layer.name, layer.reads.tolist()) for layer in topo.chain(masks).layers]
    [('a', [0, 1]), ('b', [2, 3])]

    Raises WiringError that names the two layers that do not fit.
    """
    names = list(masks)
    first = masks.rows(names[0]).shape
    inputs = np.arange(first[1], dtype=np.int32)
    units, start, steps = inputs, len(inputs), []
    for previous, name in zip([None, *names], names):
        shape = masks.rows(name).shape
        depthwise = len(shape) > 2 and shape[1] == 1 and len(units) > 1 and shape[0] % len(units) == 0
        taken = len(units) if depthwise else shape[1]
        if taken % len(units) or (taken != len(units) and len(shape) > 2):
            raise WiringError(
                f"'{name}' takes {shape[1]} inputs but the layer before it, '{previous}', gives {len(units)}; "
                "masks that are not a plain stack need their model"
            )
        kind = "conv" if len(shape) > 2 else "linear"
        steps.append(
            Layer(
                name,
                shape,
                units if taken == len(units) else np.repeat(units, taken // len(units)),
                start,
                kind,
                groups=len(units) if depthwise else 1,
                positions=1 if kind == "linear" else None,
            )
        )
        units = np.arange(start, start + shape[0], dtype=np.int32)
        start += shape[0]
    note = "wiring: a plain chain, assumed from the shapes; residual connections cannot be seen in masks"
    return Wiring(inputs, tuple(steps), units, notes=(note,))


def apart(masks: MaskSet, groups: Mapping[str, int] | None = None) -> Wiring:
    """A wiring in which no layer feeds another, for what looks at each layer alone. groups: of convolutions, else 1."""
    shapes = {name: masks.rows(name).shape for name in masks}
    split = {name: (groups or {}).get(name, 1) for name in shapes}
    widths = [shape[1] * split[name] for name, shape in shapes.items()]
    ends = np.cumsum(widths + [shape[0] for shape in shapes.values()], dtype=np.int32)
    units = np.split(np.arange(ends[-1], dtype=np.int32), ends[:-1])
    reads, writes = units[: len(shapes)], units[len(shapes) :]
    layers = tuple(
        Layer(name, shape, read, int(made[0]), "conv" if len(shape) > 2 else "linear", groups=split[name])
        for (name, shape), read, made in zip(shapes.items(), reads, writes)
    )
    return Wiring(np.concatenate(reads), layers, np.concatenate(writes))
