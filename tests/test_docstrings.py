"""The examples of docstrings run as they stand, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import topo
from topo.containers.container import containers

pytestmark = pytest.mark.small
ROOT = Path(__file__).parents[1]
WITH_EXAMPLES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("topo", "kernels")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
}


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the names of their module, `topo` and `np`; what they write goes to an empty folder."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"topo.{name}" if name.startswith("kernels") else name)
    if name == "topo.trace.rules":
        monkeypatch.setattr(module, "RULES", dict(module.RULES))  # the example teaches it an operation
    found = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs={"topo": topo, "np": np})
    written = [part for part in found if part.examples]
    assert written, f"no docstring of {name} holds its example"
    if name == "topo.containers.container":
        len(containers)  # finds all there is; what the example registers is forgotten
        monkeypatch.setattr(containers, "_entries", dict(containers._entries))
    said: list[str] = []
    for part in written:
        doctest.DocTestRunner(verbose=False).run(part, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("name", [name for name in topo.__all__ if name not in ("__version__", "TopoError")])
def test_every_public_name_has_an_example(name: str) -> None:
    examples = doctest.DocTestParser().get_examples(getattr(topo, name).__doc__ or "")
    assert examples and any(example.want for example in examples), f"topo.{name} shows no example in its docstring"


@pytest.mark.parametrize("name", [name for name in topo.__all__ if name != "__version__"])
def test_every_public_name_tells_its_arguments_and_errors(name: str) -> None:
    """Each argument is named in the docstring, or in that of the function it points to; what is raised is told."""
    public = getattr(topo, name)
    if not callable(public) or (inspect.isclass(public) and issubclass(public, BaseException)):
        return
    said = inspect.getdoc(public) or ""
    plain = [
        argument.name
        for argument in inspect.signature(public).parameters.values()
        if argument.kind not in (argument.VAR_KEYWORD, argument.VAR_POSITIONAL)
    ]
    if other := re.search(r"arguments as in `(?:topo\.)?(\w+)`", said):
        said += inspect.getdoc(getattr(topo, other[1])) or ""
    silent = [argument for argument in plain if not re.search(rf"\b{argument}\b", said)]
    assert not silent, f"topo.{name} does not say what {silent} are"
    raised = not inspect.isclass(public) and re.search(r"^\s+raise \w*Error", inspect.getsource(public), re.MULTILINE)
    assert not raised or re.search(r"Raises|Error|refuse", said), f"topo.{name} does not say what it raises"
