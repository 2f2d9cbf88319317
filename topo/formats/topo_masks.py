"""The project's own mask file: safetensors, one uint8 tensor per parameter, and what is known of the masks as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from topo._version import __version__
from topo.containers import safetensors
from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.source import Found, Source, formats, reader
from topo.masks import MaskSet

SCHEMA = "topo-masks/1"
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
    origin = {key: known.pop(key) for key in ("format", "file") if key in known}
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
        known: dict[str, Any] = json.loads(metadata.get("provenance", "{}"))
        order = json.loads(metadata.get("order", "[]"))
        options = json.loads(metadata.get("options") or "{}")
        if metadata.get("input_shape"):
            known["input_shape"] = [int(n) for n in metadata["input_shape"].split("x")]
        if metadata.get("seed"):
            seed = metadata["seed"]
            known["seed"] = int(seed) if seed.lstrip("-").isdecimal() else seed
        for key in ("model", "method", "created_by"):
            if metadata.get(key):
                known[key] = metadata[key]
        if options:
            known["options"] = options
        source.notes.extend(str(note) for note in known.pop("notes", ()))
        source.provenance.update(known)
        first = [name for name in order if name in source.state]
        turned = {str(name): int(groups) for name, groups in json.loads(metadata.get("input_first") or "{}").items()}
        if min(turned.values(), default=1) < 1:
            raise ValueError("a layer in less than one group")
        if turned:
            source.provenance["input_first"] = turned
        source.as_parameters = not turned and _as_read(known.get("source"))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"its metadata is corrupt: {error}") from None
    found = {name: source.state[name] for name in dict.fromkeys([*first, *source.state])}
    return {name: mask.output_first(turned[name]) if name in turned else mask for name, mask in found.items()}
