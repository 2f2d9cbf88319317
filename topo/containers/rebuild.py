"""The names that a pickle may use, and what each stands for: numpy arrays, torch tensors and the containers around
them.

Every function here checks that the file holds the bytes of the array it describes before a byte of memory is taken for
it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any, Literal

import numpy as np

from topo.containers.pickle_machine import Admitted, NamesIt, Unfinished, corrupt, put
from topo.containers.sparse import compressed, coordinates, semi_structured
from topo.containers.tensors import Tensor, bits_of, numpy_dtype
from topo.errors import FormatError

# A file may describe more parameters than it has bytes (broadcast, sparse and compressed masks), but not without bound:
# bit rows of so many bits, or of a word to a byte, so that its masks take 32 MB or eight times the file. A row is
# looked at as a whole, and what is counted of it takes a hundred bytes an entry.
_FREE_BITS = 1 << 28
_FREE_ROW = 1 << 20
# Of files that deflate what they hold.
DEFLATED_ROW = 1 << 24

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
}
# torch's names for the types and schemes of quantised tensors.
_QUANTISED = ("qint8", "quint8", "qint32", "quint4x2", "quint2x4")
_SCHEMES = (
    "per_tensor_affine",
    "per_tensor_symmetric",
    "per_channel_affine",
    "per_channel_symmetric",
    "per_channel_affine_float_qparams",
)
DTYPES = (
    *(
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "float8_e4m3fn",
        "float8_e5m2",
        "float8_e4m3fnuz",
        "float8_e5m2fnuz",
    ),
    *("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128"),
)


class Allowance:
    """How much a file of so many bytes may describe."""

    def __init__(self, size: int, row: int = _FREE_ROW) -> None:
        self.bits = max(_FREE_BITS, 64 * size)
        self.row = max(row, 16 * size)
        self.copied = size

    def tensor(self, shape: tuple[int, ...]) -> None:
        """FormatError when the tensors so far, this one too, are more than the file may describe."""
        if len(shape) > 1 and 0 not in shape and prod(shape[1:]) > self.row:
            raise FormatError(
                f"a tensor of shape {shape} promises rows of more numbers than a file of this size can hold: refused "
                "as a memory bomb"
            )
        self.spend(bits_of(shape))

    def spend(self, bits: int) -> None:
        """FormatError when the bit rows of the tensors so far are more than the file may describe."""
        self.bits -= bits
        if self.bits < 0:
            raise FormatError(
                "its tensors promise more parameters than a file of this size can hold: refused as a memory bomb"
            )

    def copy(self, size: int) -> None:
        """FormatError when more is copied out of the file than it holds."""
        self.copied -= size
        if self.copied < 0:
            raise corrupt("the same data copied again and again")


def _dimensions(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, (tuple, list)) or len(shape) > 32:
        raise corrupt("a shape that is none")
    for n in shape:
        if type(n) is not int or n < 0:
            raise corrupt(f"a shape with the dimension {n!r}")
    return tuple(shape)


class Dtype(Unfinished):
    """numpy.dtype(...): plain numbers, text or objects."""

    def __init__(self, spec: Any = None, *_: Any) -> None:
        if not isinstance(spec, str) or not re.fullmatch(r"[|<>=]?(?:[biufcSUO]\d{0,6}|\?)", spec):
            raise corrupt("an array of a type that is not a plain number")
        self.value = np.dtype(spec)

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise corrupt("an array of a structured type")
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])

    def finish(self, resolve: Callable[[Any], Any]) -> str:
        return self.value.name


class NumpyArray(Unfinished):
    """numpy's `_reconstruct` and `_frombuffer`."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.array: np.ndarray | None = None
        self.objects: list[Any] | None = None
        self.shape: tuple[int, ...] = ()

    def build(self, state: Any) -> None:
        if (
            not isinstance(state, tuple)
            or len(state) not in (4, 5)
            or self.array is not None
            or self.objects is not None
        ):
            raise corrupt("an array without its parts")
        shape, dtype, fortran, data = state[-4:]
        self.fill(data, dtype, _dimensions(shape), "F" if fortran else "C")

    def fill(self, data: Any, dtype: Any, shape: tuple[int, ...], order: str) -> None:
        if not isinstance(dtype, Dtype):
            raise corrupt("an array without a type")
        self.shape = shape
        if dtype.value.hasobject:
            if not isinstance(data, list) or len(data) != prod(shape):
                raise corrupt(f"an array of objects of shape {shape} without its objects")
            self.objects = data
            return
        if isinstance(data, str):  # Python 2
            self.allowance.copy(len(data))
            data = data.encode("latin-1")
        if not isinstance(data, (bytes, memoryview)):
            raise corrupt("an array without its bytes")
        promised = prod(shape) * dtype.value.itemsize
        if len(data) != promised or not dtype.value.itemsize:
            raise corrupt(f"an array of shape {shape} promises {promised:,} bytes and holds {len(data):,}")
        self.allowance.tensor(shape)
        self.array = np.frombuffer(data, dtype.value).reshape(shape, order=order)  # type: ignore[call-overload]

    def finish(self, resolve: Callable[[Any], Any]) -> Any:
        if self.objects is not None:
            return resolve(self.objects) if self.shape else resolve(self.objects[0])
        if self.array is None:
            raise corrupt("an array without its values")
        return Tensor.of(self.array)


class Storage(Unfinished):
    """The bytes that torch tensors share. `data` may come after the pickle that names it."""

    @property
    def dimensions(self) -> int:
        """As many as weights have: what an unknown class makes of the bytes is not known."""
        return 2

    def __init__(self, dtype: str, data: memoryview | None = None, order: Literal["<", ">"] = "<") -> None:
        self.dtype, self.data, self.order = dtype, data, order

    def finish(self, resolve: Callable[[Any], Any]) -> Tensor:
        """A storage that was saved by itself: its numbers in one row."""
        if self.data is None:
            raise corrupt("a storage without its values")
        held = numpy_dtype(self.dtype).newbyteorder(self.order)
        return Tensor.of(np.frombuffer(self.data, held, len(self.data) // held.itemsize), self.dtype)


class TorchTensor(Unfinished):
    """torch's `_rebuild_tensor` and its successors: a strided view of a storage."""

    def __init__(
        self, allowance: Allowance, storage: Any, offset: Any, size: Any, stride: Any, dtype: str | None = None
    ) -> None:
        if not isinstance(storage, Storage) or not isinstance(offset, int) or offset < 0:
            raise corrupt("a tensor without its storage")
        self.storage, self.offset = storage, offset
        self.shape, self.stride = _dimensions(size), _dimensions(stride)
        self.dtype = dtype or storage.dtype
        if len(self.shape) != len(self.stride):
            raise corrupt(f"a tensor of shape {self.shape} with strides {self.stride}")
        allowance.tensor(self.shape)

    def build(self, state: Any) -> None:
        """Attributes that a user hung on the tensor: dropped."""

    def finish(self, resolve: Callable[[Any], Any]) -> Tensor:
        if self.storage.data is None:
            raise corrupt("a tensor without its storage")
        held = numpy_dtype(self.dtype)
        held = held.newbyteorder(">") if self.storage.order == ">" else held
        reach = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride)) + 1
        if prod(self.shape) and reach * held.itemsize > len(self.storage.data):
            promised, there = reach * held.itemsize, len(self.storage.data)
            raise FormatError(
                f"a tensor of shape {self.shape} promises {promised:,} bytes of a storage that has {there:,}"
            )
        if not prod(self.shape):
            return Tensor.of(np.zeros(self.shape, held), self.dtype)
        steps = tuple(step * held.itemsize for step in self.stride)
        return Tensor.of(
            np.ndarray(self.shape, held, self.storage.data, self.offset * held.itemsize, steps), self.dtype
        )


class SparseTensor(Unfinished):
    """torch's `_rebuild_sparse_tensor`: coordinates or compressed rows or columns."""

    def __init__(self, allowance: Allowance, layout: Any, data: Any) -> None:
        if not isinstance(data, tuple) or len(data) < 3:
            raise corrupt("a sparse tensor without its parts")
        self.layout, self.data = layout, data
        self.shape = _dimensions(data[3] if layout in _COMPRESSED and len(data) > 3 else data[2])
        allowance.tensor(self.shape)

    def finish(self, resolve: Callable[[Any], Any]) -> Tensor:
        parts = [resolve(part) for part in self.data[: 2 if self.layout == "torch.sparse_coo" else 3]]
        if not all(isinstance(part, Tensor) for part in parts) or not all(
            p.dtype.startswith("int") for p in parts[:-1]
        ):
            raise corrupt("a sparse tensor without its parts")
        *places, values = (part.whole() for part in parts)
        if self.layout == "torch.sparse_coo" and values.ndim == 1:
            return coordinates(places[0], values, self.shape, parts[-1].dtype)
        if values.ndim != (3 if self.layout in _BLOCKS else 1) or self.layout not in _COMPRESSED:
            raise FormatError(f"a sparse tensor of layout {self.layout} is not read; save its to_dense()")
        by_rows = self.layout in ("torch.sparse_csr", "torch.sparse_bsr")
        return compressed(places[0], places[1], values, self.shape, parts[-1].dtype, by_rows)


_BLOCKS = ("torch.sparse_bsr", "torch.sparse_bsc")
_COMPRESSED = ("torch.sparse_csr", "torch.sparse_csc", *_BLOCKS)


class SemiStructuredTensor(Unfinished):
    """torch's 2:4 tensors in the layout of CUTLASS: `packed` and `meta` among the attributes of an empty tensor."""

    def __init__(self, allowance: Allowance, shape: Any, attributes: Any) -> None:
        self.shape = _dimensions(shape)
        parts = attributes if isinstance(attributes, tuple) else (attributes,)
        found = {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}
        old = {"packed": found.get("sparse_tensor_cutlass"), "meta": found.get("meta_tensor_cutlass")}  # torch 2.1
        self.parts = [found.get(key) if found.get(key) is not None else old[key] for key in ("packed", "meta")]
        if found.get("transposed") or not all(isinstance(part, TorchTensor) for part in self.parts):
            raise NamesIt(
                "it holds a semi-structured tensor without 'packed' and 'meta', as cuSPARSELt keeps it, which is not "
                "read; save plain values: tensor.to_dense()"
            )
        allowance.tensor(self.shape)

    def build(self, state: Any) -> None:
        """Attributes that a user hung on the tensor: dropped."""

    def finish(self, resolve: Callable[[Any], Any]) -> Tensor:
        packed, meta = (resolve(part) for part in self.parts)
        return semi_structured(packed, meta, self.shape)


_SEMI_STRUCTURED = "torch.sparse.semi_structured.SparseSemiStructuredTensor"


class QuantisedTensor(Unfinished):
    """torch's `_rebuild_qtensor`: integers q that stand for scale * (q - zero_point)."""

    def __init__(self, stored: TorchTensor, scheme: Any) -> None:
        name, *parameters = scheme if isinstance(scheme, tuple) and scheme else (None,)
        self.stored, self.scheme = stored, getattr(name, "name", "").removeprefix("torch.")
        self.parameters, self.shape = parameters, stored.shape
        if self.scheme not in _SCHEMES or len(parameters) < (3 if "channel" in self.scheme else 2):
            raise corrupt("a quantised tensor without its scheme")

    def build(self, state: Any) -> None:
        """Attributes that a user hung on the tensor: dropped."""

    def finish(self, resolve: Callable[[Any], Any]) -> Tensor:
        stored, shape = self.stored.finish(resolve), self.shape
        if "channel" in self.scheme:
            axis = self.parameters[2]
            scale, zero = (self._numbers(resolve(part)) for part in self.parameters[:2])
            if not isinstance(axis, int) or not 0 <= axis < len(shape) or not len(scale) == len(zero) == shape[axis]:
                raise corrupt(f"a quantised tensor of shape {shape} whose channels do not add up")
            along = tuple(-1 if place == axis else 1 for place in range(len(shape)))
            scale, zero = scale.reshape(along), zero.reshape(along)
        else:
            scale, zero = (self._numbers(part).reshape((1,) * len(shape)) for part in self.parameters[:2])
        # Smaller scales could make 0 of what is not.
        if not np.isfinite(zero).all() or not (np.isfinite(scale) & (scale > 1e-30) & (scale < 1e30)).all():
            raise corrupt("a quantised tensor whose scale is not a positive number")

        def rows(count: int) -> Iterator[np.ndarray]:
            done = 0
            for block in stored.rows(count):
                here = slice(done, done + len(block)) if shape and len(block) else slice(None)
                part = [factor[here] if shape and len(factor) > 1 else factor for factor in (zero, scale)]
                yield ((block.astype(np.float64) - part[0]) * part[1]).astype(np.float32)
                done += len(block) if shape else 0

        return Tensor(shape, "float32", rows)

    def _numbers(self, value: Any) -> np.ndarray:
        if isinstance(value, Tensor) and value.ndim == 1 and value.is_number and value.dtype in _PLAIN:
            return value.whole().astype(np.float64)
        if isinstance(value, (int, float)):
            return np.array([value], np.float64)
        raise corrupt("a quantised tensor without its scale")


_PLAIN = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8")


def storage_reference(key: Any) -> tuple[str, str, int]:
    """dtype, key and number of elements of the storage that a persistent id names."""
    if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage" or not isinstance(key[1], Admitted):
        raise corrupt("a reference to what is not a storage")
    kind = key[1].name.rpartition(".")[2]
    if kind not in STORAGES or not isinstance(key[4], int) or key[4] < 0 or not isinstance(key[2], str):
        raise corrupt("a storage of an unknown type")
    return STORAGES[kind], key[2], key[4]


def _empty(kind: type) -> Any:
    return kind()


def _pairs(entries: Any) -> Iterator[tuple[Any, Any]]:
    for entry in entries:
        if not isinstance(entry, (tuple, list)) or len(entry) != 2 or not isinstance(entry[0], (str, int, bytes)):
            raise corrupt("an ordered dict of what are not pairs")
        yield entry[0], entry[1]


def admitted(
    allowance: Allowance, load_storage: Callable[[bytes | memoryview], Any] | None = None
) -> dict[tuple[str, str], Admitted]:
    """The fixed list, for a file with this allowance. load_storage: reads the torch file that a pickled tensor holds
    its bytes in."""
    table: dict[tuple[str, str], Admitted] = {}

    def enter(modules: str, name: str, call: Callable[..., Any] | None = None) -> None:
        for module in modules.split():
            table[module, name] = Admitted(f"{module}.{name}", call)

    def ordered_dict(entries: Any = (), *_: Any) -> dict[Any, Any]:
        allowance.copy(len(entries))
        made: dict[Any, Any] = {}
        put(made, [part for pair in _pairs(entries.items() if isinstance(entries, dict) else entries) for part in pair])
        return made

    def encode(text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise corrupt("text in an encoding other than latin1")
        allowance.copy(len(text))
        return text.encode("latin-1")

    def scalar(dtype: Any, data: Any = b"") -> Any:
        data = data.encode("latin-1") if isinstance(data, str) else data
        if not isinstance(dtype, Dtype) or dtype.value.kind not in "biuf" or len(data) != dtype.value.itemsize:
            raise corrupt("a numpy number without its bytes")
        return np.frombuffer(data, dtype.value)[0].item()

    def reconstruct(kind: Any, *_: Any) -> NumpyArray:
        if getattr(kind, "name", None) != "numpy.ndarray":
            raise corrupt("an array of a class other than numpy.ndarray")
        return NumpyArray(allowance)

    def from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> NumpyArray:
        array = NumpyArray(allowance)
        array.fill(data, dtype, _dimensions(shape), "F" if order == "F" else "C")
        if axes is not None and array.array is not None:
            array.array = array.array.transpose(_dimensions(axes))
        return array

    def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TorchTensor:
        return TorchTensor(allowance, storage, offset, size, stride)

    def typed_tensor(
        storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
    ) -> TorchTensor:
        name = getattr(dtype, "name", "").removeprefix("torch.")
        if name not in DTYPES:
            raise corrupt("a tensor without a type")
        return TorchTensor(allowance, storage, offset, size, stride, name)

    def quantised(storage: Any, offset: Any, size: Any, stride: Any, scheme: Any, *_: Any) -> QuantisedTensor:
        return QuantisedTensor(TorchTensor(allowance, storage, offset, size, stride), scheme)

    def wrapper(*_: Any) -> Any:
        raise NamesIt("it holds a tensor of a class without its attributes; save plain values: tensor.to_dense()")

    def from_type(function: Any, kind: Any, arguments: Any, attributes: Any = None, *_: Any) -> Any:
        if getattr(kind, "name", "").removesuffix("CUTLASS") == _SEMI_STRUCTURED:
            if not isinstance(arguments, tuple) or len(arguments) < 3:
                raise corrupt("a semi-structured tensor without its shape")
            return SemiStructuredTensor(allowance, arguments[2], attributes)
        if getattr(kind, "name", None) not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
            raise NamesIt(
                f"it holds a tensor of class '{getattr(kind, 'name', kind)}', which is not read; save plain values: "
                "tensor.to_dense(), or dequantize()"
            )
        if not isinstance(function, Admitted) or function.call is None or not isinstance(arguments, tuple):
            raise corrupt("a tensor that is none")
        return function.call(*arguments)

    enter("collections", "OrderedDict", ordered_dict)
    enter("collections", "Counter", ordered_dict)
    enter("collections", "defaultdict", lambda *_: {})
    for kind in (dict, list, int, float, bytes):
        enter("builtins __builtin__", kind.__name__, partial(_empty, kind))
    for name in ("set", "frozenset"):  # as the list of their members, which are not hashed
        enter("builtins __builtin__", name, lambda members=(): members)
    enter("_codecs", "encode", encode)
    enter("numpy", "ndarray")
    enter("numpy", "dtype", Dtype)
    enter("numpy.core.multiarray numpy._core.multiarray", "_reconstruct", reconstruct)
    enter("numpy.core.multiarray numpy._core.multiarray", "scalar", scalar)
    enter("numpy.core.numeric numpy._core.numeric", "_frombuffer", from_buffer)
    enter("torch._utils", "_rebuild_tensor", tensor)
    enter("torch._utils", "_rebuild_tensor_v2", tensor)
    enter("torch._utils", "_rebuild_tensor_v3", typed_tensor)
    enter("torch._utils", "_rebuild_qtensor", quantised)
    enter("torch._utils", "_rebuild_wrapper_subclass", wrapper)
    enter("torch._utils", "_rebuild_parameter", lambda data, *_: data)
    enter("torch._utils", "_rebuild_parameter_with_state", lambda data, *_: data)
    enter("torch._utils", "_rebuild_sparse_tensor", lambda layout, data: SparseTensor(allowance, layout, data))
    enter("torch._tensor", "_rebuild_from_type_v2", from_type)
    enter("torch.serialization", "_get_layout", lambda name: name if isinstance(name, str) else None)
    enter("torch", "Size", lambda size=(): _dimensions(size))
    enter("torch", "device", lambda *_: None)
    enter("torch", "Tensor")
    enter("torch.nn.parameter", "Parameter")
    for name in STORAGES:
        enter("torch torch.cuda torch.storage", name)
    for name in (*DTYPES, *_QUANTISED, *_SCHEMES):
        enter("torch", name)
    if load_storage is not None:
        enter("torch.storage", "_load_from_bytes", load_storage)
    return table
