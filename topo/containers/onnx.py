"""ONNX models: their initialisers by name, read from the protobuf itself, so that nothing is installed and no array is
copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from topo.containers.container import Container, File, container
from topo.containers.rebuild import Allowance
from topo.containers.tensors import Tensor, numpy_dtype
from topo.errors import FormatError

# TensorProto.DataType, and the field that holds values of that type when they are not raw bytes.
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz",
    19: "float8_e5m2", 20: "float8_e5m2fnuz",
}  # fmt: skip
_MOST_MESSAGES = 1_000_000
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


@dataclass
class _Initialiser:
    name: str = ""
    dims: list[int] = field(default_factory=list)
    dtype: int = 0
    raw: memoryview | None = None
    # Values that are not raw: numbers one by one, or packed one behind the other.
    floats: list[Any] = field(default_factory=list)
    integers: list[Any] = field(default_factory=list)
    doubles: list[Any] = field(default_factory=list)
    is_external: bool = False


def _recognise(file: File) -> str | None:
    if file.path.suffix.lower() != ".onnx" and file.start[:1] != b"\x08":
        return "its name does not end in '.onnx', and it does not start with a version as ONNX does"
    try:
        if any(number == 7 and kind == _BYTES for number, kind, _ in _fields(memoryview(file.data), [0])):
            return None
    except FormatError as error:
        return f"it is not a protobuf: {error}"
    return "it holds no graph"


@container("onnx", "ONNX: the initialisers of the graph", recognise=_recognise)
def open_onnx(file: File) -> Container:
    """Initialisers by name; those that MatMul multiplies from the right are turned output-first, with a note."""
    seen = [0]
    allowance = Allowance(len(file.data))
    found: dict[str, Tensor] = {}
    turned: set[str] = set()
    left: list[str] = []
    for _, _, graph in _chosen(memoryview(file.data), seen, 7):
        for number, kind, value in _fields(graph, seen):
            if kind == _BYTES and number == 5:
                made = _initialiser(value, seen)
                if made.is_external:
                    left.append(made.name)
                    continue
                if made.name in found:
                    raise FormatError(f"the initialiser '{made.name}' stands in it twice")
                found[made.name] = _tensor(made, allowance)
            elif kind == _BYTES and number == 1:
                turned |= _multiplied(value, seen)
    if left:
        raise FormatError(
            f"the values of {len(left)} initialisers lie in another file ('{left[0]}'); join them: "
            "onnx.save(onnx.load(FILE), 'whole.onnx')"
        )
    turned = {name for name in turned & found.keys() if found[name].ndim == 2}
    notes = [f"{len(turned)} weights of MatMul turned to (out, in): {_some(turned)}"] if turned else []
    content = {name: tensor.transposed((1, 0)) if name in turned else tensor for name, tensor in found.items()}
    return Container("onnx", content, notes=tuple(notes))


def _some(names: set[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names)[:3]) + (", ..." if len(names) > 3 else "")


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise FormatError("it is truncated within a number")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
    raise FormatError("a number of more than ten bytes")


def _fields(data: memoryview, seen: list[int]) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value) of each field of a message; seen: how many fields were read, in all messages."""
    place = 0
    while place < len(data):
        seen[0] += 1
        if seen[0] > _MOST_MESSAGES:
            raise FormatError(f"it holds more than {_MOST_MESSAGES:,} fields")
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise FormatError("a field of number 0")
        if kind == _VARINT:
            value: Any
            value, place = _varint(data, place)
        elif kind in (_EIGHT, _FOUR, _BYTES):
            size = 8 if kind == _EIGHT else 4
            if kind == _BYTES:
                size, place = _varint(data, place)
            if size > len(data) - place:
                raise FormatError(f"a field promises {size:,} bytes and {len(data) - place:,} follow")
            value, place = data[place : place + size], place + size
        else:
            raise FormatError(f"a field of wire type {kind}")
        yield number, kind, value


def _chosen(data: memoryview, seen: list[int], wanted: int) -> Iterator[tuple[int, int, Any]]:
    return (entry for entry in _fields(data, seen) if entry[0] == wanted and entry[1] == _BYTES)


def _initialiser(data: memoryview, seen: list[int]) -> _Initialiser:
    made = _Initialiser()
    for number, kind, value in _fields(data, seen):
        if number == 1:
            made.dims.extend(_numbers(value, kind))
        elif number == 2 and kind == _VARINT:
            made.dtype = value
        elif number == 8 and kind == _BYTES:
            made.name = str(value, "utf-8", "replace")
        elif number == 9 and kind == _BYTES:
            made.raw = value
        elif number == 4:
            made.floats.append(np.frombuffer(value, "<f4"))
        elif number in (5, 7, 11):
            made.integers.extend(_numbers(value, kind))
        elif number == 10:
            made.doubles.append(np.frombuffer(value, "<f8"))
        elif number == 13 or (number == 14 and value == 1):
            made.is_external = True
    return made


def _numbers(value: Any, kind: int) -> list[int]:
    """One number, or those packed in a field."""
    if kind == _VARINT:
        return [value]
    if kind != _BYTES:
        raise FormatError("a number of another wire type")
    found, place = [], 0
    while place < len(value):
        number, place = _varint(value, place)
        found.append(number)
    return found


def _tensor(made: _Initialiser, allowance: Allowance) -> Tensor:
    shape = tuple(made.dims)
    if len(shape) > 32 or any(n >= 1 << 62 for n in shape):
        raise FormatError(f"the initialiser '{made.name}' has the shape {shape}")
    if made.dtype not in _DTYPES:  # text and packed types: no mask can be read from them
        return Tensor(shape, f"onnx{made.dtype}", _unread)
    dtype = _DTYPES[made.dtype]
    allowance.tensor(shape)
    held = numpy_dtype(dtype)
    if made.raw is not None:
        if len(made.raw) != prod(shape) * held.itemsize:
            raise FormatError(
                f"the initialiser '{made.name}' of shape {shape} takes {prod(shape) * held.itemsize:,} bytes and has "
                f"{len(made.raw):,}"
            )
        values = np.frombuffer(made.raw, held)
    elif made.floats or made.doubles:
        values = np.concatenate(made.floats or made.doubles).astype(held)
    else:  # 16-bit floats stand here as the integers of their bits, negative numbers as their two's complement
        values = np.array(made.integers, np.uint64).astype(np.uint16 if dtype == "float16" else held)
        values = values.view(held) if dtype == "float16" else values
    if len(values) != prod(shape):
        raise FormatError(f"the initialiser '{made.name}' of shape {shape} has {len(values):,} values")
    return Tensor.of(values.reshape(shape), dtype)


def _unread(count: int) -> Any:
    raise FormatError("its values are text or of a packed type, which are not read")


def _multiplied(data: memoryview, seen: list[int]) -> set[str]:
    """The second operand of a MatMul, (in, out), and of a Gemm that does not turn it."""
    inputs, kind_of_node, turns = list[str](), "", False
    for number, kind, value in _fields(data, seen):
        if kind != _BYTES:
            continue
        if number == 1:
            inputs.append(str(value, "utf-8", "replace"))
        elif number == 4:
            kind_of_node = str(value, "utf-8", "replace")
        elif number == 5:
            parts = {(n, k): v for n, k, v in _fields(value, seen)}
            turns |= bytes(parts.get((1, _BYTES), b"")) == b"transB" and parts.get((3, _VARINT)) == 1
    untransposed = kind_of_node == "MatMul" or (kind_of_node == "Gemm" and not turns)
    return set(inputs[1:2]) if untransposed else set()
