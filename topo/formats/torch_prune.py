"""torch.nn.utils.prune: `X.weight_orig` beside `X.weight_mask`, until `prune.remove` leaves only zeros."""

from __future__ import annotations

from topo.errors import MaskError
from topo.formats.source import Found, Source, plural, reader, some, suffixed


def recognise(source: Source) -> str | None:
    originals = suffixed(source.state, "_orig")
    return None if originals.keys() & suffixed(source.state, "_mask").keys() else "no '*_orig' beside '*_mask'"


@reader("torch_prune", "torch.nn.utils.prune: weight_orig + weight_mask", before="shrinkbench", recognise=recognise)
def read(source: Source) -> Found:
    return masks_beside_weights(source)


def masks_beside_weights(source: Source) -> Found:
    """The tensors `X_mask`, each of the shape of `X` or `X_orig` if that is there.

    Weights that have no mask are noted: they are dense, or their masks were not saved.
    """
    masks = suffixed(source.state, "_mask")
    for name, mask in masks.items():
        weight = source.state.get(name) or source.state.get(f"{name}_orig")
        if weight is not None and weight.shape != mask.shape:
            raise MaskError(f"mask '{name}_mask' has shape {mask.shape} but its weight has {weight.shape}")
    dense = [
        name
        for name, tensor in source.state.items()
        if tensor.ndim >= 2 and name.endswith("weight") and tensor.is_float and name not in masks
    ]
    if dense and source.wiring is None:
        source.notes.append(f"{plural(len(dense), 'weight')} without a mask left out: {some(dense)}")
    return masks
