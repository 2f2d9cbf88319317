"""compressed-tensors' sparse-bitmask and sparse-24-bitmask: the bits are read, the values never unpacked.

`<w>.bitmask` is numpy.packbits(w != 0, axis=-1, bitorder="little"), `<w>.shape` the shape of w, `<w>.compressed` its
non-zeros; <w> is the parameter's name in older files and the module's in recent ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.source import Found, Source, plural, reader, some, suffixed


def recognise(source: Source) -> str | None:
    pairs = suffixed(source.state, ".bitmask").keys() & suffixed(source.state, ".shape").keys()
    return None if pairs else "no '*.bitmask' beside '*.shape'"


def _mask(name: str, packed: Tensor, stated: Tensor, stored: Tensor | None) -> Tensor:
    if stated.size > 8 or not stated.dtype.startswith("int"):
        raise FormatError(f"'{name}.shape' of type {stated.dtype} and shape {stated.shape} is no shape")
    shape = tuple(int(n) for n in stated.whole().reshape(-1))
    if len(shape) < 2 or min(shape) < 1 or packed.shape != (*shape[:-1], -(-shape[-1] // 8)) or packed.dtype != "uint8":
        raise FormatError(
            f"'{name}.bitmask' is {packed.dtype} {packed.shape}, which does not hold a mask of shape {shape}"
        )
    if stored is not None:
        kept = sum(int(np.bitwise_count(block).sum(dtype=np.int64)) for block in packed.blocks())
        if kept != prod(stored.shape):
            raise FormatError(
                f"'{name}.bitmask' keeps {kept:,} weights but '{name}.compressed' holds {prod(stored.shape):,}"
            )

    def rows(count: int) -> Iterator[np.ndarray]:
        for block in packed.rows(count):
            yield np.unpackbits(block, axis=-1, count=shape[-1], bitorder="little")

    return Tensor(shape, "bool", rows)


@reader("bitmask", "compressed-tensors sparse-bitmask and sparse-24-bitmask", before="npz", recognise=recognise)
def read(source: Source) -> Found:
    bits, shapes = suffixed(source.state, ".bitmask"), suffixed(source.state, ".shape")
    stored = suffixed(source.state, ".compressed")
    missing = [name for name in bits if name not in shapes]
    if missing:
        raise FormatError(f"{plural(len(missing), 'bitmask')} without a shape: {some(missing)}")
    dense = [name for name, tensor in source.state.items() if name.endswith("weight") and tensor.ndim >= 2]
    if dense:
        source.notes.append(f"{plural(len(dense), 'weight')} not compressed left out: {some(dense)}")
    return {
        name if name.endswith("weight") else f"{name}.weight": _mask(name, packed, shapes[name], stored.get(name))
        for name, packed in bits.items()
    }
