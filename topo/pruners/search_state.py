"""What a search that trains has reached, in a file after every epoch: a search that was killed goes on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topo._support.atomic import replacing
from topo._support.doors import first_line
from topo.errors import TopoError

SCHEMA = "topo-search/1"


class SearchState:
    """The state of one search, in one file; without a path nothing is kept.

    words and tensors tell the search from every other one: what it is asked for, and its data and weights. TopoError
    for a file that is none, or that holds another search's state.
    """

    def __init__(self, path: str | Path, words: Any, tensors: Iterable[Tensor]) -> None:
        self.path = Path(path) if path else None
        self.identity = "" if self.path is None else _digest(words, tensors)

    def read(self) -> dict[str, Any] | None:
        """What `write` wrote last, with torch's generator as it was then; None if there is nothing yet."""
        if self.path is None or not self.path.exists():
            return None
        try:
            held = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch lets out whatever its readers meet
            raise TopoError(f"'{self.path}' is not a state of a search that can be read: {first_line(error)}") from None
        if not isinstance(held, dict) or held.get("schema") != SCHEMA:
            raise TopoError(f"'{self.path}' is not a state of a search; state names a file of its own")
        if held["identity"] != self.identity:
            raise TopoError(
                f"'{self.path}' holds the state of a search with other options, weights or data; give another file, or "
                "remove it"
            )
        torch.set_rng_state(held["torch"])
        return dict(held["held"])

    def write(self, **held: Any) -> None:
        """Keep tensors, numbers and texts, with the state of torch's generator; whole or not at all."""
        if self.path is None:
            return
        state = {"schema": SCHEMA, "identity": self.identity, "torch": torch.get_rng_state(), "held": held}
        with replacing(self.path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)


def of_generator(rng: np.random.Generator) -> str:
    """The state of a generator as text."""
    return json.dumps(rng.bit_generator.state)


def to_generator(rng: np.random.Generator, text: str) -> None:
    """Bring a generator back to such a state."""
    rng.bit_generator.state = json.loads(text)


def _digest(words: Any, tensors: Iterable[Tensor]) -> str:
    found = hashlib.sha256(json.dumps(words, sort_keys=True, default=str).encode())
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        found.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return found.hexdigest()


def as_tensors(held: Any) -> list[Tensor]:
    """All tensors in lists, tuples and dicts."""
    if isinstance(held, Tensor):
        return [held]
    parts = held.values() if isinstance(held, Mapping) else held if isinstance(held, tuple | list) else ()
    return [tensor for part in parts for tensor in as_tensors(part)]
