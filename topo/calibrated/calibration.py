"""What is sent through a model to calibrate its pruning: a text file, a file of token numbers, or any batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topo._support.seeds import as_rng
from topo.containers.opening import open_container
from topo.containers.tensors import Tensor as Stored
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
    held = _numbers(path) if path.suffix.lower() in (".npy", ".npz", ".pt", ".pth", ".safetensors") else None
    tokens = _tokenized(path, tokenizer) if held is None else held
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


def _numbers(path: Path) -> np.ndarray:
    """The one array of whole numbers in a file."""
    found = [np.asarray(tensor.whole()) for tensor in _leaves(open_container(path).content)]
    whole = [array for array in found if array.dtype.kind in "iu" and array.ndim in (1, 2)]
    if len(whole) != 1:
        said = ", ".join(f"{array.dtype} {array.shape}" for array in found[:4]) or "no array"
        raise TopoError(f"'{path}' holds {said}; token numbers are one array of whole numbers, a row a sequence")
    return np.asarray(whole[0])


def _leaves(held: Any) -> list[Stored]:
    if isinstance(held, Stored):
        return [held]
    parts = held.values() if isinstance(held, Mapping) else held if isinstance(held, tuple | list) else ()
    return [leaf for part in parts for leaf in _leaves(part)]


def _tokenized(path: Path, tokenizer: str | Path | None) -> np.ndarray:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TopoError(f"'{path}' is not text in UTF-8: {error.reason} at byte {error.start}") from None
    if tokenizer is None:
        raise TopoError(f"'{path}' is text, which needs the tokenizer of an hf:FOLDER model; give token numbers (.npy)")
    import transformers

    try:
        made = transformers.AutoTokenizer.from_pretrained(tokenizer, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TopoError(f"the folder '{tokenizer}' has no tokenizer that can be read ({said:.120})") from None
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # of texts longer than the model's context, which are cut
    try:
        return np.asarray(made(text, add_special_tokens=False)["input_ids"], np.int64)
    finally:
        transformers.logging.set_verbosity(level)


def speaks(model: nn.Module) -> bool:
    """Whether the model takes token numbers: it has an embedding."""
    return any(isinstance(part, nn.Embedding) for part in model.modules())


Call = tuple[tuple[Any, ...], dict[str, Any]]


def calls(calibration: Iterable[Any] | None, model: nn.Module, method: str) -> list[Call]:
    """Arguments of the model, one call for each of the calibration's items.

    An item is a tensor (token numbers, images), a dict of arguments by name, or a pair (x, y), whose y is not
    looked at. TopoError if there is none, or if one is something else.
    """
    parameter = next(model.parameters())

    def placed(value: Any) -> Any:
        tensor = torch.as_tensor(np.asarray(value) if isinstance(value, list) else value)
        return tensor.to(parameter.device, parameter.dtype if tensor.is_floating_point() else tensor.dtype)

    found: list[Call] = []
    for number, item in enumerate(calibration if calibration is not None else ()):
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
