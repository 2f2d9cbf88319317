"""Keras weights in HDF5: kernels are (height, width, in, out) or (in, out), masks of 0 and 1 or weights whose zeros are
the mask.

`dense/dense/kernel:0` becomes the mask `dense.kernel` of shape (out, in), and `dense.weight` where the model has that.
Keras 3 numbers the variables of a layer: `layers/dense/vars/0` is its kernel. A depthwise kernel (height, width, in,
multiplier) becomes that of a grouped convolution, (in * multiplier, 1, height, width).
"""

from __future__ import annotations

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.flax import output_first
from topo.formats.mask_dict import only_masks
from topo.formats.source import Found, Source, plural, reader, some

_KERNELS = ("kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel")
_FOLDERS = ("model_weights", "layers", "vars", "_layer_checkpoint_dependencies")


def _kernels(source: Source) -> dict[str, tuple[str, Tensor]]:
    """Path in the file -> (name, kernel as stored)."""
    found = {}
    for path, tensor in source.state.items():
        *folders, last = path.split("/")
        variable = last.partition(":")[0]
        if folders[-1:] == ["vars"] and last.isdecimal():  # the first two variables of two dimensions or more
            variable = ("kernel", "recurrent_kernel")[min(int(last), 1)] if int(last) < 2 else last
        if variable not in _KERNELS or tensor.ndim < 2 or "optimizer_weights" in folders or "optimizer" in folders:
            continue
        parts = [part for part in folders if part not in _FOLDERS]
        parts = [part for i, part in enumerate(parts) if i == 0 or part != parts[i - 1]]
        found[path] = ".".join((*parts, variable)), tensor
    return found


def recognise(source: Source) -> str | None:
    if source.container.kind != "hdf5":
        return "it is not HDF5"
    return None if _kernels(source) else "no array '*/kernel:0' or 'layers/*/vars/0' of two or more dimensions"


def _output_first(name: str, kernel: Tensor) -> Tensor:
    if name.endswith("depthwise_kernel") and kernel.ndim == 4:
        height, width, inputs, multiplier = kernel.shape
        return kernel.view(
            (inputs * multiplier, 1, height, width),
            lambda array: array.transpose(2, 3, 0, 1).reshape(inputs * multiplier, 1, height, width),
        )
    return output_first(kernel)


@reader(
    "keras",
    "Keras weights in HDF5: '/kernel:0' arrays, HWIO or (in, out)",
    before="mask_dict",
    recognise=recognise,
    output_first=True,
)
def read(source: Source) -> Found:
    kernels = _kernels(source)
    masks = only_masks({name: kernel for name, kernel in kernels.values()}) is None
    if not masks and not any(kernel.has_zero for _, kernel in kernels.values()):
        raise FormatError("none of its kernels holds a zero: they are dense, or their masks are elsewhere")
    known = source.wiring.shapes if source.wiring else {}
    found: dict[str, Tensor] = {}
    for path, (name, kernel) in kernels.items():
        torch_name = name.removesuffix("kernel") + "weight"
        name = torch_name if torch_name in known else name
        if name in found:
            raise FormatError(f"two of its kernels are called '{name}'")
        source.made[name] = [path, path.replace("/", ".")]
        found[name] = _output_first(path.partition(":")[0], kernel if masks else kernel.weights())
    others = [path for path, tensor in source.state.items() if path not in kernels and tensor.ndim >= 2]
    if others:
        source.notes.append(f"{plural(len(others), 'array')} that are not kernels left out: {some(others)}")
    return found
