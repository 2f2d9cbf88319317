"""torch.ao.pruning: the state of a sparsifier, state -> parameter name -> mask; and masks kept as parametrizations."""

from __future__ import annotations

from typing import Any

from topo.containers.tensors import Tensor
from topo.formats.source import Found, Source, reader, suffixed

_BUFFER = ".parametrizations.weight.0.mask"


def _sparsifier(content: Any) -> dict[str, Tensor]:
    """The masks in `sparsifier.state_dict()`, which stands by itself or under a key of a checkpoint."""
    if not isinstance(content, dict):
        return {}
    for entry in (content, *content.values()):
        states = entry.get("state") if isinstance(entry, dict) else None
        if not isinstance(states, dict):
            continue
        found = {
            str(name): state["mask"]
            for name, state in states.items()
            if isinstance(state, dict) and isinstance(state.get("mask"), Tensor)
        }
        if found:
            return found
    return {}


def recognise(source: Source) -> str | None:
    if suffixed(source.state, _BUFFER) or _sparsifier(source.content):
        return None
    return f"no sparsifier state with masks and no '*{_BUFFER}'"


@reader(
    "torch_ao",
    "torch.ao.pruning: sparsifier.state_dict(), or masks kept as parametrizations",
    before="npz",
    recognise=recognise,
)
def read(source: Source) -> Found:
    found = _sparsifier(source.content)
    return found or {f"{name}.weight": mask for name, mask in suffixed(source.state, _BUFFER).items()}
