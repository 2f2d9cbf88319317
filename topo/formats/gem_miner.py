"""Gem-Miner: the mask is computed, flag * (scores > 0.5), as its layers do in evaluation (released code,
conv_type.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from topo.containers.tensors import Tensor
from topo.errors import MaskError
from topo.formats.source import Found, Source, reader, suffixed


def recognise(source: Source) -> str | None:
    if not source.place.mentions(".flag\n"):
        return "no '*.scores' beside '*.flag'"
    pairs = suffixed(source.state, ".scores").keys() & suffixed(source.state, ".flag").keys()
    return None if pairs else "no '*.scores' beside '*.flag'"


def _mask(name: str, scores: Tensor, flag: Tensor) -> Tensor:
    if scores.shape != flag.shape or not scores.dtype.startswith("float") or scores.dtype.startswith("float8"):
        raise MaskError(
            f"'{name}.scores' is {scores.dtype} {scores.shape} and '{name}.flag' is {flag.dtype} {flag.shape}"
        )

    def rows(count: int) -> Iterator[np.ndarray]:
        for score, allowed in zip(scores.rows(count), flag.rows(count)):
            if np.isnan(score).any():
                raise MaskError(f"'{name}.scores' holds NaN")
            yield allowed * (score > 0.5)

    return replace(flag, rows=rows)


@reader(
    "gem_miner",
    "Gem-Miner: flag * (scores > 0.5)",
    before=("scores", "openlth", "rigl", "torch_ao", "bitmask", "flax"),
    recognise=recognise,
)
def read(source: Source) -> Found:
    flags = suffixed(source.state, ".flag")
    scores = suffixed(source.state, ".scores")
    return {f"{name}.weight": _mask(name, scores[name], flag) for name, flag in flags.items() if name in scores}
