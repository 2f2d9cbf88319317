"""analyze_files: many mask files in, their reports out; a bad file is named and ends nothing."""

from __future__ import annotations

import glob as globbing
import re
import string
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo import nulls as ladder
from topo._support.bar import Bar, watched
from topo.analyze import analyze
from topo.errors import MaskWarning, TopoError
from topo.files import read_masks
from topo.input_spec import Spec
from topo.metrics import chosen
from topo.networks import find_wiring
from topo.report import MOST_GRAPHS, Report, Reports, few
from topo.wiring import Wiring

if TYPE_CHECKING:
    from torch import nn

# Format specs of a pattern's fields: what they match, and what is made of it.
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_KINDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "": (r".+?", str),
    "s": (r".+?", str),
    "d": (r"[+-]?\d+", int),
    **dict.fromkeys("feg", (_NUMBER, float)),
}


def analyze_files(
    files: str | Path | Iterable[str | Path],
    model: str | Path | Wiring | nn.Module | None = None,
    *,
    pattern: str | None = None,
    progress: bool | Callable[[int, int, str], Any] | None = None,
    format: str | None = None,
    key: str | None = None,
    input_shape: Spec | None = None,
    **options: Any,
) -> Reports:
    """The reports of many mask files, in the order of their names.

    files: a glob pattern ("masks/**/*.pt"), a path, or several of these. model: the network of all of them, as
    `topo.analyze` takes it; files that name a built-in model themselves need none. pattern: the fields in a file's
    name, as in "{method}_d{density:g}_s{seed:d}": {name} or {name:s} is text, {name:d} a whole number, {name:f},
    {name:e} and {name:g} a number; it is the whole name, with or without the ending, and with folders where it has a
    "/". The fields are columns of every table, and stand in `Report.provenance["fields"]`. progress: True shows a bar,
    and a function is called as (done, total, file); by default there is a bar on a terminal and in a
    notebook.
    format, key, input_shape: as of `topo.read_masks`. options: of `topo.analyze`, as metrics, view, nulls, rng.

    A file that cannot be read or analysed, or whose name is not of the pattern, is in `Reports.errors`, and a
    MaskWarning says how many there are.

    >>> for seed in (0, 1):
    ...     topo.write_masks(topo.generate("erk", "mlp:8-6-2", density=0.5, rng=seed), f"erk_s{seed}.safetensors")
    >>> reports = topo.analyze_files("erk_s*.safetensors", pattern="{method}_s{seed:d}", metrics="kept")
    >>> [(report.fields["seed"], report.network["kept"]) for report in reports]
    [(0, 30), (1, 30)]

    Raises TopoError where no file is found, for a pattern that is none, and for a model or metric that is unknown.
    """
    paths = _paths(files)
    matches = None if pattern is None else _compiled(pattern)
    chosen(options.get("metrics", "default"), weights=options.get("weights") is not None)
    if options.get("nulls") is not None:
        ladder.requested(options["nulls"])
    wiring = None if model is None else find_wiring(model, input_shape)
    names = _names(paths)
    reports: list[Report] = []
    errors: dict[str, str] = {}
    with _shown(progress) as tell:
        for done, (path, name) in enumerate(zip(paths, names)):
            tell(done, len(paths), name)
            try:
                fields = _fields(path, matches, pattern)
                masks = read_masks(path, wiring, format=format, key=key)
                report = analyze(masks, wiring, mask_name=name, **options)
                report = report if len(reports) < MOST_GRAPHS else report.without_drawing()
                reports.append(report.with_fields(fields) if fields else report)
            except (TopoError, OSError) as error:
                errors[str(path)] = str(error)
        tell(len(paths), len(paths), "done")
    if errors:
        first = next(iter(errors.values()))
        text = f"{len(errors)} of {len(paths)} files have no report (Reports.errors), the first: {first}"
        warnings.warn(text, MaskWarning, stacklevel=2)
    return Reports(reports, errors)


def _paths(files: str | Path | Iterable[str | Path]) -> list[Path]:
    given = [files] if isinstance(files, str | Path) else list(files)
    found: dict[Path, None] = {}
    for text in given:
        path = Path(text).expanduser()
        if path.exists():
            found[path] = None
            continue
        if not globbing.has_magic(str(path)):
            raise TopoError(f"there is no file '{text}'")
        found |= dict.fromkeys(sorted(map(Path, globbing.glob(str(path), recursive=True)), key=_natural))
    if not found:
        raise TopoError(f"no file is called like {few([repr(str(text)) for text in given]) or 'that: none was given'}")
    return list(found)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Numbers in names in the order of their size: s2 before s10."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d{1,18})", str(path))]


def _names(paths: list[Path]) -> list[str]:
    """Names of files, with as many folders in front as tell them apart."""
    names = [path.name for path in paths]
    depth = 1
    while len(set(names)) < len(names) and depth < max(len(path.parts) for path in paths):
        depth += 1
        twice = {name for name in names if names.count(name) > 1}
        names = ["/".join(path.parts[-depth:]) if name in twice else name for name, path in zip(names, paths)]
    return names


def _compiled(pattern: str) -> tuple[re.Pattern[str], dict[str, Callable[[str], Any]]]:
    """The pattern as a regular expression, and how its fields are read."""
    made: dict[str, Callable[[str], Any]] = {}
    text = ""
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise TopoError(f"'{pattern}' is not a pattern: {error}") from None
    for literal, name, spec, conversion in parts:
        text += re.escape(literal)
        if name is None:
            continue
        if not name.isidentifier() or conversion or (spec or "")[-1:] not in _KINDS or name in made:
            raise TopoError(
                f"'{pattern}' is not a pattern: {{{name}}} is not a field; write {{method}}, {{seed:d}} or "
                "{density:g}, each name once"
            )
        matched, made[name] = _KINDS[(spec or "")[-1:]]
        text += f"(?P<{name}>{matched.replace('.+?', '[^/]+?')})"
    if not made:
        raise TopoError(f"the pattern '{pattern}' has no field; write one as in {{method}}_d{{density:g}}_s{{seed:d}}")
    return re.compile(text), made


def _fields(path: Path, matches: Any, pattern: str | None) -> dict[str, Any]:
    if matches is None:
        return {}
    compiled, made = matches
    depth = str(pattern).count("/") + 1
    name = "/".join(path.parts[-depth:])
    bare, found = name, None
    while found is None and bare:
        found = compiled.fullmatch(bare)
        head, dot, _ = bare.rpartition(".")
        bare = head if dot and "/" not in bare[len(head) :] else ""
    if found is None:
        raise TopoError(f"'{path}': its name does not fit the pattern '{pattern}'")
    return {field: read(found[field]) for field, read in made.items()}


@contextmanager
def _shown(progress: bool | Callable[[int, int, str], Any] | None) -> Iterator[Callable[[int, int, str], Any]]:
    """What is called as (done, total, file): the user's own function, a bar, or nothing."""
    if callable(progress):
        yield progress
    elif watched() if progress is None else progress:
        with Bar() as bar:
            yield bar.show
    else:
        yield lambda done, total, name: None


def fields_of(name: str, pattern: str) -> Mapping[str, Any]:
    """The fields of a file's name by a pattern, see `analyze_files`.

    >>> dict(fields_of("masks/erk_plus_d0.05_s3.pt", "{method}_d{density:g}_s{seed:d}"))
    {'method': 'erk_plus', 'density': 0.05, 'seed': 3}

    Raises TopoError for a name that is not of the pattern.
    """
    return _fields(Path(name), _compiled(pattern), pattern)
