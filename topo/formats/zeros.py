"""Zeros in the weights of a checkpoint: what is left of a mask when only the weights were saved.

With a model its layers are read; without one, every weight of two or more dimensions except what is named like an
embedding. Zeros do not tell pruned weights from weights that happen to be 0 (underflow, zero initialisation), so the
masks say in a note that they were inferred.
"""

from __future__ import annotations

from topo.containers.tensors import Tensor
from topo.formats.fitting import aligned
from topo.formats.source import Found, Source, plural, reader, some

_EMBEDDINGS = ("embed", "wte", "wpe")


def _weights(source: Source) -> dict[str, Tensor]:
    floats = {
        name: tensor
        for name, tensor in source.state.items()
        if tensor.is_float and tensor.is_number and tensor.ndim >= 2
    }
    if source.wiring is not None:
        names = aligned(source.state, source.wiring)
        known = source.wiring.shapes
        return {names[name]: tensor for name, tensor in floats.items() if names[name] in known}
    return {
        name: tensor
        for name, tensor in floats.items()
        if name.endswith("weight") and not (tensor.ndim == 3 and tensor.shape[1:] == (1, 1))
    }


def recognise(source: Source) -> str | None:
    if _weights(source):
        return None
    if source.wiring is not None:
        return "none of the model's layers is in it by name"
    return "no float tensor '*weight' of two or more dimensions"


@reader(
    "zeros",
    "zeros in the weights of a checkpoint: state dicts, safetensors, sharded or not",
    before="ordered_list",
    recognise=recognise,
)
def read(source: Source) -> Found:
    weights = _weights(source)
    if source.wiring is None:
        embeddings = [name for name in weights if any(part in name.lower() for part in _EMBEDDINGS)]
        if embeddings and len(embeddings) < len(weights):
            source.notes.append(
                f"{plural(len(embeddings), 'embedding')} left out: {some(embeddings)}; a model tells which are masked"
            )
            weights = {name: tensor for name, tensor in weights.items() if name not in embeddings}
    return {name: tensor.weights() for name, tensor in weights.items()}
