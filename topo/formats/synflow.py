"""Masks as buffers beside plain weights: Synaptic-Flow and its many forks; BERT-Tickets and ToST save such buffers
alone."""

from __future__ import annotations

from topo.formats.source import Found, Source, reader
from topo.formats.torch_prune import beside, masks_beside_weights


def recognise(source: Source) -> str | None:
    return None if any(mask.ndim >= 2 for mask in beside(source).values()) else "no '*_mask' of the shape of a weight"


@reader(
    "synflow",
    "SynFlow family: weight + weight_mask buffers; also files of weight_mask alone",
    before=("gem_miner", "openlth", "rigl", "torch_ao", "bitmask", "flax"),
    recognise=recognise,
)
def read(source: Source) -> Found:
    return masks_beside_weights(source)
