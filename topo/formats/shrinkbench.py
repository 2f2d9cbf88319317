"""ShrinkBench checkpoints: `model_state_dict` with zeroed weights and their masks."""

from __future__ import annotations

from topo.formats.source import Found, Source, reader, suffixed
from topo.formats.torch_prune import masks_beside_weights


def recognise(source: Source) -> str | None:
    if "model_state_dict" not in source.trail:
        return "no 'model_state_dict'"
    return None if suffixed(source.state, "weight_mask") else "no '*.weight_mask' in 'model_state_dict'"


@reader(
    "shrinkbench", "ShrinkBench checkpoint: model_state_dict with weight_mask", before="synflow", recognise=recognise
)
def read(source: Source) -> Found:
    return masks_beside_weights(source)
