"""compressed-tensors' sparse-bitmask and sparse-24-bitmask: bits, and the stored weights behind them.

`<w>.bitmask` is numpy.packbits(w != 0, axis=-1, bitorder="little"), `<w>.shape` the shape of w, `<w>.compressed` its
stored weights, which are zero only where 2:4 fills a row up: such a weight is not kept. <w> is the parameter's name in
older files and the module's in recent ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.source import Found, Source, plural, reader, some, suffixed


def recognise(source: Source) -> str | None:
    if not source.place.mentions(".bitmask\n"):
        return "no '*.bitmask' beside '*.shape'"
    pairs = suffixed(source.state, ".bitmask").keys() & suffixed(source.state, ".shape").keys()
    return None if pairs else "no '*.bitmask' beside '*.shape'"


def _mask(name: str, packed: Tensor, stated: Tensor, stored: Tensor | None) -> Tensor:
    if stated.size > 8 or not stated.dtype.startswith("int"):
        raise FormatError(f"'{name}.shape' of type {stated.dtype} and shape {stated.shape} is not a shape")
    shape = tuple(int(n) for n in stated.whole().reshape(-1))
    if len(shape) < 2 or min(shape) < 1 or packed.shape != (*shape[:-1], -(-shape[-1] // 8)) or packed.dtype != "uint8":
        raise FormatError(
            f"'{name}.bitmask' is {packed.dtype} {packed.shape}, which does not hold a mask of shape {shape}"
        )
    if stored is not None:
        if not stored.is_number or stored.ndim > 2:
            raise FormatError(f"'{name}.compressed' is {stored.dtype} {stored.shape}, which holds no weights")
        kept = sum(int(np.bitwise_count(block).sum(dtype=np.int64)) for block in packed.blocks())
        if kept != prod(stored.shape):
            raise FormatError(
                f"'{name}.bitmask' keeps {kept:,} weights but '{name}.compressed' holds {prod(stored.shape):,}"
            )

    def rows(count: int) -> Iterator[np.ndarray]:
        values = _nonzero(stored) if stored is not None else None
        start = 0
        for block in packed.rows(count):
            bits = np.unpackbits(block, axis=-1, count=shape[-1], bitorder="little")
            if values is not None and not values.all():  # 2:4 of a row with fewer than two weights stores a zero
                flat = bits.reshape(-1)
                places = np.flatnonzero(flat)
                flat[places] = values[start : start + len(places)]
                start += len(places)
            yield bits

    return Tensor(shape, "bool", rows)


def _nonzero(stored: Tensor) -> np.ndarray:
    """Which of the stored weights are not zero."""
    weights = np.concatenate([np.asarray(block).reshape(-1) for block in stored.blocks()] or [np.zeros(0)])
    magnitude = {"bfloat16": 0x7FFF}.get(stored.dtype, 0x7F if stored.dtype.startswith("float8") else None)
    return np.asarray((weights if magnitude is None else weights & magnitude) != 0)


@reader("bitmask", "compressed-tensors sparse-bitmask and sparse-24-bitmask", before="npz", recognise=recognise)
def read(source: Source) -> Found:
    bits, shapes = suffixed(source.state, ".bitmask"), suffixed(source.state, ".shape")
    stored = suffixed(source.state, ".compressed")
    missing = [name for name in bits if name not in shapes]
    if missing:
        raise FormatError(f"{plural(len(missing), 'bitmask')} without a shape: {some(missing)}")
    return {
        name if name.endswith("weight") else f"{name}.weight": _mask(name, packed, shapes[name], stored.get(name))
        for name, packed in bits.items()
    }
