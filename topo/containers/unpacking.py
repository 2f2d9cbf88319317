"""Bytes that are packed in a file, unpacked within bounds: into memory while they are few, else into a temporary file
that is mapped."""

from __future__ import annotations

import tempfile
from mmap import ACCESS_READ, mmap
from typing import Protocol

from topo.containers.container import MEGABYTE
from topo.errors import FormatError

# Weights seldom shrink to a hundredth; zeros do, and are small or refused.
_SHRINKS = 100
_FREE_BYTES = 128 * MEGABYTE
_IN_MEMORY = 8 * MEGABYTE
_AT_ONCE = 1 * MEGABYTE


class Stream(Protocol):
    """What can be read piece by piece."""

    def read(self, count: int, /) -> bytes: ...


def unpacked(stream: Stream, packed: int) -> bytes | mmap:
    """All that a stream gives of `packed` bytes; FormatError for a decompression bomb and for an empty part."""
    most = max(_FREE_BYTES, _SHRINKS * packed)
    size = 0
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as held:
        while piece := stream.read(_AT_ONCE):
            size += len(piece)
            if size > most:
                raise FormatError(
                    f"its {packed:,} bytes unpack to more than {most:,}, {_SHRINKS} times as many: refused as a "
                    "decompression bomb"
                )
            held.write(piece)
        if not size:
            raise FormatError("it is empty when unpacked")
        if size <= _IN_MEMORY:
            held.seek(0)
            return held.read()
        held.flush()
        return mmap(held.fileno(), 0, access=ACCESS_READ)  # keeps the file, which has no name any more
