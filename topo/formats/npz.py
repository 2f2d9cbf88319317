"""numpy's npz: one array of 0 and 1 per parameter name.

Those that this project writes say so in the comment of the archive, which numpy does not look at: their names are
taken as they are, whatever a pruner or wrapper would have meant by them.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import numpy as np

from topo._support.atomic import replacing
from topo.errors import FormatError
from topo.formats.mask_dict import only_masks, refuse_doubles
from topo.formats.source import Found, Source, reader
from topo.masks import MaskSet

SCHEMA = "topo-masks-npz/1"


def recognise(source: Source) -> str | None:
    if source.container.kind != "npz":
        return "it is not an npz"
    if not source.state:
        return "it holds no array of numbers (an array of objects could run code, and is not read)"
    if all(re.fullmatch(r"arr_\d+", name) for name in source.state):
        return "its arrays have no names"
    return only_masks(source.state)


def write(masks: MaskSet, path: Path) -> None:
    """Deflated bool arrays, dated 1980 so that the same masks make the same bytes; numpy.load reads them."""
    odd = next((name for name in masks if not _fits(name)), None)
    if odd is not None:
        raise FormatError(f"an npz cannot hold the name {odd[:60]!r}; write the masks as .safetensors")
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in masks:
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, masks[name], allow_pickle=False)
        archive.comment = json.dumps({"topo_schema": SCHEMA, "layout": "output-first"}).encode()


def _fits(name: str) -> bool:
    """Whether a zip can have an entry of this name: without a zero, in whole characters, of fewer than 64 kB."""
    try:
        return "\0" not in name and len(name.encode()) < 65_000
    except UnicodeEncodeError:
        return False


@reader(
    "npz",
    "numpy's .npz: an array of 0 and 1 per parameter name",
    before="mask_dict",
    recognise=recognise,
    output_first=True,
    ending=".npz",
    write=write,
)
def read(source: Source) -> Found:
    if source.own is None:
        refuse_doubles(source)
    return source.state
