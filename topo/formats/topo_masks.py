"""The project's own mask file: safetensors, one uint8 tensor per parameter, and what is known of the masks as text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topo._version import __version__
from topo.containers import safetensors
from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.source import Found, Source, formats, reader
from topo.masks import MaskSet

SCHEMA = "topo-masks/1"
_DEEPEST = 16
# Provenance entries with a text of their own in the file; the others are kept together as JSON.
_OWN = ("model", "input_shape", "method", "options", "seed", "input_first")


def recognise(source: Source) -> str | None:
    schema = source.container.metadata.get("topo_schema")
    return None if schema == SCHEMA else f"its metadata has topo_schema {schema!r}, not {SCHEMA!r}"


def write(masks: MaskSet, path: Path) -> None:
    """The masks with their provenance, each laid out as its parameter, so that weight * mask is right for any reader.

    What is not known is an empty text. Layers that the provenance calls `input_first` (name -> groups) are turned, and
    turned back when they are read; those of a mask set that knows nothing of its network stay output-first.
    """
    known = dict(masks.provenance)
    origin = {key: known.pop(key) for key in ("format", "file", "sha256") if key in known}
    if origin.get("format", "topo") != "topo":
        known.setdefault("source", origin)
    shape = known.pop("input_shape", None)
    turned = {name: groups for name, groups in (known.get("input_first") or {}).items() if name in masks}
    own: dict[str, Any] = {key: known.pop(key, None) for key in _OWN if key != "input_shape"}
    metadata = {
        "topo_schema": SCHEMA,
        "model": _text(own["model"]),
        "input_shape": "x".join(str(int(n)) for n in shape) if shape else "",
        "method": _text(own["method"]),
        "options": _json({} if own["options"] is None else own["options"]),
        "density": repr(masks.density),
        "seed": _text(own["seed"]),
        "created_by": f"topo {__version__}",
        "order": _json(list(masks)),
        "input_first": _json(turned),
        "provenance": _json({key: value for key, value in known.items() if key not in ("density", "created_by")}),
    }

    def stored(name: str) -> Tensor:  # turning twice is the way back
        return Tensor.of(masks[name]).output_first(turned[name])

    shapes = {name: stored(name).shape if name in turned else size for name, size in masks.shapes.items()}
    safetensors.save(
        path, shapes.items(), lambda name: stored(name).whole() if name in turned else masks[name], metadata
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise FormatError(f"the provenance of the masks cannot be written as JSON: {error}") from None


def _loaded(metadata: Mapping[str, str], name: str, empty: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{name} holds {constant}, which is not JSON")

    return json.loads(metadata.get(name) or empty, parse_constant=refuse)


def _checked(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name} is a {type(value).__name__}, not a {kind.__name__}")
    return value


def _texts(name: str, value: Any) -> list[str]:
    found: list[str] = _checked(name, value, list)
    if not all(isinstance(text, str) for text in found):
        raise ValueError(f"{name} holds what is not text")
    return found


def _whole(name: str, value: Any, least: int) -> int:
    """A whole number, or its digits, within 32 bits."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
        value = int(value)
    if type(value) is not int or not least <= value < 1 << 32:
        raise ValueError(f"{name} holds {str(value)[:40]!r}; it holds whole numbers from {least}")
    return value


def _check_coverage(value: Any) -> None:
    if value is None:
        return
    _checked("coverage", value, dict)
    for count in ("read", "left_out"):
        if type(value.get(count, 0)) is not int or not 0 <= value.get(count, 0) < 1 << 62:
            raise ValueError(f"coverage has no number '{count}'")
    _texts("coverage names", value.get("names", []))


def _printable(value: Any, name: str, depth: int = 0) -> Any:
    """A value of JSON whose texts are printable lines, of bounded depth and with numbers that JSON can hold again."""
    if depth > _DEEPEST:
        raise ValueError(f"{name} lies more than {_DEEPEST} levels deep")
    if isinstance(value, str):
        return "".join(letter if letter.isprintable() else " " for letter in value)
    if isinstance(value, list):
        return [_printable(entry, name, depth + 1) for entry in value]
    if isinstance(value, dict):
        return {_printable(key, name): _printable(entry, name, depth + 1) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):  # 1e999
        raise ValueError(f"{name} holds {value}, which is not JSON")
    return value


def _as_read(origin: Any) -> bool:
    """Whether masks come from a file of a format that lays them out as parameters, read without its model."""
    name = origin.get("format") if isinstance(origin, dict) else None
    return isinstance(name, str) and name in formats and not formats[name].output_first


@reader(
    "topo",
    "the project's own .safetensors: a uint8 tensor per mask, model, method, density and seed as text",
    before=("torch_prune", "gem_miner", "rigl", "torch_ao", "bitmask", "flax", "openlth"),
    recognise=recognise,
    output_first=True,
    ending=".safetensors",
    write=write,
)
def read(source: Source) -> Found:
    metadata = source.container.metadata
    try:
        known = _checked("provenance", _loaded(metadata, "provenance", "{}"), dict)
        known = {name: value for name, value in known.items() if name not in _OWN}
        order = _texts("order", _loaded(metadata, "order", "[]"))
        options = _checked("options", _loaded(metadata, "options", "{}"), dict)
        if metadata.get("input_shape"):
            known["input_shape"] = [_whole("input_shape", n, 0) for n in metadata["input_shape"].split("x")]
        if metadata.get("seed"):
            seed = metadata["seed"]
            known["seed"] = int(seed) if re.fullmatch(r"-?[0-9]{1,40}", seed) else seed
        for key in ("model", "method", "created_by"):
            if metadata.get(key):
                known[key] = metadata[key]
        if re.fullmatch(r"[01](\.\d{1,20})?(e-\d{1,3})?", metadata.get("density", "")):
            known["density"] = float(metadata["density"])
        if options:
            known["options"] = options
        source.notes.extend(_texts("notes", known.pop("notes", [])))
        _check_coverage(known.get("coverage"))
        source.provenance.update({name: _printable(value, name) for name, value in known.items()})
        first = [name for name in order if name in source.state]
        requested = _checked("input_first", _loaded(metadata, "input_first", "{}"), dict)
        turned = {name: _whole("input_first", groups, 1) for name, groups in requested.items()}
        if turned:
            source.provenance["input_first"] = turned
        source.as_parameters = not turned and _as_read(known.get("source"))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"its metadata is corrupt: {error}") from None
    found = {name: source.state[name] for name in dict.fromkeys([*first, *source.state])}
    return {name: mask.output_first(turned[name]) if name in turned else mask for name, mask in found.items()}
