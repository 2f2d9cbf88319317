"""Doors: what a plugin says of itself is checked when it registers, what it gives back is checked by who calls it."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from topo.errors import TopoError


def check_word(plugin: str, name: str, value: Any, allowed: Iterable[str]) -> None:
    """TopoError unless `value` is one of a few words."""
    words = tuple(allowed)
    if not isinstance(value, str) or value not in words:
        raise TopoError(f"{plugin} has {name}={value!r}; it is one of {', '.join(words)}")


def check_text(plugin: str, **values: Any) -> None:
    """TopoError unless each value is a text with something in it."""
    for name, value in values.items():
        if not isinstance(value, str) or not value.strip():
            raise TopoError(f"{plugin} has {name}={value!r}; it is a text, as people are to read it")


def check_flags(plugin: str, **values: Any) -> None:
    """TopoError unless each value is True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TopoError(f"{plugin} has {name}={value!r}; it is True or False")


def check_function(plugin: str, function: Any, takes: str, *, documented: bool = True, more: bool = False) -> None:
    """TopoError unless a function can be called with these arguments, "graph, block" or "net, batches, *, rng".

    documented: the first line of its docstring is what `topo list` shows, so that it needs one.
    more: it may need others beside these.
    """
    if not callable(function):
        raise TopoError(f"{plugin} is {function!r:.60}; it is a function ({takes})")
    before, star, after = takes.partition("*")
    arguments = [name for part in before.split(",") if (name := part.strip())]
    keywords = [name for part in after.split(",") if star and (name := part.strip())]
    try:
        signature = inspect.signature(function, follow_wrapped=False)
        (signature.bind_partial if more else signature.bind)(*arguments, **dict.fromkeys(keywords))
    except TypeError as error:
        raise TopoError(f"{plugin} takes {inspect.signature(function)}; it is called as ({takes}): {error}") from None
    except ValueError:  # a built-in function without a signature
        pass
    if documented and sys.flags.optimize < 2 and not summary(function):
        raise TopoError(f"{plugin} has no docstring; its first line says in `topo list` what it is")


def called(plugin: str, about: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What the plugin's function gives; what goes wrong inside it is a TopoError that names the plugin."""
    try:
        return function(*args, **kwargs)
    except (TopoError, MemoryError):
        raise
    except Exception as error:
        raise TopoError(f"{plugin} failed{about}: {said(error)}") from error


def drawn(items: Iterable[Any] | None, what: str) -> Iterator[Any]:
    """The items one by one, none of None; what goes wrong while they are drawn is a TopoError."""
    try:
        yield from items if items is not None else ()
    except (TopoError, MemoryError):
        raise
    except Exception as error:
        raise TopoError(f"{what} cannot be drawn one by one: {said(error)}") from error


_LONGEST = 300


def said(error: BaseException) -> str:
    """What an error is and says, in one line."""
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """What an error says, in one line that is not too long, whatever its own words raise."""
    try:
        words = str(error)
    except Exception:  # whatever the error's own __str__ raises
        words = ""
    return (words.strip().splitlines() or ["it says nothing more"])[0][:_LONGEST]


def kind_of(annotation: Any) -> str:
    """The type of an option, as its annotation names it first, however that is written: of `int | None` the int.

    >>> kind_of(int), kind_of(int | None), kind_of("int | None"), kind_of("'int'")
    ('int', 'int', 'int', 'int')
    """
    written = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return written.strip("'\"").partition(" ")[0]


def summary(function: Any) -> str:
    """First line of the docstring; of the source's, where Python was started without docstrings (-OO)."""
    text = getattr(function, "__doc__", None) or ""
    if not text and sys.flags.optimize >= 2:
        try:
            written = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
            text = ast.get_docstring(written) or ""  # type: ignore[arg-type]
        except (OSError, TypeError, SyntaxError):  # no source is there, or it is not a definition
            pass
    return text.strip().partition("\n")[0].rstrip()
