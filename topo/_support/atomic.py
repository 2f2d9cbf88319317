"""Files are written beside their place and renamed into it: a reader never sees half a file, a failure leaves none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topo.errors import TopoError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success rename it to `path`, on any failure remove it.

    The temporary file ends as `path` does, for writers that look at the ending.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise TopoError(f"cannot write '{path}': {error.strerror}") from None
    os.close(handle)
    try:
        yield Path(name)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except OSError as error:
        raise TopoError(f"cannot write '{path}': {error.strerror}") from None
    finally:
        if os.path.exists(name):
            os.unlink(name)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole text file, UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
