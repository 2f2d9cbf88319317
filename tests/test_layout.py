"""The house: floors, packages, silence, and what importing costs. Read off the syntax trees."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def floors() -> dict[str, int]:
    """Room -> floor, as the page says."""
    lines = re.search(r"^## Floors.*?```text\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    assert lines is not None
    found: dict[str, int] = {}
    for floor, *rooms in map(str.split, lines[1].splitlines()):
        assert not found.keys() & set(rooms), f"{rooms} stand on two floors"
        found |= dict.fromkeys(rooms, int(floor))
    return found


FLOOR = floors()
MAY_IMPORT = {
    "torch": {
        "trace",
        "models",
        "pruners",
        "train",
        "calibrated",
        "shrinking",
        "shrink",
        "torch_prune",
        "stranger",
        "networks",
        "formats",
        "masks",
    },
    "matplotlib": {"plots"},
    "networkx": {"interop", "plots"},
}


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file: each is read by many tests."""
    return ast.parse(path.read_text("utf-8"))


@cache
def sources() -> list[tuple[Path, str]]:
    """(file, room) of every source file of the package."""
    found = [
        (path, path.relative_to(ROOT / "topo").parts[0].removesuffix(".py")) for path in (ROOT / "topo").rglob("*.py")
    ]
    found = [(path, "cli" if room == "__main__" else room) for path, room in found if room != "__init__"]
    return found + [(path, "kernels") for path in (ROOT / "kernels").rglob("*.py")]


@cache
def imports(path: Path, *, types: bool = True) -> set[str]:
    """Dotted names that a file imports, anywhere in it. types: in blocks for type checkers, too."""
    tree, found = tree_of(path), set()
    hidden = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test) and not types
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def files_imported(path: Path) -> set[Path]:
    """Files of the package that a file imports: the module, or the face of the package, that holds each name."""
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[:2] == ["topo", "kernels"]:
            continue
        for end in (len(parts), len(parts) - 1):
            place = ROOT.joinpath(*parts[:end])
            held = next((f for f in (place.with_suffix(".py"), place / "__init__.py") if end and f.is_file()), None)
            if held is not None and parts[0] == "topo":
                found.add(held)
                break
    return found - {ROOT / "topo" / "__init__.py"}


def test_every_room_has_a_floor_and_a_line_in_the_tree() -> None:
    rooms = {room for _, room in sources()}
    assert not [room for room in rooms if (ROOT / "topo" / room).is_dir() and (ROOT / "topo" / f"{room}.py").exists()]
    assert rooms | {"_version"} == set(FLOOR)
    for room in rooms - {"kernels", "_version"}:
        assert re.search(rf"\b{room}(/|\.py)(\s|$)", PAGE), f"docs/architecture.md does not name {room}"


@pytest.mark.parametrize("path, room", sources(), ids=lambda value: value.name if isinstance(value, Path) else value)
def test_imports_go_down(path: Path, room: str) -> None:
    for held in files_imported(path):
        other = held.relative_to(ROOT / "topo").parts[0].removesuffix(".py")
        if other != room:
            assert FLOOR[other] < FLOOR[room], f"{path} ({room}) imports {held} ({other}): up or sideways"
    for name in imports(path, types=False):  # what a type checker alone reads costs no import
        outside = name.split(".")[0]
        if outside in MAY_IMPORT:
            assert room in MAY_IMPORT[outside], f"{path} imports {outside}; only {sorted(MAY_IMPORT[outside])} may"


def test_no_files_import_each_other() -> None:
    edges = {path: files_imported(path) for path, _ in sources()}
    done: set[Path] = set()

    def visit(path: Path, way: tuple[Path, ...]) -> None:
        assert path not in way, "a circle: " + " -> ".join(str(p.relative_to(ROOT)) for p in (*way, path))
        if path not in done:
            for held in sorted(edges.get(path, ())):
                visit(held, (*way, path))
            done.add(path)

    for path in edges:
        visit(path, ())


def test_every_file_says_what_it_is_for() -> None:
    for path, _ in sources():
        said = ast.get_docstring(tree_of(path)) or ""
        assert len(said.split("\n")[0]) > 20, f"{path}: the first line of the module says what it is for"


# "X is no Y" must be read twice: "X is not a Y". "There is no Y", "no more than" and "no larger" are plain.
_NO = re.compile(r"(?<!\bthere )\b(?:is|are) no (?!more\b|longer\b|less\b|share\b)\w+", re.IGNORECASE)


def test_sentences_say_is_not() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for path in [*(path for path, _ in sources()), *pages]:
        text = re.sub(r"\s+(?:#: |# )?", " ", path.read_text("utf-8"))
        found = [each[0] for each in _NO.finditer(text)]
        assert not found, f"{path}: {found}; write 'is not a'"


def test_kernels_import_numpy_numba_and_nothing_of_ours() -> None:
    """The package's own face holds no kernel: it finds a place for the compiled ones, and guards it."""
    for path, room in sources():
        if room != "kernels":
            continue
        found = {name.split(".")[0] for name in imports(path)}
        if path.name == "__init__.py":
            assert found <= sys.stdlib_module_names | {"numba"}, path
        else:
            assert found <= {"__future__", "math", "numpy", "numba", "llvmlite"}, path


def test_kernels_never_raise_print_or_use_fastmath() -> None:
    for path, room in sources():
        if room != "kernels":
            continue
        tree = tree_of(path)
        assert not any(isinstance(node, ast.Raise) for node in ast.walk(tree)), path
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword):
                assert node.arg not in ("fastmath", "parallel"), path


def test_kernels_assign_numbers_to_slices_and_nothing_else() -> None:
    """An array assigned to a slice takes the compiler two seconds: its error for shapes that differ is a text."""
    for path, room in sources():
        for node in ast.walk(tree_of(path)) if room == "kernels" else ():
            if isinstance(node, ast.Assign) and any(
                isinstance(place, ast.Slice) for target in node.targets for place in ast.walk(target)
            ):
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                for value in values:
                    number = value.operand if isinstance(value, ast.UnaryOp) else value  # -1 is -(1)
                    assert isinstance(number, ast.Constant), f"{path}: {ast.unparse(node)}"


def test_package_list_is_complete() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    on_disk = {"topo"} | {"topo.kernels"}
    on_disk |= {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "topo").rglob("__init__.py")}
    assert listed == on_disk
    assert config["options"]["package_dir"].split() == ["topo.kernels", "=", "kernels"]


def test_the_library_is_silent() -> None:
    for path, room in sources():
        if room == "cli":
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "sys.exit", "exit", "quit", "plt.show", "logging.basicConfig"), (
                    f"{path}: {called}"
                )
                assert not called.endswith("rcParams.update"), f"{path}: global rcParams"


def test_no_machine_paths_in_the_sources() -> None:
    for path, _ in sources():
        assert not re.search(r"/(home|root|work|Users)/", path.read_text()), path


@pytest.mark.slow
def test_import_is_light() -> None:
    """`import topo` reads four files of ours and, beyond numpy, nothing that is not Python's own."""
    code = "import sys, numpy; before = set(sys.modules); import topo; print(*(set(sys.modules) - before))"
    brought = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    theirs = {name for name in brought if name.partition(".")[0] not in sys.stdlib_module_names}
    assert theirs == {"topo", "topo._version", "topo._support", "topo._support.lazy"}


@pytest.mark.slow
def test_a_command_line_is_read_without_what_only_some_commands_need() -> None:
    """Half a second; numba and scipy take another one and a half, torch two more."""
    code = (
        "import sys; from topo.cli import main; main(['list', 'quotas']); "
        "sys.exit(repr(set(sys.modules) & eval(sys.argv[1])))"
    )
    heavy = "{'numba', 'scipy.stats', 'torch', 'matplotlib', 'pandas', 'networkx'}"
    done = subprocess.run([sys.executable, "-c", code, heavy], capture_output=True, text=True)
    assert done.stderr == "set()\n"


@pytest.mark.slow
def test_rooms_load_on_first_use() -> None:
    """In a fresh process. topo.analyze and topo.trace are functions, also after their modules were imported."""
    code = (
        "import sys, topo; assert 'topo.optimize' not in sys.modules; "
        "import topo.analyze, topo.trace, topo; from topo.cli import main; "
        "assert callable(topo.analyze) and callable(topo.trace) and callable(main); "
        "topo.networks.find_wiring; topo.optimize.frontier; topo.quotas.quotas; "
        "assert sorted(set(topo.__all__) - set(dir(topo))) == []; [getattr(topo, name) for name in dir(topo)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_old_import_paths_of_the_docs_still_work() -> None:
    import topo
    from topo.graph import paths, views
    from topo.metrics.flow import exact_paths
    from topo.prune import FromMask
    from topo.views import channel

    assert exact_paths is paths.exact_paths and channel is views.channel
    assert topo.views.unit is views.unit and topo.prune.FromMask is FromMask is topo.torch_prune.FromMask


def test_unknown_names_are_attribute_errors() -> None:
    import topo

    with pytest.raises(AttributeError, match="has no attribute 'spam'"):
        topo.spam  # noqa: B018


# The tests themselves.

TESTS = sorted((ROOT / "tests").rglob("*.py"))
# What asks a clock, also inside code that a test hands to another process.
CLOCK = re.compile(r"\btime\.\w+\(|\btimeit\.|\bdatetime\.now\b|\bdeadline=(?!None)|\btimeout=")
WAITS = ("wait", "join")  # for so many seconds, if a number is given


def clocks(source: str) -> list[str]:
    """Where a file's outcome may depend on how fast the machine is."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += CLOCK.findall(node.value)
        elif isinstance(node, ast.ImportFrom) and node.module in ("time", "timeit"):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call):
            seconds = [given for given in node.args if isinstance(given, ast.Constant) and type(given.value) is not str]
            waits = isinstance(node.func, ast.Attribute) and node.func.attr in WAITS and seconds
            names = [f"{ast.unparse(node.func)}(", *(f"{key.arg}={ast.unparse(key.value)}" for key in node.keywords)]
            found += [ast.unparse(node)] if waits or any(map(CLOCK.search, names)) else []
    return found


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_no_test_asks_a_clock(path: Path) -> None:
    """Counts, lists of what was imported, and fake clocks say the same on every machine.

    A test that hangs is ended in one place: `faulthandler_timeout` in pyproject.toml.
    """
    assert clocks(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "line",
    ["perf_counter()", "sleep(1)", "monotonic_ns()", "time()"],
)
def test_clocks_are_found(line: str) -> None:
    requested = f"time.{line}"
    assert clocks(f"import time\nassert {requested} < 3") and clocks(f"run('import time; {requested}')")
    assert clocks(f"from time import {line.rstrip('()1')}")
    for call in ("run(x, {}=120)".format("timeout"), "process.wait(60)", "given.settings({}=5)".format("deadline")):
        assert clocks(call), call
    for call in (
        "process.wait()",
        "', '.join(names)",
        "settings(deadline=None)",
        "patch('time.monotonic', f)",
        "d.get(k)",
    ):
        assert not clocks(call), call


def starts_a_process(source: str) -> list[str]:
    """The tests of a file that start a process, themselves or through what they call or ask for, and are not slow."""
    body = ast.parse(source).body
    if any(isinstance(line, ast.Assign) and "mark.slow" in ast.unparse(line) for line in body):
        return []
    defined = {line.name: line for line in body if isinstance(line, ast.FunctionDef | ast.ClassDef)}

    def starts(thing: ast.AST, seen: frozenset[str]) -> bool:
        names = {node.id for node in ast.walk(thing) if isinstance(node, ast.Name)}
        names |= {node.arg for node in ast.walk(thing) if isinstance(node, ast.arg)}
        following = {name: defined[name] for name in names - seen if name in defined}
        return "subprocess" in names or any(starts(each, seen | {*following}) for each in following.values())

    return [
        name
        for name, test in defined.items()
        if name.startswith("test_") and starts(test, frozenset({name}))
        if "pytest.mark.slow" not in map(ast.unparse, test.decorator_list)
    ]


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_what_starts_a_process_is_marked_slow(path: Path) -> None:
    assert starts_a_process(path.read_text("utf-8")) == []


def test_processes_are_found() -> None:
    helper = "def site():\n    subprocess.run([])\n"
    assert starts_a_process(f"{helper}def test_a(site): ...") == ["test_a"]
    assert starts_a_process(f"{helper}def test_a():\n    site()") == ["test_a"]
    assert starts_a_process(f"{helper}@pytest.mark.slow\ndef test_a(site): ...") == []
    assert starts_a_process(f"{helper}def test_a(tmp_path): ...") == []
