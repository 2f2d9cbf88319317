"""What is sent through a model to calibrate its pruning: a text file, a file of token numbers, or any batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topo._support.doors import drawn
from topo._support.seeds import as_rng
from topo.data.tokens import NUMBERS, tokens_in
from topo.errors import TopoError

SEQUENCES = 128
LENGTH = 2048


def read_tokens(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    vocabulary: int | None = None,
    length: int = LENGTH,
    sequences: int | None = None,
    rng: int | np.random.Generator = 0,
) -> list[Tensor]:
    """Sequences of token numbers, (1, length) each, from a file: text (.txt, .md, ...), or whole numbers (.npy, .npz,
    .pt, .safetensors), one row of them or one a sequence.

    tokenizer: the folder of a transformers tokenizer, for text. vocabulary: numbers are below it. sequences: how many,
    128 or as many as there are by default; where there are more, they are drawn from the seed. They do not overlap.

    Raises TopoError, one line, for a file that is none, for text without a tokenizer, numbers that are not tokens, and
    too few of them.
    """
    path = Path(path)
    if not path.is_file():
        raise TopoError(f"'{path}' is not a file; calibration data are a text or a file of token numbers")
    if length < 1 or (sequences is not None and sequences < 1):
        raise TopoError(f"{sequences} sequences of {length} tokens are asked for; it is at least one of at least one")
    if tokenizer is None and path.suffix.lower() not in NUMBERS:
        raise TopoError(f"'{path}' is text, which needs the tokenizer of an hf:FOLDER model; give token numbers (.npy)")
    tokens = tokens_in(path, tokenizer)
    if tokens.size and (int(tokens.min()) < 0 or (vocabulary is not None and int(tokens.max()) >= vocabulary)):
        bad = int(tokens.min()) if int(tokens.min()) < 0 else int(tokens.max())
        raise TopoError(f"'{path}' holds {bad}, which is not a token: the model knows 0 to {(vocabulary or 1) - 1}")
    if tokens.ndim == 2 and tokens.shape[1] < length and len(tokens):
        length = tokens.shape[1]  # sequences as they are
    rows = tokens[:, : tokens.shape[1] // length * length].reshape(-1, length) if tokens.ndim == 2 else None
    if rows is None:
        rows = tokens[: len(tokens) // length * length].reshape(-1, length)
    if not len(rows):
        raise TopoError(
            f"'{path}' holds {tokens.size:,} tokens, too few for one sequence of {length:,}; "
            "give more, or shorter sequences (--length 128)"
        )
    if sequences is not None and len(rows) < sequences:
        raise TopoError(f"'{path}' holds {len(rows):,} sequences of {length:,} tokens; {sequences:,} were asked for")
    wanted = min(len(rows), sequences or SEQUENCES)
    chosen = np.sort(as_rng(rng).choice(len(rows), wanted, replace=False))
    return [torch.from_numpy(rows[number].astype(np.int64))[None] for number in chosen]


def speaks(model: nn.Module) -> bool:
    """Whether the model takes token numbers: it has an embedding."""
    return any(isinstance(part, nn.Embedding) for part in model.modules())


Call = tuple[tuple[Any, ...], dict[str, Any]]


def calls(calibration: Iterable[Any] | None, model: nn.Module, method: str) -> list[Call]:
    """Arguments of the model, one call for each of the calibration's items.

    An item is a tensor (token numbers, images), a dict of arguments by name, or a pair (x, y), whose y is not
    looked at. TopoError if there is none, or if one is something else.
    """
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise TopoError(f"method '{method}' prunes weights, and the model has no parameter")

    def placed(value: Any) -> Any:
        tensor = torch.as_tensor(np.asarray(value) if isinstance(value, list) else value)
        return tensor.to(parameter.device, parameter.dtype if tensor.is_floating_point() else tensor.dtype)

    found: list[Call] = []
    for number, item in enumerate(drawn(calibration, "the calibration data")):
        try:
            if isinstance(item, Mapping):
                found.append(((), {str(k): placed(v) for k, v in item.items() if k != "labels"}))
            elif isinstance(item, tuple | list) and len(item) == 2 and hasattr(item[0], "shape"):
                found.append(((placed(item[0]),), {}))
            else:
                found.append(((placed(item),), {}))
        except (TypeError, ValueError, RuntimeError):
            raise TopoError(
                f"item {number} of the calibration data is a {type(item).__name__}; "
                "it is a tensor, a dict of them or (x, y)"
            ) from None
    if not found:
        raise TopoError(f"method '{method}' needs data: calibration batches of tokens or images (batches, --data FILE)")
    return found
