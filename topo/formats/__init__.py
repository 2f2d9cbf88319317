"""Mask files in and out. Adding a format is adding a file with a function under `@reader` (topo.formats.source)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from topo._support.late import Late
from topo.containers.container import Container, File
from topo.containers.opening import open_container, take_apart
from topo.containers.tensors import Rows, Tensor
from topo.containers.together import shard_of
from topo.errors import FormatError, MaskError, TopoError, WiringError
from topo.formats import live
from topo.formats.beside import called_as_weights, spread
from topo.formats.choosing import Choice, choose
from topo.formats.coverage import coverage, disagreements, of_model, told, uncovered, undecided, unused
from topo.formats.digest import Digest, digest_of
from topo.formats.experts import renamed
from topo.formats.fitting import aligned, oriented, without_scales
from topo.formats.names import RECURRENT, is_embedding, is_weight
from topo.formats.partners import is_called_mask
from topo.formats.source import WAY_OUT, Reader, Source, formats, plural, reader, readers, some
from topo.formats.twins import check_twins
from topo.formats.weights import weights_of
from topo.formats.zeros import rounded
from topo.masks import BitRows, MaskSet

if TYPE_CHECKING:
    from topo.wiring import Wiring

__all__ = [
    "Reading",
    "formats",
    "live",
    "naming",
    "opened",
    "read",
    "read_container",
    "read_weights",
    "reader",
    "readers",
    "refusal",
    "understood",
    "write",
    "writer",
]

Known = Mapping[Rows, tuple[BitRows, int]]

_FLAT = (".bias", "norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")
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
    reading = opened(path, wiring, format, key=key, rule=rule)
    with naming(path):
        return reading.masks()


def opened(
    path: str | Path,
    wiring: Wiring | None = None,
    format: str | None = None,
    *,
    key: str | None = None,
    rule: Mapping[str, float] | None = None,
    partial: bool = False,
) -> Reading:
    """A file that was understood as `read` understands it, whose values are not read yet; the same errors.

    partial: shards that are missing or damaged are left out, and named in the coverage.
    """
    chosen = None if format is None else formats[format]
    path = Path(path)
    with naming(path):
        if not path.exists():
            raise FormatError("there is no such file")
        digest, file = digest_of(path), File(path, partial=partial)
        container = take_apart(file)
        if (note := shard_of(path.name)) and not file.is_folder:
            container = replace(container, notes=(*container.notes, note))
        reading = understood(container, path.name, wiring, chosen, key, rule)
        return replace(reading, path=path, digest=digest)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Within it, errors of reading name the file in front."""
    try:
        yield
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
    return understood(container, name, wiring, chosen, key, rule).masks()


@dataclass(frozen=True, eq=False)
class Reading:
    """A file that was understood, and whose values were not read yet.

    name: the file's. tensors: parameter -> what shows its mask, output-first. raw: the same as the reader gave it.
    names: those of the reader -> parameters. path: where it lies, None of live objects. digest: of its bytes.
    """

    name: str
    reader: Reader
    source: Source
    wiring: Wiring | None
    rule: Mapping[str, float]
    tensors: Mapping[str, Tensor]
    raw: Mapping[str, Tensor]
    names: Mapping[str, str]
    path: Path | None = None
    digest: Digest | None = None

    @cached_property
    def inferred(self) -> list[str]:
        """Parameters whose masks are the zeros of their weights."""
        return [name for name, tensor in self.tensors.items() if tensor.inferred]

    @cached_property
    def lost(self) -> dict[str, int]:
        """Parameters in shards that are missing -> how many weights they have, as their like in another block has; 0
        where none is alike."""
        if not self.source.container.missing:
            return {}
        like = {_without_numbers(name): tensor.size for name, tensor in self.source.state.items() if tensor.ndim >= 2}
        flat = {_without_numbers(name) for name, tensor in self.source.state.items() if tensor.ndim < 2}
        missing = [name for name in self.source.container.missing if _without_numbers(name) not in flat]
        return {name: like.get(_without_numbers(name), 0) for name in missing if not name.endswith(_FLAT)}

    @cached_property
    def outside(self) -> dict[str, tuple[str, Tensor]]:
        """Parameters of two or more dimensions without a mask -> their names in the file, and their tensors."""
        return {} if self.is_own else uncovered(self.source, self.raw)

    @property
    def is_own(self) -> bool:
        """Whether it is a file of this project's, read as it was written."""
        return self.reader.name == self.source.own and self.wiring is None

    def with_network(
        self, wiring: Wiring, format: str | None = None, key: str | None = None, rule: Mapping[str, float] | None = None
    ) -> Reading:
        """The same file understood as one of this network's; the arguments and errors are those of `opened`."""
        chosen = None if format is None else formats[format]
        with naming(self.path or self.name):
            found = understood(self.source.container, self.name, wiring, chosen, key, rule)
        return replace(found, path=self.path, digest=self.digest)

    def masks(
        self, only: Collection[str] | None = None, *, dense: bool = False, known: Known = MappingProxyType({})
    ) -> MaskSet:
        """Every mask, as bits; or those of these parameters alone. dense: weights without a single zero are fine.

        known: masks that were read before, by the `rows` of their tensors, and how many weights of each are NaN.
        """
        try:
            return self._masks(only, dense, known)
        except (FormatError, MaskError) as error:
            raise type(error)(_read_as(self.reader, error)) from None

    def _masks(self, only: Collection[str] | None, dense: bool, known: Known) -> MaskSet:
        source, wiring = self.source, self.wiring
        nan: dict[str, int] = {}
        wanted = {name: tensor for name, tensor in self.tensors.items() if only is None or name in only}
        rows: dict[str, BitRows] = {}
        for name, tensor in wanted.items():
            mask, odd = known.get(tensor.rows, (None, 0)) if tensor.inferred else (None, 0)
            if mask is None or mask.shape != tensor.shape:
                mask = self._bits(name, tensor, nan)
            elif odd:
                nan[name] = odd
            rows[name] = mask
        if not rows:
            raise FormatError("it holds no mask of the layers that are asked for")
        kept = {name: mask.kept() for name, mask in rows.items() if self.tensors[name].inferred}
        notes = [*self.remarks(kept, nan, dense), *source.notes]
        comparable = not self.is_own and self.reader.name != "flax"  # whose weights lie input-first beside its masks
        if len(self.inferred) < len(self.tensors) and comparable:
            held = {name: mask for name, mask in rows.items() if name not in self.inferred}
            notes += disagreements(source, self.raw, held, self.names)
        if not self.is_own and self.reader.name not in ("scores", "gem_miner", "torch_ao"):  # which read such tensors
            notes += unused(source, self.raw)
        if copied := [name for name in source.place.copies if name not in self.raw and not self.is_own]:
            notes.append(f"not read, as copies of weights beside them: {some(copied)}")
        notes += undecided(self.outside)
        covering = coverage(source, self.outside, rows, self.lost)
        provenance = dict(source.provenance)
        if wiring is not None:
            try:
                wiring.check(MaskSet(rows))
            except WiringError as error:
                raise WiringError(self._in_file(str(error))) from None
            missing = [name for name in wiring.names if name not in self.tensors]
            if missing:
                notes.append(f"{plural(len(missing), 'layer')} of the model without a mask: {some(missing)}")
            if self.reader.name != "topo":  # what this project writes without a mask is dense
                covering = of_model(covering, wiring, self.tensors)
            rows = {name: rows[name] for name in (*(n for n in wiring.names if n in rows), *rows)}
            turned = {name: groups for name, groups in wiring.input_first.items() if name in rows}
            provenance.update({"input_first": turned} if turned else {})
        about = {key: _line(value) if isinstance(value, str) else value for key, value in provenance.items()}
        before = about.pop("coverage", None)  # of the file that these masks were converted from
        about.pop("sha256", None)
        covered = covering.as_dict()
        if isinstance(before, Mapping) and before.get("names") and not covering.left_out:
            covered = {**covered, "left_out": before.get("left_out", 0), "names": list(before["names"])}
        notes = [*map(_line, told(covering)), *map(_line, notes)]
        about |= {"format": self.reader.name, "file": self.name, "notes": notes, "coverage": covered}
        return MaskSet(rows, provenance=Late(about, {} if self.digest is None else {"sha256": self.digest}))

    def _bits(self, name: str, tensor: Tensor, nan: dict[str, int]) -> BitRows:
        try:
            return tensor.bits(name, nan)
        except MaskError as error:
            raise MaskError(self._in_file(str(error), name)) from None

    def _in_file(self, said: str, name: str | None = None) -> str:
        """A message on a mask with its name in the file, and the parameter that it was taken for where they differ."""
        for parameter in self.tensors if name is None else (name,):
            quoted = f"mask '{parameter}'"
            if said.startswith((quoted, f"'{parameter}'")) and (own := self._own(parameter)) != parameter:
                taken = f" (taken for '{parameter}')" if parameter not in own else ""
                return said.replace(f"'{parameter}'", f"'{own}'{taken}", 1)
        return said

    def _own(self, parameter: str) -> str:
        """The name in the file of the tensor that shows the mask of a parameter."""
        read = next((old for old, new in self.names.items() if new == parameter), parameter)
        tensor = self.raw.get(read)
        rows = None if tensor is None else tensor.rows
        stored = next((name for name, other in self.source.state.items() if other.rows is rows), None)
        return stored or next(iter(self.source.made.get(read, [read])))

    def remarks(self, kept: Mapping[str, int], nan: Mapping[str, int], dense: bool = False) -> list[str]:
        """Notes on masks that were inferred from zeros, and on weights that are NaN.

        kept: parameter -> kept weights of it, where its mask was inferred. dense: it is fine if not one weight is zero,
        which is a FormatError else.
        """
        inferred = [name for name in self.inferred if name in kept]
        if not inferred or len(self.inferred) < len(self.tensors):
            return not_numbers(nan)
        shares = {name: kept[name] / self.tensors[name].size for name in inferred}
        full = sum(share == 1 for share in shares.values())
        if full == len(self.tensors) and not self.source.requested and not dense:
            raise FormatError(_dense(self.source, inferred))
        first = f"masks inferred from zeros; {full} of {plural(len(inferred), 'layer')} hold no zero"
        return [first, *not_numbers(nan), *_roundings(self.tensors, shares)]


def understood(
    container: Container,
    name: str,
    wiring: Wiring | None = None,
    chosen: Reader | None = None,
    key: str | None = None,
    rule: Mapping[str, float] | None = None,
) -> Reading:
    """What was opened, understood: which reader reads which place of it, under which names."""
    source = Source(container, wiring, list(container.notes), requested=chosen is not None, rule=rule or {}, key=key)
    if source.own is not None and chosen is None and key is None:
        choice = Choice(formats[source.own], source.at(source.tree[0]))
    else:
        choice = choose(source, chosen)
    try:
        reading = _reading(choice, name, rule or {})
    except (FormatError, MaskError) as error:
        raise type(error)(_read_as(choice.reader, error)) from None
    if rule and choice.reader.name != "scores":
        raise FormatError(f"-O {next(iter(rule))} makes masks of scores; it is read as {choice.reader.name}")
    return reading


def _without_numbers(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def _read_as(entry: Reader, error: Exception) -> str:
    said = str(error)
    return said if said.startswith("read as ") else f"read as {entry.name}: {said}"


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


def _reading(choice: Choice, name: str, rule: Mapping[str, float]) -> Reading:
    """The tensors by parameter, output-first."""
    entry, source = choice.reader, choice.source
    if entry.name == source.own and source.wiring is None:  # as they were written
        found = choice.found()
        if not found:
            raise FormatError("it holds no mask")
        return Reading(name, entry, source, None, rule, found, found, {own: own for own in found})
    copies = set(source.place.copies)
    given = {name: tensor for name, tensor in choice.found().items() if name not in copies}
    raw, made = renamed(given or choice.found(), source.wiring.names if source.wiring is not None else None)
    source.made.update(made)
    raw = called_as_weights(raw, source)
    names = aligned(raw, source.wiring, source.state)
    raw = _of_the_model(raw, names, source)
    whole = spread(raw, names, source)
    found = without_scales({names[name]: tensor for name, tensor in whole.items()}, source, entry.output_first)
    if not found:
        raise FormatError("it holds no mask of two or more dimensions")
    if source.wiring is None:
        read = {name: tensor.shape for name, tensor in whole.items() if names[name] in found}
        check_twins(read, source, entry.name)
    output_first = entry.output_first and not source.as_parameters
    found, unsure = oriented(found, source.wiring, output_first)
    unsure = [name for name in unsure if name not in source.provenance.get("input_first", {})]
    if unsure and output_first:
        source.notes.append(f"square layers that torch stores input-first, taken as (out, in): {some(unsure)}")
    return Reading(name, entry, source, source.wiring, rule, found, raw, names)


def not_numbers(nan: Mapping[str, int]) -> list[str]:
    """The note on weights that are NaN."""
    if not nan:
        return []
    total = sum(nan.values())
    return [f"{plural(total, 'weight')} {'is' if total == 1 else 'are'} NaN, and {'counts' if total == 1 else 'count'} "
            f"as kept, in {plural(len(nan), 'layer')}: {some(nan)}"]  # fmt: skip


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
    packed = source.place.packed
    if packed:
        return (
            f"{plural(len(packed), 'weight')} {'are' if len(packed) > 1 else 'is'} packed integers (GPTQ, AWQ, int4), "
            f"which only their library unpacks: dequantise them; the other {plural(len(names), 'layer')} hold no zero"
        )
    aside = "".join(f"; {note}" for note in source.container.notes if "left aside" in note)
    return (
        f"no weight of its {plural(len(names), 'layer')} is zero: dense, or its masks are elsewhere{_strange(source)}"
        f"{aside}; --format zeros reads it as dense; {WAY_OUT}"
    )


def _strange(source: Source) -> str:
    """The first tensor that is called a mask and was not understood."""
    for branch in source.tree:
        for name, tensor in branch.state.items():
            own = name if branch is source.place else f"{branch.key}/{name}"
            if tensor.size > 1 and is_called_mask(own) and (branch is not source.place or not is_weight(name)):
                return f" ('{own}', {tensor.dtype} {'x'.join(map(str, tensor.shape))}, is called a mask)"
    return ""


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
    writer(path)(masks, Path(path))


def writer(path: str | Path) -> Any:
    """What writes masks to a file of this name; FormatError for another ending, TopoError for a folder."""
    path = Path(path)
    writers = {entry.ending: entry.write for entry in formats.values() if entry.write}
    if path.suffix not in writers:
        raise FormatError(f"'{path}': masks are written to files that end in {' or '.join(map(str, writers))}")
    if path.is_dir():
        raise TopoError(f"cannot write '{path}': it is a folder")
    return writers[path.suffix]
