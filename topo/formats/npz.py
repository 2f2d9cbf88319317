"""numpy's npz: one array of 0 and 1 per parameter name."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np

from topo._support.atomic import replacing
from topo.formats.mask_dict import only_masks
from topo.formats.source import Found, Source, reader
from topo.masks import MaskSet


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
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in masks:
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, masks[name], allow_pickle=False)


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
    return source.state
