"""Text files that users name: read whole, if they are files, are text and are of a size that text has."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from topo.errors import TopoError

LARGEST = 64_000_000
# Python's TOML takes the square of a key's parts, and a call for each level.
_MOST_PARTS = 100
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


def read_text(path: str | Path, what: str = "text", error: type[TopoError] = TopoError, largest: int = LARGEST) -> str:
    """The text of a regular UTF-8 file of at most 64 MB, or `largest` bytes.

    what: what the file is to hold, for the message. error: the class of what is raised, one line that names the file,
    for a device, pipe, folder or missing file (none of which is waited for), for more bytes, and for what is not text.
    """
    shown = "".join(letter if letter.isprintable() else " " for letter in str(path))
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            kind = "a folder" if stat.S_ISDIR(about.st_mode) else "not a regular file"
            raise error(f"'{shown}' is {kind}, so it holds no {what}")
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # of a pipe by now, without waiting
            data = file.read(largest + 1) if about.st_size <= largest else b""
    except (OSError, ValueError) as reason:
        said = reason.strerror if isinstance(reason, OSError) else reason
        raise error(f"cannot read '{shown}': {said}") from None
    if about.st_size > largest or len(data) > largest:
        size = max(about.st_size, len(data))
        raise error(f"'{shown}' has {size:,} bytes, more than the {largest:,} that are read as {what}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise error(f"'{shown}' is not text, so it holds no {what}") from None


def tables_of(text: str, name: str, error: type[TopoError] = TopoError) -> dict[str, Any]:
    """The tables of a TOML text; error, one line that calls it by this name, if it is none or too deep to be read."""
    if any(map(_is_deep, text.splitlines())):
        raise error(f"{name} has a key of more than {_MOST_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise error(f"{name} is nested too deep to be read") from None
    except ValueError as reason:
        raise error(f"{name} is not TOML: {reason}") from None


def _is_deep(line: str) -> bool:
    if line.count(".") <= _MOST_PARTS:
        return False
    return any(part.count(".") > _MOST_PARTS for part in _QUOTED.sub("", line.partition("=")[0]).split(","))
