"""What a stranger's config.json may ask for: a network of a size that exists, from the disk alone, and no code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from topo._support.text_files import read_text
from topo.errors import TopoError

# Above what is published: 1e6 to 1e13 parameters, vocabularies of a million, positions of ten million, 200 layers.
_LONGEST_FILE = 1 << 24  # bytes
_LARGEST = 1 << 24  # a width, a vocabulary, a number of positions
_MOST_LAYERS = 10_000
_MOST_MODULES = 200_000
_MOST_PARAMETERS = 10**13
_LAYERS = re.compile(r"layers?$|depths?$|blocks?$|stages?$|^repeats$")
_NO_SIZE = re.compile(r"(^|_)(ids?|tokens?|seed|theta|base|params|parameters|max_length)(_|$)|^id2|2id$")


def check_config(path: Path, model: str) -> None:
    """TopoError for a config.json that is none, names code to fetch ("owner/kernel"), or asks for absurd sizes."""
    try:
        document = json.loads(read_text(path, "configuration", largest=_LONGEST_FILE))
    except (ValueError, RecursionError) as error:
        raise TopoError(f"'{model}': '{path}' is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise TopoError(f"'{model}': '{path}' holds a {type(document).__name__}; a config.json holds an object")
    named = document.get("architectures")
    if named is not None and not (isinstance(named, list) and len(named) < 2):
        raise TopoError(f"'{model}' has architectures {named!r:.80}; it should be a list of one name")
    parts: list[tuple[str, Any]] = [("", document)]
    while parts:
        key, part = parts.pop()
        if "implementation" in key and "/" in (shown := json.dumps(part)):
            raise TopoError(f"'{model}' has {key} {shown:.80}, which is code to fetch; remove it")
        if isinstance(part, dict):
            parts.extend(part.items())
        elif isinstance(part, list):
            parts.extend((key, value) for value in part)
        elif isinstance(part, int) and not isinstance(part, bool) and not _NO_SIZE.search(key):
            most = _MOST_LAYERS if _LAYERS.search(key) else _LARGEST
            if abs(part) > most:
                shown = f"{part:,}" if abs(part) < 10**15 else "a number beyond all sizes"
                raise TopoError(f"'{model}' has {key} {shown}; up to {most:,} are built")


@contextmanager
def bounded(model: str) -> Iterator[None]:
    """Within it nothing is fetched, and a network of too many modules or parameters is a TopoError while it is built.

    A config has more ways to ask for size than have names (patterns of layers, experts of experts): what is made is
    counted as it is made.
    """
    from torch.nn.modules import module as registering

    modules = parameters = 0

    def another_module(owner: Any, name: str, made: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > _MOST_MODULES:
            raise TopoError(f"'{model}' has more than {_MOST_MODULES:,} modules, which are not built")

    def another_parameter(owner: Any, name: str, made: Any) -> None:
        nonlocal parameters
        parameters += 0 if made is None else made.numel()
        if parameters > _MOST_PARAMETERS or max(getattr(made, "shape", ()), default=0) > _LARGEST:
            raise TopoError(
                f"'{model}' has a network of more than {_MOST_PARAMETERS:.0e} parameters, or of more than {_LARGEST:,} "
                "in a row, which is not built"
            )

    hooks = [
        registering.register_module_module_registration_hook(another_module),
        registering.register_module_parameter_registration_hook(another_parameter),
    ]
    try:
        with _offline():
            yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _offline() -> Iterator[None]:
    """Within it the hub's library asks no server. It looked at the environment when it was imported, others do now."""
    from huggingface_hub import constants

    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    before, known = constants.HF_HUB_OFFLINE, {name: os.environ.get(name) for name in names}
    try:
        constants.HF_HUB_OFFLINE = True
        os.environ.update(dict.fromkeys(names, "1"))
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        for name, value in known.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
