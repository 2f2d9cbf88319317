"""A wiring as JSON text, and back: all that is needed to analyse masks later without the model's code."""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from topo.errors import WiringError
from topo.masks import BitRows
from topo.wiring.runs import count_units, runs_of, units_of, whole
from topo.wiring.steps import Join, Layer, Step

SCHEMA = "topo-wiring/2"
_READ = (SCHEMA, "topo-wiring/1")  # the first version knew no constants; all that it says means the same


_PARTS = ("rows", "columns")
# Of all patterns together, whole words to a row, and of all lists of units: a few kilobytes of text could stand for
# gigabytes.
_MOST_BITS = 1 << 27
_MOST_LISTED = 1 << 25


def text_of(wiring: Mapping[str, Any]) -> str:
    """The fields of a Wiring as JSON text."""
    shape = wiring["input_shape"]
    document = {
        "schema": SCHEMA,
        "model": wiring["model"],
        "input_shape": list(shape) if shape else None,
        "notes": list(wiring["notes"]),
        "parameters": list(wiring["parameters"]),
        "inputs": runs_of(wiring["inputs"]),
        "outputs": runs_of(wiring["outputs"]),
        "steps": [_step_to_json(step) for step in wiring["steps"]],
        **({"unused": list(wiring["unused"])} if wiring["unused"] else {}),
    }
    return json.dumps(document, separators=(",", ":")) + "\n"


def fields_of(text: str) -> dict[str, Any]:
    """The fields of the Wiring that `text_of` wrote; WiringError if the text is not such JSON."""
    with refusing_odd_values():
        document = json.loads(text)
        if document.get("schema") not in _READ:
            raise WiringError(
                f"this JSON has schema {document.get('schema')!r}; a wiring that this topo reads has "
                + " or ".join(map(repr, _READ))
            )
        if (requested := sum(map(count_units, _lists_of_runs(document)))) > _MOST_LISTED:
            raise WiringError(f"this JSON asks for lists of {requested:,} units; up to {_MOST_LISTED:,} are read")
        if (bits := sum(map(_pattern_bits, document["steps"]))) > _MOST_BITS:
            raise WiringError(f"this JSON asks for patterns of {bits:,} bits; up to {_MOST_BITS:,} are read")
        shape, model, notes = document["input_shape"], document["model"], document["notes"]
        if not isinstance(model, str | None) or not all(isinstance(note, str) for note in notes):
            raise WiringError("the model and the notes of a wiring are text")
        if shape and not all(whole(n, 1) for n in shape):
            raise WiringError(f"the wiring has input_shape {shape}; it is a list of whole numbers of at least 1")
        return {
            "inputs": units_of(document["inputs"]),
            "steps": tuple(_step_from_json(step) for step in document["steps"]),
            "outputs": units_of(document["outputs"]),
            "model": model,
            "input_shape": tuple(shape) if shape else None,
            "notes": tuple(notes),
            "parameters": tuple(document.get("parameters", ())),
            "unused": tuple(str(name) for name in document.get("unused", ())),
        }


@contextmanager
def refusing_odd_values() -> Iterator[None]:
    """Values of unexpected types, wherever they are noticed, are a WiringError."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise WiringError(f"this JSON does not hold a wiring: {type(error).__name__} {error}") from None


def _lists_of_runs(document: Mapping[str, Any]) -> Iterator[Any]:
    yield from (document["inputs"], document["outputs"])
    for step in document["steps"]:
        if step["step"] == "layer":
            yield from (step["reads"], *(step[side] for side in _PARTS if side in step))
        else:
            yield from step["operands"]


def _step_to_json(step: Step) -> dict[str, Any]:
    if isinstance(step, Join):
        return {
            "step": step.kind,
            "operands": [runs_of(operand) for operand in step.operands],
            "start": step.start,
            "width": step.width,
        }
    return {
        "step": "layer",
        "name": step.name,
        "kind": step.kind,
        "shape": list(step.shape),
        "reads": runs_of(step.reads),
        "start": step.start,
        "groups": step.groups,
        "stride": list(step.stride),
        "padding": list(step.padding),
        "dilation": list(step.dilation),
        "positions": step.positions,
        "transposed": step.transposed,
        **{side: runs_of(part) for side in _PARTS if (part := getattr(step, side)) is not None},
        **({"own": list(step.own), "axes": list(step.axes)} if step.own and step.axes else {}),
        **({"pattern": _packed(step.pattern)} if step.pattern is not None else {}),
    }


def _packed(rows: BitRows) -> str:
    """The words of bit rows, little-endian, deflated, in base64."""
    return base64.b64encode(zlib.compress(rows.words.astype("<u8").tobytes())).decode()


def _unpacked(text: str, shape: tuple[int, ...]) -> BitRows:
    columns = math.prod(shape[1:])
    width = -(-columns // 64)
    size = 8 * shape[0] * width
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, zlib.error) as error:
        raise WiringError(f"a pattern of shape {shape} is not deflated base64: {error}") from None
    if len(data) != size:
        raise WiringError(f"a pattern of shape {shape} takes {size:,} bytes, and has others")
    words = np.frombuffer(data, "<u8").reshape(shape[0], width).astype(np.uint64)
    if columns % 64:
        words[:, -1] &= np.uint64((1 << columns % 64) - 1)  # without bits beyond the last column
    return BitRows(shape, words)


def _pattern_bits(step: Mapping[str, Any]) -> int:
    """The bits of a step's pattern, in whole words; 0 of a step without one."""
    if step.get("pattern") is None:
        return 0
    rows, *rest = (int(n) for n in step["shape"])
    return 64 * rows * -(-math.prod(rest) // 64)


def _step_from_json(entry: Mapping[str, Any]) -> Step:
    fields = dict(entry)
    kind = fields.pop("step")
    if kind == "layer":
        if "pattern" in fields:
            fields["pattern"] = _unpacked(fields["pattern"], tuple(int(n) for n in fields["shape"]))
        return Layer(**fields | {side: units_of(fields[side]) for side in ("reads", *_PARTS) if side in fields})
    operands = tuple(units_of(runs) for runs in fields["operands"])
    return Join(kind, operands, fields["start"], fields["width"])
