"""Masks as buffers beside plain weights: Synaptic-Flow and its many forks; BERT-Tickets and ToST save such buffers
alone."""

from __future__ import annotations

from topo.formats.source import Found, Source, reader, suffixed
from topo.formats.torch_prune import masks_beside_weights


def recognise(source: Source) -> str | None:
    return None if any(tensor.ndim >= 2 for tensor in suffixed(source.state, "_mask").values()) else "no '*_mask'"


@reader(
    "synflow",
    "SynFlow family: weight + weight_mask buffers; also files of weight_mask alone",
    before=("gem_miner", "openlth", "rigl", "torch_ao", "bitmask", "flax"),
    recognise=recognise,
)
def read(source: Source) -> Found:
    return masks_beside_weights(source)
