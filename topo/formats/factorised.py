"""Convolutions stored as a basis of kernels and coefficients (ESCALATE): the mask of the convolution that they make.

`<layer>.basis` is (M, *kernel), `<layer>.coefficients` (out, in, M), zero where pruned. Other weights of the file are
read by their zeros.
"""

from __future__ import annotations

import numpy as np

from topo.containers.tensors import Tensor
from topo.decompose import collapse
from topo.errors import FormatError
from topo.formats.source import Found, Source, plural, reader, some, suffixed
from topo.formats.zeros import weights

_BASIS = ".basis"
_COEFFICIENTS = (".coefficients", ".coefficient", ".coeffs", ".coeff", ".coef")


def _pairs(source: Source) -> dict[str, tuple[str, str]]:
    """Layer -> the names of its basis and its coefficients."""
    if not source.place.mentions(f"{_BASIS}\n"):
        return {}
    found = {}
    for layer in suffixed(source.state, _BASIS):
        ends = [end for end in _COEFFICIENTS if layer + end in source.state]
        if ends:
            found[layer] = (layer + _BASIS, layer + ends[0])
    return found


def recognise(source: Source) -> str | None:
    return None if _pairs(source) else "no '*.basis' beside '*.coefficients'"


@reader(
    "factorised",
    "convolutions as bases of kernels and coefficients (ESCALATE): '*.basis' beside '*.coefficients'",
    before=("npz", "zeros"),
    recognise=recognise,
)
def read(source: Source) -> Found:
    pairs = _pairs(source)
    alone = [layer for layer in suffixed(source.state, _BASIS) if layer not in pairs]
    if alone:
        raise FormatError(f"{plural(len(alone), 'layer')} with a basis and without coefficients: {some(alone)}")
    used = {name for pair in pairs.values() for name in pair}
    found: dict[str, Tensor] = {}
    for layer, (basis, coefficients) in pairs.items():
        kernels, mixed = source.state[basis], source.state[coefficients]
        if not (kernels.is_float and mixed.is_float) or kernels.ndim < 2 or mixed.ndim != 3:
            raise FormatError(
                f"'{basis}' is {kernels.dtype} {kernels.shape} and '{coefficients}' {mixed.dtype} {mixed.shape}; they "
                "are numbers of shape (M, *kernel) and (out, in, M)"
            )
        if mixed.shape[2] != kernels.shape[0]:
            raise FormatError(f"'{basis}' {kernels.shape} does not fit '{coefficients}' {mixed.shape}, (out, in, M)")
        made = collapse(_kept(kernels), _kept(mixed))
        name = f"{layer}.weight"
        found[name] = Tensor.of(np.ascontiguousarray(made.mask))
        source.made[name] = [basis, coefficients]
    others = {name: tensor.weights() for name, tensor in weights(source).items() if name not in used}
    if others:
        source.notes.append(f"zeros of {plural(len(others), 'other weight')} read as pruned")
    return found | others


def _kept(tensor: Tensor) -> np.ndarray:
    """Where numbers are not zero; of bfloat16 by their bits."""
    array = np.asarray(tensor.whole())
    return np.asarray((array & 0x7FFF) != 0) if tensor.dtype == "bfloat16" else np.asarray(array != 0)
