"""Mask files in and out. Adding a format is adding a file with a function under `@reader` (topo.formats.source)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from topo.containers.opening import open_container
from topo.containers.tensors import Tensor
from topo.errors import FormatError, MaskError, TopoError, WiringError
from topo.formats import live
from topo.formats.choosing import WAY_OUT, Choice, choose
from topo.formats.coverage import Coverage, coverage, disagreements, of_model, told, unused
from topo.formats.experts import renamed
from topo.formats.fitting import aligned, oriented, without_scales
from topo.formats.names import RECURRENT, is_embedding, is_weight, plain
from topo.formats.source import Reader, Source, formats, plural, reader, readers, some
from topo.formats.weights import weights_of
from topo.formats.zeros import rounded
from topo.masks import MaskSet

if TYPE_CHECKING:
    from topo.containers.container import Container
    from topo.wiring import Wiring

__all__ = ["formats", "live", "read", "read_container", "read_weights", "reader", "readers", "refusal", "write"]

_LONGEST = 1500
_REFUSAL = 400
_SAMPLED = 2


def _line(text: str, longest: int = _LONGEST) -> str:
    """One printable line of bounded length: names come from strangers' files."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= longest else text[: longest - 4] + " ..."


def refusal(path: str | Path, reason: object) -> str:
    """A line that names the file, by its last part if its path is long, and ends with the way out."""
    name = str(path) if len(str(path)) <= 120 else f".../{Path(path).name}"
    text = f"'{name}': {reason}"
    if len(text) > _REFUSAL and text.endswith(WAY_OUT):
        return f"{_line(text.removesuffix(WAY_OUT), _REFUSAL - len(WAY_OUT) - 2).rstrip('; ')}; {WAY_OUT}"
    return _line(text, _REFUSAL)


def read(
    path: str | Path,
    wiring: Wiring | None = None,
    format: str | None = None,
    *,
    key: str | None = None,
    rule: Mapping[str, float] | None = None,
) -> MaskSet:
    """The masks in a file, or in a folder of shards, whatever pruner wrote them.

    wiring: of the network the masks belong to; needed where a file carries no names or stores layers input-first. The
    masks then come in its order and fit it. format: the reader to use, by name; by default the first of `readers()`
    that recognises the file. key: the place in the file that is meant, "masks" or "pruner/masks", where there are
    several. rule: {"topk": share} or {"threshold": score}, for files of scores. The provenance says which reader it was
    (`format`), the file's name (`file`), what was assumed (`notes`), and what was read and what was not (`coverage`).

    No file runs code. Raises FormatError for a file that is not, or must not be, read; MaskError for values that no
    mask holds; WiringError for masks that do not fit the wiring. Each message is one line that names the file.
    """
    chosen = None if format is None else formats[format]
    path = Path(path)
    try:
        if not path.exists():
            raise FormatError("there is no such file")
        return read_container(open_container(path), path.name, wiring, chosen, key, rule)
    except (FormatError, MaskError, WiringError) as error:
        raise type(error)(refusal(path, error)) from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(refusal(path, f"it cannot be read: {error}")) from None


def read_container(
    container: Container,
    name: str,
    wiring: Wiring | None = None,
    chosen: Reader | None = None,
    key: str | None = None,
    rule: Mapping[str, float] | None = None,
) -> MaskSet:
    """The masks in what was opened; `read` names the file in front of the errors."""
    source = Source(container, wiring, list(container.notes), requested=chosen is not None, rule=rule or {}, key=key)
    if source.own is not None and chosen is None and key is None:
        choice = Choice(formats[source.own], source.at(source.tree[0]))
    else:
        choice = choose(source, chosen)
    source = choice.source
    try:
        masks, known = _masks(choice)
    except (FormatError, MaskError) as error:
        said = str(error)
        prefix = "" if said.startswith("read as ") else f"read as {choice.reader.name}: "
        raise type(error)(f"{prefix}{said}") from None
    if rule and choice.reader.name != "scores":
        raise FormatError(f"-O {next(iter(rule))} makes masks of scores; it is read as {choice.reader.name}")
    if wiring is not None:
        wiring.check(masks)
        missing = [name for name in wiring.names if name not in masks]
        if missing:
            source.notes.append(f"{plural(len(missing), 'layer')} of the model without a mask: {some(missing)}")
        if choice.reader.name != "topo":  # what this project writes without a mask is dense
            known = of_model(known, wiring, {name: masks.rows(name) for name in masks})
        masks = masks.in_order(wiring.names)
        turned = {name: groups for name, groups in wiring.input_first.items() if name in masks}
        source.provenance.update({"input_first": turned} if turned else {})
    notes = [*map(_line, told(known)), *map(_line, source.notes)]
    about = {key: _line(value) if isinstance(value, str) else value for key, value in source.provenance.items()}
    before = about.pop("coverage", None)  # of the file that these masks were converted from
    covered = known.as_dict()
    if isinstance(before, Mapping) and before.get("names") and not known.left_out:
        covered = {**covered, "left_out": before.get("left_out", 0), "names": list(before["names"])}
    return masks.with_provenance(
        **{**about, "format": choice.reader.name, "file": name, "notes": notes, "coverage": covered}
    )


def read_weights(
    path: str | Path, masks: MaskSet, wiring: Wiring | None = None, key: str | None = None
) -> dict[str, np.ndarray]:
    """The weights of the masked parameters in a checkpoint: parameter -> float array of its mask's shape.

    key: the place in the file that is meant, where there are several.

    Raises FormatError, one line that names the file, if it must not be read or has no weights for a mask.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise FormatError("there is no such file")
        return weights_of(Source(open_container(path), wiring, key=key), masks, wiring)
    except (FormatError, MaskError) as error:
        raise FormatError(_line(f"'{path}': {error}")) from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(_line(f"'{path}': it cannot be read: {error}")) from None


def _masks(choice: Choice) -> tuple[MaskSet, Coverage]:
    """The masks by parameter, output-first, and what of the place they cover."""
    entry, source = choice.reader, choice.source
    if entry.name == source.own and source.wiring is None:  # as they were written
        rows = {name: tensor.bits(name) for name, tensor in choice.found().items()}
        if not rows:
            raise FormatError("it holds no mask")
        return MaskSet(rows), Coverage(sum(mask.size for mask in rows.values()), {})
    raw, made = renamed(choice.found(), source.wiring.names if source.wiring is not None else None)
    source.made.update(made)
    names = aligned(raw, source.wiring, [plain(name) for name in source.state])
    raw = _of_the_model(raw, names, source)
    found = without_scales({names[name]: tensor for name, tensor in raw.items()}, source, entry.output_first)
    if not found:
        raise FormatError("it holds no mask of two or more dimensions")
    output_first = entry.output_first and not source.as_parameters
    found, unsure = oriented(found, source.wiring, output_first)
    unsure = [name for name in unsure if name not in source.provenance.get("input_first", {})]
    if unsure and output_first:
        source.notes.append(f"square layers that torch stores input-first, taken as (out, in): {some(unsure)}")
    rows = {name: tensor.bits(name) for name, tensor in found.items()}
    inferred = [name for name, tensor in found.items() if tensor.inferred]
    if len(inferred) == len(found):
        shares = {name: rows[name].kept() / rows[name].size for name in inferred}
        full = sum(share == 1 for share in shares.values())
        if full == len(inferred) and not source.requested:
            raise FormatError(_dense(source, inferred))
        source.notes.insert(0, f"masks inferred from zeros; {full} of {plural(len(inferred), 'layer')} hold no zero")
        source.notes += _roundings(found, shares)
    else:
        source.notes += disagreements(source, raw, {name: rows[name] for name in rows if name not in inferred}, names)
    if entry.name not in ("mask_buffers", "scores", "gem_miner", "torch_ao"):  # which read such tensors
        source.notes += unused(source, raw)
    return MaskSet(rows), coverage(source, raw, rows)


def _of_the_model(raw: dict[str, Tensor], names: Mapping[str, str], source: Source) -> dict[str, Tensor]:
    """Without masks of what a model's wiring may leave out: embeddings, recurrent and bare parameters."""
    wiring = source.wiring
    if wiring is None or not any(name in wiring.shapes for name in names.values()):
        return raw
    return {
        name: tensor
        for name, tensor in raw.items()
        if names[name] in wiring.shapes
        or not (is_embedding(name) or RECURRENT.search(names[name]) or not is_weight(names[name]))
        or tensor.ndim < 2
        or names[name].endswith("kernel")
    }


def _dense(source: Source, names: list[str]) -> str:
    wide = source.place.wide
    if wide and all(tensor.is_signs for tensor in wide):
        return f"its tensors hold only -1 and 1; a mask holds 0 and 1; {WAY_OUT}"
    return (
        f"no weight of its {plural(len(names), 'layer')} is zero: dense, or its masks are elsewhere; "
        f"--format zeros reads it as dense; {WAY_OUT}"
    )


def _roundings(found: Mapping[str, Tensor], shares: Mapping[str, float]) -> list[str]:
    """A note on zeros that rounding weights to a few levels makes as well."""
    some_zeros = [name for name, share in shares.items() if 0 < share <= 0.9]
    sampled = some_zeros[:: -(-len(some_zeros) // _SAMPLED)] if some_zeros else []  # rounding is of a whole network
    levels = [name for name in sampled if rounded(found[name])]
    if not levels:
        return []
    return [
        f"weights on a grid of few levels, as int4 and int8 rounding leaves them: {some(levels)}; quantisation makes "
        "such zeros without any pruning, and some among others"
    ]


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
