"""Mask files in and out. Adding a format is adding a file with a function under `@reader` (topo.formats.source)."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from topo.containers.opening import open_container
from topo.errors import FormatError, MaskError, TopoError, WiringError
from topo.formats.fitting import aligned, oriented, without_scales
from topo.formats.source import Found, Reader, Source, formats, plural, reader, readers, some
from topo.formats.weights import weights_of
from topo.masks import BitRows, MaskSet

if TYPE_CHECKING:
    from topo.wiring import Wiring

__all__ = ["formats", "read", "read_weights", "reader", "readers", "write"]

_LONGEST = 1500


def _line(text: str) -> str:
    """One printable line of bounded length: names come from strangers' files."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4] + " ..."


def read(path: str | Path, wiring: Wiring | None = None, format: str | None = None) -> MaskSet:
    """The masks in a file, or in a folder of shards, whatever pruner wrote them.

    wiring: of the network the masks belong to; needed where a file carries no names or stores layers input-first. The
    masks then come in its order and fit it. format: the reader to use, by name; by default the first of `readers()`
    that recognises the file. The provenance says which (`format`), the file's name (`file`), and what was assumed
    (`notes`).

    No file runs code. Raises FormatError for a file that is not, or must not be, read; MaskError for values that no
    mask holds; WiringError for masks that do not fit the wiring. Each message is one line that names the file.
    """
    chosen = None if format is None else formats[format]
    path = Path(path)
    try:
        return _read(path, wiring, chosen)
    except (FormatError, MaskError, WiringError) as error:
        raise type(error)(_line(f"'{path}': {error}")) from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(_line(f"'{path}': it cannot be read: {error}")) from None


def _read(path: Path, wiring: Wiring | None, chosen: Reader | None) -> MaskSet:
    if not path.exists():
        raise FormatError("there is no such file")
    container = open_container(path)
    source = Source(container, wiring, list(container.notes))
    entry = _recognised(source, chosen)
    try:
        masks = _masks(entry, source)
    except (FormatError, MaskError) as error:
        raise type(error)(f"read as {entry.name}: {error}") from None
    if wiring is not None:
        wiring.check(masks)
        missing = [name for name in wiring.names if name not in masks]
        if missing:
            source.notes.append(f"{plural(len(missing), 'layer')} of the model without a mask: {some(missing)}")
        masks = masks.in_order(wiring.names)
        turned = {name: groups for name, groups in wiring.input_first.items() if name in masks}
        source.provenance.update({"input_first": turned} if turned else {})
    notes = [_line(note) for note in source.notes]
    said = {key: _line(value) if isinstance(value, str) else value for key, value in source.provenance.items()}
    return masks.with_provenance(**{**said, "format": entry.name, "file": path.name, "notes": notes})


def read_weights(path: str | Path, masks: MaskSet, wiring: Wiring | None = None) -> dict[str, np.ndarray]:
    """The weights of the masked parameters in a checkpoint: parameter -> float array of its mask's shape.

    Raises FormatError, one line that names the file, if it must not be read or has no weights for a mask.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise FormatError("there is no such file")
        return weights_of(Source(open_container(path), wiring), masks, wiring)
    except (FormatError, MaskError) as error:
        raise FormatError(_line(f"'{path}': {error}")) from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(_line(f"'{path}': it cannot be read: {error}")) from None


def _recognised(source: Source, chosen: Reader | None) -> Reader:
    """The chosen reader, or the first that recognises the file; FormatError with what each said if there is none."""
    refusals = []
    for entry in [chosen] if chosen else readers():
        lacks = entry.lacks(source)
        if lacks is None:
            return entry
        refusals.append(f"{entry.name}: {lacks}")
    raise FormatError(f"no masks found in it; it holds {source.described[:300]}; tried {'; '.join(refusals)}")


def _masks(entry: Reader, source: Source) -> MaskSet:
    found: Found = entry.masks(source)
    names = aligned(found, source.wiring)
    found = without_scales({names[name]: tensor for name, tensor in found.items()}, source, entry.output_first)
    if not found:
        raise FormatError("it holds no mask of two or more dimensions")
    output_first = entry.output_first and not source.as_parameters
    found, unsure = oriented(found, source.wiring, output_first)
    unsure = [name for name in unsure if name not in source.provenance.get("input_first", {})]
    if unsure and output_first:
        source.notes.append(f"square layers that torch stores input-first, taken as (out, in): {some(unsure)}")
    rows: dict[str, BitRows] = {name: tensor.bits(name) for name, tensor in found.items()}
    inferred = [name for name, tensor in found.items() if tensor.inferred]
    if inferred:
        full = sum(rows[name].kept() == rows[name].size for name in inferred)
        source.notes.insert(0, f"masks inferred from zeros; {full} of {plural(len(inferred), 'layer')} hold no zero")
    return MaskSet(rows)


def write(masks: MaskSet, path: str | Path) -> None:
    """Write masks in the format that the file's ending names; the same masks, the same bytes.

    Raises FormatError for another ending, TopoError if the file cannot be written.
    """
    path = Path(path)
    writers = {entry.ending: entry.write for entry in formats.values() if entry.write}
    if path.suffix not in writers:
        raise FormatError(f"'{path}': masks are written to files that end in {' or '.join(map(str, writers))}")
    if path.is_dir():
        raise TopoError(f"cannot write '{path}': it is a folder")
    writers[path.suffix](masks, path)
