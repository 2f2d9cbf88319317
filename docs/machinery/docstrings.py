"""Docstrings of this project, plain text with mathematics, as reStructuredText that shows them as they were written.

What a docstring is made of, and what becomes of it:
    prose                          escaped, so that no star, bar or underscore of a formula means anything
    `code`                         literal
    "name: text" in prose          one point of a list for each argument or field that is so described
    * point, 1. point              points
    indented or aligned lines      preformatted, every space in its place
    >>> example                    preformatted, as Python
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

_POINT = re.compile(r"(\*|\d+\.) +(?=\S)")
_ALIGNED = re.compile(r"\S {2,}\S")
_CODE = re.compile(r"`([^`]+)`")
# What reStructuredText could take for markup.
_MARKUP = re.compile(r"([\\*|_<>`])")

Block = tuple[str, list[str]]


def blocks(lines: list[str]) -> Iterator[Block]:
    """(kind, lines) of the parts of a docstring; kind is prose, points, literal or example."""
    place = 0
    while place < len(lines):
        line = lines[place]
        if not line.strip():
            place += 1
            continue
        kind = _kind(line)
        stop = place + 1
        while stop < len(lines) and _goes_on(kind, lines, stop):
            stop += 1
        part = lines[place:stop]
        while not part[-1].strip():
            part.pop()
        if kind == "prose" and len(part) > 1 and sum(bool(_ALIGNED.search(line)) for line in part) * 2 > len(part):
            kind = "literal"
        yield kind, part
        place = stop


def _kind(line: str) -> str:
    if line.startswith(">>>"):
        return "example"
    if line.startswith(" "):
        return "literal"
    return "points" if _POINT.match(line) else "prose"


def _goes_on(kind: str, lines: list[str], place: int) -> bool:
    line = lines[place]
    if kind == "example":
        return bool(line.strip())
    if kind == "literal":  # over a blank line, if what follows is indented too
        following = next((other for other in lines[place:] if other.strip()), "")
        return following.startswith(" ")
    if kind == "points":
        return bool(line.strip()) and (line.startswith(" ") or bool(_POINT.match(line)))
    return bool(line.strip()) and _kind(line) == "prose"


def escaped(text: str) -> str:
    """Prose as reStructuredText: `code` literal, everything else itself."""
    parts = _CODE.split(text)
    # Escaped blanks, which vanish: without them a letter or a bracket beside the code would make it none.
    return "".join(f"\\ ``{part}``\\ " if k % 2 else _MARKUP.sub(r"\\\1", part) for k, part in enumerate(parts))


def _prose(text: str, names: frozenset[str]) -> list[str]:
    """A paragraph; sentences that describe arguments ("view: ...") are points of a list."""
    found = list(re.finditer(r"(?:(?<=^)|(?<=[.;:)] ))(\w+(?:, \w+)*): ", text))
    cuts = [match for match in found if all(name in names for name in match[1].split(", "))]
    if not cuts:
        return [escaped(text), ""]
    head = text[: cuts[0].start()].strip()
    lines = [escaped(head), ""] if head else []
    for match, stop in zip(cuts, [*(cut.start() for cut in cuts[1:]), len(text)]):
        shown = ", ".join(f"**{escaped(name)}**" for name in match[1].split(", "))
        lines.append(f"* {shown}: {escaped(text[match.end() : stop].strip())}")
    return [*lines, ""]


def _points(lines: list[str]) -> list[str]:
    made: list[list[str]] = []
    for line in lines:
        if _POINT.match(line):
            made.append([_POINT.sub("", line, count=1)])
        else:
            made[-1].append(line.strip())
    numbered = lines[0][0].isdigit()
    return [*(f"{'#.' if numbered else '*'} {escaped(' '.join(words))}" for words in made), ""]


def restructured(text: str, names: Iterable[str] = ()) -> list[str]:
    """The lines of a docstring, as reStructuredText. names: of the arguments or fields that it describes."""
    known = frozenset(names)
    made: list[str] = []
    for kind, lines in blocks(inspect.cleandoc(text).splitlines()):
        if kind == "prose":
            made += _prose(" ".join(line.strip() for line in lines), known)
        elif kind == "points":
            made += _points(lines)
        else:
            language = "pycon" if kind == "example" else "text"
            margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
            made += [f".. code-block:: {language}", "", *(f"   {line[margin:]}".rstrip() for line in lines), ""]
    return made


def described(thing: Any) -> list[str]:
    """Names that the docstring of a function or class may describe: its arguments, fields and properties."""
    names: list[str] = []
    try:
        names += inspect.signature(thing).parameters
    except (TypeError, ValueError):
        pass
    if isinstance(thing, type):
        names += [field.name for field in dataclasses.fields(thing)] if dataclasses.is_dataclass(thing) else []
        names += getattr(thing, "_fields", ())
        names += [name for name, value in vars(thing).items() if isinstance(value, property)]
    return names


def _process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    if what == "attribute":  # a constant or a field: its type's docstring would stand there
        lines[:] = []
        return
    lines[:] = restructured("\n".join(lines), described(thing))


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}
