"""torch.nn.utils.prune: `X.weight_orig` beside `X.weight_mask`, until `prune.remove` leaves only zeros."""

from __future__ import annotations

from topo.containers.tensors import Tensor
from topo.errors import MaskError
from topo.formats.names import is_embedding, is_weight, unwrapped
from topo.formats.source import Found, Source, plural, reader, some, suffixed


def recognise(source: Source) -> str | None:
    originals = suffixed(source.state, "_orig") if source.place.mentions("_orig\n") else {}
    return None if originals.keys() & suffixed(source.state, "_mask").keys() else "no '*_orig' beside '*_mask'"


@reader("torch_prune", "torch.nn.utils.prune: weight_orig + weight_mask", before="shrinkbench", recognise=recognise)
def read(source: Source) -> Found:
    return masks_beside_weights(source)


def beside(source: Source) -> dict[str, Tensor]:
    """The tensors `X_mask` that mask a parameter: X is one by name, or stands beside it with the same shape.

    Masks of attention (`attn_mask`) have no such partner and are none of ours.
    """
    if not source.place.mentions("_mask\n"):
        return {}
    known = {unwrapped(name) for name in source.state}
    masks = suffixed(source.state, "_mask")
    alone = all(name.endswith("_mask") for name, tensor in source.state.items() if tensor.ndim >= 2)
    return {
        name: mask
        for name, mask in masks.items()
        if is_weight(name)
        or name.endswith("bias")
        or unwrapped(name) in known
        or unwrapped(f"{name}_orig") in known
        or (alone and not name.endswith("attn"))
    }


def masks_beside_weights(source: Source) -> Found:
    """The tensors `X_mask`, each of the shape of `X` or `X_orig` if that is there; X is `weight` of `weight_v`.

    Weights that have no mask are read by their zeros if they have any: others of the network were pruned for good.
    """
    weights = {unwrapped(name): tensor for name, (_, tensor) in source.place.parameters.items()}
    masks: dict[str, Tensor] = {}
    for name, mask in beside(source).items():
        plain = name
        if name.endswith("_v") and f"{name[:-2]}_g" in source.state:
            plain = name[:-2]
        masks[plain] = mask
        weight = weights.get(unwrapped(plain))
        if weight is not None and weight.shape != mask.shape:
            raise MaskError(f"mask '{name}_mask' has shape {mask.shape} but its weight has {weight.shape}")
    known = {unwrapped(name) for name in masks}
    zeroed = {
        name: tensor.weights()
        for name, tensor in weights.items()
        if name not in known and tensor.is_float and tensor.ndim >= 2 and is_weight(name) and not is_embedding(name)
        and not (tensor.ndim == 3 and tensor.shape[1:] == (1, 1)) and tensor.has_zero
    }  # fmt: skip
    if zeroed:
        source.notes.append(
            f"{plural(len(zeroed), 'weight')} without a mask read by zeros, as pruned for good: {some(zeroed)}"
        )
    return {**masks, **zeroed}
