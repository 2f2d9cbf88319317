"""Text as token numbers: from a user's own files, and the docstrings of Python's own library, for language models."""

from __future__ import annotations

import ast
import hashlib
import platform
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from topo.containers.opening import open_container
from topo.containers.tensors import Tensor as Stored
from topo.errors import DataError

BUILT_IN = "docstrings"
NUMBERS = (".npy", ".npz", ".pt", ".pth", ".safetensors")
TEXTS = (".txt", ".md", ".rst", ".text")
_BYTES = 256  # their number is also the token that masks, where bytes are the tokens
_MODULES = 50  # whose docstrings are read: parsing them all takes four seconds
_TEST = 0.1  # share of a file that is kept for testing, its end


@dataclass(frozen=True, eq=False, repr=False)
class Tokens:
    """Token numbers to train on, to test on and, perhaps, to validate on; each part one row, in the order of the text.

    mask: the token that hides others, None if there is none. notes: what was assumed. DataError for a part that is not
    a row of whole numbers from 0, or is empty.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    val: np.ndarray | None = None
    mask: int | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in self.parts:
            held = np.asarray(getattr(self, part))
            if held.dtype.kind not in "iu" or held.ndim != 1 or not held.size or int(held.min()) < 0:
                least = f" from {held.min()}" if held.dtype.kind in "iu" and held.size else ""
                raise DataError(
                    f"the {part} tokens of '{self.name}' are {held.dtype} of shape {held.shape}{least}; they are a row "
                    "of whole numbers from 0"
                )
            object.__setattr__(self, part, held.astype(np.int64))

    @property
    def parts(self) -> tuple[str, ...]:
        """train, test and, where there is one, val."""
        return ("train", "test") if self.val is None else ("train", "test", "val")

    @property
    def largest(self) -> int:
        """The largest token number, the mask's among them."""
        return max(*(int(getattr(self, part).max()) for part in self.parts), self.mask or 0)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all parts and of the token that masks."""
        found = hashlib.sha256(f"{self.mask}".encode())
        for part in self.parts:
            found.update(f"{part} ".encode() + getattr(self, part).tobytes())
        return found.hexdigest()

    def with_validation(self, share: float) -> Tokens:
        """The same with this share of the training tokens, their end, held out for validation."""
        if self.val is not None:
            raise DataError(f"'{self.name}' has a validation part of its own; val = {share} asks for another")
        kept = len(self.train) - max(1, round(share * len(self.train)))
        if kept < 1:
            raise DataError(f"'{self.name}' has too few tokens for val = {share}")
        note = f"the last {len(self.train) - kept:,} of {len(self.train):,} training tokens are held out for validation"
        return replace(self, train=self.train[:kept], val=self.train[kept:], notes=(*self.notes, note))

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(getattr(self, part)):,} to {part}" for part in self.parts)
        return f"Tokens('{self.name}': {counts})"


def holds_tokens(source: Any, model: str | None = None) -> bool:
    """Whether data of this name are tokens rather than images: by their ending, or since the model is hf:FOLDER."""
    if not isinstance(source, str | Path):
        return isinstance(source, Tokens)
    path = Path(source)
    if str(source) == BUILT_IN or path.suffix.lower() in (*TEXTS, *(end for end in NUMBERS if end != ".npz")):
        return True
    speaks = (model or "").startswith("hf:")
    return (path.is_dir() and bool(_parts(path))) or (speaks and path.is_file())


def load_tokens(source: str | Path | Tokens, *, tokenizer: str | Path | None = None) -> Tokens:
    """Tokens of a text, of a file of token numbers, of a folder with train, test (val) of either, or "docstrings".

    tokenizer: the folder of a transformers tokenizer; without one the tokens of a text are its bytes in UTF-8, and 256
    masks. A file alone is cut: its last tenth is tested on. docstrings: those of fifty modules of Python's own
    library, every fifth module tested on.

    DataError, one line, for files that do not exist or hold something else, and numbers that are not tokens.
    """
    if isinstance(source, Tokens):
        return source
    mask = _BYTES if tokenizer is None else mask_token(tokenizer)
    if str(source) == BUILT_IN:
        parts = [_numbered(text, tokenizer) for text in _docstrings()]
        note = f"docstrings of the standard library of Python {platform.python_version()}; its versions differ"
        return Tokens(BUILT_IN, parts[0], parts[1], mask=mask, notes=(note, *_said(tokenizer)))
    path = Path(source).expanduser()
    if path.is_dir():
        found = _parts(path)
        if not {"train", "test"} <= found.keys():
            raise DataError(f"'{path}' holds no train.txt and test.txt (or .npy, ...); it should hold both")
        rows = {part: tokens_in(file, tokenizer).reshape(-1) for part, file in found.items()}
        notes = _said(tokenizer) if any(file.suffix.lower() in TEXTS for file in found.values()) else ()
        return Tokens(path.name, rows["train"], rows["test"], rows.get("val"), mask=mask, notes=notes)
    row = tokens_in(path, tokenizer).reshape(-1)
    cut = len(row) - max(1, round(_TEST * len(row)))
    if cut < 1:
        raise DataError(f"'{path}' holds {len(row):,} tokens, too few to train and to test on")
    note = f"no test part of its own: the last {len(row) - cut:,} of {len(row):,} tokens are kept for it"
    said = () if path.suffix.lower() in NUMBERS else _said(tokenizer)
    # What stands for a mask among numbers that somebody else made, only their tokenizer tells.
    known = mask if tokenizer is not None or path.suffix.lower() not in NUMBERS else None
    return Tokens(path.stem, row[:cut], row[cut:], mask=known, notes=(note, *said))


def tokens_in(path: str | Path, tokenizer: str | Path | None = None) -> np.ndarray:
    """The token numbers of a file: a text's, one row; of an array's, one or two dimensions."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"'{path}' is not a file; tokens come from a text or a file of token numbers")
    return numbers_in(path) if path.suffix.lower() in NUMBERS else _numbered(text_in(path), tokenizer)


def numbers_in(path: Path) -> np.ndarray:
    """The one array of whole numbers in a file."""
    found = [np.asarray(tensor.whole()) for tensor in _leaves(open_container(path).content)]
    whole = [array for array in found if array.dtype.kind in "iu" and array.ndim in (1, 2)]
    if len(whole) != 1:
        said = ", ".join(f"{array.dtype} {array.shape}" for array in found[:4]) or "no array"
        raise DataError(f"'{path}' holds {said}; token numbers are one array of whole numbers, a row a sequence")
    return np.asarray(whole[0])


def text_in(path: Path) -> str:
    """The text of a file in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not text in UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}") from None


def tokenized(text: str, folder: str | Path) -> np.ndarray:
    """A text's tokens by the transformers tokenizer of a folder, without special ones."""
    import transformers

    made, level = _tokenizer(str(folder)), transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # of texts longer than the model's context, which are cut
    try:
        return np.asarray(made(text, add_special_tokens=False)["input_ids"], np.int64)
    finally:
        transformers.logging.set_verbosity(level)


def mask_token(folder: str | Path) -> int | None:
    """The token with which a folder's tokenizer hides others, None if it has none."""
    found = _tokenizer(str(folder)).mask_token_id
    return None if found is None else int(found)


def has_tokenizer(folder: str | Path) -> bool:
    """Whether a folder holds the files of a tokenizer."""
    names = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "tokenizer_config.json")
    return any((Path(folder) / name).is_file() for name in names)


@cache
def _tokenizer(folder: str) -> Any:
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"the folder '{folder}' has no tokenizer that can be read ({said:.120})") from None


def _numbered(text: str, tokenizer: str | Path | None) -> np.ndarray:
    if tokenizer is not None:
        return tokenized(text, tokenizer)
    return np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8).astype(np.int64)


def _said(tokenizer: str | Path | None) -> tuple[str, ...]:
    return () if tokenizer is not None else (f"the tokens are the text's bytes; {_BYTES} masks",)


def _parts(folder: Path) -> dict[str, Path]:
    """Part -> its file, of a folder; DataError for a part in two files."""
    found: dict[str, Path] = {}
    for part in ("train", "test", "val"):
        files = [folder / f"{part}{end}" for end in (*TEXTS, *NUMBERS) if (folder / f"{part}{end}").is_file()]
        if len(files) > 1:
            raise DataError(f"'{folder}' holds {files[0].name} and {files[1].name}; one of them is the {part} part")
        if files:
            found[part] = files[0]
    return found


@cache
def _docstrings() -> tuple[str, str]:
    """Of the modules of the running Python: the text of four fifths of them, and of every fifth."""
    folder = Path(sysconfig.get_path("stdlib"))
    parts: tuple[list[str], list[str]] = ([], [])
    modules = sorted(path for path in folder.glob("*.py") if path.is_file())[:_MODULES]
    for number, path in enumerate(modules):
        parts[number % 5 == 4].extend(_documented(path))
    if not all(parts):
        raise DataError(f"the standard library in '{folder}' holds no docstrings to read")
    return "\n\n".join(parts[0]), "\n\n".join(parts[1])


def _documented(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            said = ast.get_docstring(node)
            if said:
                yield said


def _leaves(held: Any) -> list[Stored]:
    if isinstance(held, Stored):
        return [held]
    parts = held.values() if isinstance(held, Mapping) else held if isinstance(held, tuple | list) else ()
    return [leaf for part in parts for leaf in _leaves(part)]
