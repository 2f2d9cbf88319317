"""The documentation: it builds without a warning, says all there is, says it unmangled, and its examples run."""

from __future__ import annotations

import argparse
import ast
import html
import importlib.util
import inspect
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import topo
from topo.metrics.paths import unit_centrality
from topo.wiring import Join, Layer, Wiring

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TOOLS = ("sphinx", "myst_parser", "furo", "latex2mathml", "sphinx_copybutton", "sphinx_design")
PAGES = sorted(page for page in DOCS.glob("*.md"))
FENCE = re.compile(r"^```(python|pycon)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"</?(?:a|code|span|strong|em|b)(?:\s[^>]*)?>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Page (as in "api/masks.html") -> its HTML."""
    missing = [name for name in TOOLS if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the documentation's tools are not installed: {', '.join(missing)} (pip install '.[docs]')")
    out = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "--builder", "html"]
    done = subprocess.run([*command, str(DOCS), str(out)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {str(path.relative_to(out)): path.read_text("utf-8") for path in out.rglob("*.html")}


def words(page: str) -> str:
    """The text of a page, blanks made one."""
    text = re.sub(r"<[^>]*>", " ", INLINE.sub("", re.sub(r"<(script|style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)))
    return " ".join(html.unescape(text).replace("¶", " ").split())


@pytest.mark.slow
def test_links_inside_the_site_resolve(site: dict[str, str]) -> None:
    ids = {name: set(re.findall(r'\bid="([^"]+)"', page)) for name, page in site.items()}
    found = 0
    for name, page in site.items():
        for target in re.findall(r'<a\b[^>]*\bhref="([^"]+)"', page):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = html.unescape(target).partition("#")
            there = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
            assert there in site, f"{name} links to {target}"
            assert not anchor or anchor in ids[there], f"{name} links to {target}"
            found += bool(anchor)
    assert found > 100


@pytest.mark.slow
def test_links_of_the_pages_resolve_in_the_repository_too(site: dict[str, str]) -> None:
    """A page read as Markdown links to files; what is not a page of the site is named there in words."""
    for page in [*PAGES, *(DOCS / "api").glob("*.md")]:
        for target in re.findall(r"\]\((?![a-z]+:)([^)#]+)[^)]*\)", FENCE.sub("", page.read_text("utf-8"))):
            assert (page.parent / target).is_file(), f"{page.name} links to {target}"
    text, written = words(site["index.html"]), (DOCS / "index.md").read_text("utf-8")
    for name in ("notebooks", "benchmarks"):
        assert f"[{name}](../{name}/README.md)" in written
        assert f"{name} ({name}/README.md in the repository)" in text


@pytest.mark.slow
def test_the_site_needs_no_network(site: dict[str, str]) -> None:
    for name, page in site.items():
        fetched = re.findall(r'<(?:script|img|iframe)\b[^>]*\bsrc="([^"]+)"', page)
        fetched += re.findall(r'<link\b[^>]*\brel="stylesheet"[^>]*\bhref="([^"]+)"', page)
        assert not [target for target in fetched if re.match(r"(https?:)?//", target)], name


@pytest.mark.slow
def test_formulas_are_formulas(site: dict[str, str]) -> None:
    source = re.sub(r"```.*?```|`[^`]*`", "", (DOCS / "theory.md").read_text("utf-8"), flags=re.DOTALL)
    written = len(re.findall(r"\$\$.*?\$\$|\$[^$]+\$", source, re.DOTALL))
    assert site["theory.html"].count("<math ") == written > 100
    for name in ("theory.html", "limits.html", "differences.html"):
        assert "$" not in words(re.sub(r"<div class=\"highlight.*?</pre>", "", site[name], flags=re.DOTALL)), name
        assert "\\" not in re.sub(r"<[^>]*>", "", "".join(re.findall(r"<math .*?</math>", site[name], re.DOTALL))), name


@pytest.mark.slow
def test_every_registry_is_shown(site: dict[str, str]) -> None:
    from topo.data import data
    from topo.formats import formats
    from topo.generate import methods
    from topo.metrics import metrics
    from topo.models import models
    from topo.plots import plots
    from topo.quotas import quotas
    from topo.train import recipes

    shown = {
        "metrics.html": {entry.name for entry in metrics.values()},
        "methods.html": {*methods(), *quotas},
        "formats.html": formats,
        "models.html": models,
        "plots.html": plots,
        "training.html": {*recipes, *data},
    }
    for name, entries in shown.items():
        marked = set(re.findall(r'<span class="pre">([^<]+)</span>', site[name]))
        marked |= set(re.findall(r"<h[234]>([^<]+)<a", site[name]))
        assert set(entries) <= marked, f"{name} lacks {sorted(set(entries) - marked)}"
    text = words(site["metrics.html"])
    for key, entry in metrics.items():
        of_layers = f"layer:{entry.name.removesuffix('_layers')}" in metrics
        if key.startswith("layer:") or not of_layers:  # means and counts over layers stand in the row of the layer's
            assert " ".join(entry.doc.replace("`", "").split()) in text, entry.name


def plain(text: str | None) -> str:
    """A text of a registry or a parser as a page shows it: blanks made one, `code` without its quotes."""
    return " ".join((text or "").replace("`", "").split())


def part(page: str, title: str) -> str:
    """The HTML under a heading, up to the next heading of its level or above."""
    head = re.search(rf"<h([23])>{re.escape(title)}<a.*?</h\1>", page)
    assert head, f"no heading '{title}'"
    return re.split(rf"<h[1-{head[1]}]>|</article>", page[head.end() :])[0]


def rows(page: str) -> list[list[str]]:
    """The cells of the tables of a page, line by line, as text."""
    lines = re.findall(r"<tr\b.*?</tr>", page, re.DOTALL)
    cells = [[words(cell) for cell in re.findall(r"<td>.*?</td>", line, re.DOTALL)] for line in lines]
    return [line for line in cells if line]


def listed(options: dict[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items()) or "none"


@pytest.mark.slow
def test_every_metric_is_shown_with_its_unit_view_and_source(site: dict[str, str]) -> None:
    from topo.metrics import GROUPS, metrics

    for group in GROUPS:
        shown = {cells[0]: cells[1:] for cells in rows(part(site["metrics.html"], group))}
        names = {entry.name for entry in metrics.values() if entry.group == group}
        counts = {name for name in names if name.endswith("_layers") and name.removesuffix("_layers") in names}
        assert len(shown) == len(names - counts) > 3
        for name in names - counts:
            both = [metrics[key] for key in (f"layer:{name}", f"network:{name}") if key in metrics]
            found = [entry for entry in both if entry.group == group]
            units, sources = (dict.fromkeys(getattr(entry, side) for entry in found) for side in ("unit", "source"))
            views = {"network": "network", "layer": "single layer"}
            meaning, view, source = shown[f"{name} {', '.join(units)}"]
            assert view == ", ".join(dict.fromkeys(views[entry.view] for entry in found)), name
            assert source == " ".join(map(plain, sources)), name
            assert meaning.startswith(f"{found[0].scope}: ") and f"{found[-1].scope}: " in meaning, name
            of_layers = re.split(r"\bnetwork: ", meaning)[0] if found[0].scope == "layer" else meaning
            assert ("Needs" in of_layers) == (found[0].wired or found[0].weighted), name
            assert ("wiring" in of_layers.partition("Needs")[2]) == found[0].wired, name
            assert ("weights" in of_layers.partition("Needs")[2]) == found[0].weighted, name


@pytest.mark.slow
def test_every_method_and_model_is_shown_with_its_source_and_options(site: dict[str, str]) -> None:
    from topo.generators import generators
    from topo.models import models
    from topo.optimize import methods
    from topo.pruners import pruners
    from topo.quotas import quotas

    shapes, balance, scores = (part(site["methods.html"], title) for title in
                               ("From shapes alone", "Balance", "From weights and data"))  # fmt: skip
    kept = {"layers": "every layer keeps exactly its budget",
            "total": "the network keeps exactly its budget, layers nearly"}  # fmt: skip
    for name, made in generators.items():
        budget = "from the masks it is given" if made.rewires else f"{made.quota} unless told otherwise"
        budget = "its own" if made.fixed else budget
        exact = kept.get(made.exact) or f"the structure forbids an exact budget: {made.keeps}"
        end = f" Source: {plain(made.source)} Budgets: {budget}; {exact} Options: {listed(made.options)}"
        assert words(part(shapes, name)).endswith(end), name
    for name, method in methods.items():
        assert words(part(balance, name)).endswith(f" Source: {plain(method.source)} Options: {listed(method.options)}")
    for name, scored in pruners.items():
        data = {"batches": "batches of (x, y)", "none": "no data"}[scored.data]
        end = f" Source: {plain(scored.source)} Looks at: the model's weights, {data} Cost: {plain(scored.cost)}"
        assert words(part(scores, name)).endswith(f"{end} Options: {listed(scored.options)}"), name
    for name, rule in quotas.items():
        first = plain(rule.__doc__.splitlines()[0])
        assert words(part(part(site["methods.html"], "Quotas"), name)).startswith(first), name
    for name, net in models.items():
        shape = "x".join(map(str, net.input_shape()))
        end = f" Source: {plain(net.source)} Input: {shape} Options: {net.usage or 'none'}"
        assert words(part(site["models.html"], name)).endswith(end), name


@pytest.mark.slow
def test_every_figure_is_shown_with_what_it_is_drawn_of_and_its_options(site: dict[str, str]) -> None:
    from topo.plots import plots, takes
    from topo.plots.reading import options_of

    drawn = {"reports": "reports, or masks and a model", "masks": "masks", "graphs": "masks and a model",
             "rows": "a table, reports or runs", "courses": "runs", "evaluation": "JSON of topo evaluate",
             "frontiers": "JSON of topo generate --frontier"}  # fmt: skip
    for name, draw in plots.items():
        options = {key: "" if p.default in (p.empty, None) else p.default for key, p in options_of(draw).items()}
        made = "; or ".join(drawn[part] for part in takes[name][0].split(","))
        end = f" On the command line it is drawn of {made}. -O: {listed(options)}"
        assert words(part(site["plots.html"], name)).endswith(end), name


@pytest.mark.slow
def test_every_format_recipe_and_data_layout_is_shown(site: dict[str, str]) -> None:
    from topo.data import data
    from topo.formats import readers
    from topo.train import recipes

    ranked = readers()
    endings = [f"*{entry.ending}" if entry.write else "" for entry in ranked]
    assert rows(site["formats.html"])[: len(ranked)] == [  # a table of layouts follows
        [entry.name, plain(entry.about), ending] for entry, ending in zip(ranked, endings)
    ]
    # A process that imported one of the files by itself has them in another order.
    assert sorted(rows(site["training.html"])) == sorted(
        [name, "your files" if entry.recognise else "built in", plain(entry.about)] for name, entry in data.items()
    )
    for name in recipes:
        written = (ROOT / "topo" / "train" / "recipes" / f"{name}.toml").read_text("utf-8")
        shown = words(part(site["training.html"], name))
        assert shown.replace(" ", "") == re.sub(r"\s", "", written), name


COMMON = ("seed", "threads", "quiet", "profile", "debug")


def arguments(command: argparse.ArgumentParser) -> list[list[str]]:
    """What the tables say of a parser's arguments: how each is written, and its help."""
    found = []
    for action in command._actions:
        name = action.dest if not action.option_strings else action.dest.upper()
        value = str(action.metavar or (f"{{{','.join(action.choices)}}}" if action.choices else name))
        many = {0: "", None: value, "?": f"[{value}]", "+": f"{value} [{value} ...]", "*": f"[{value} ...]"}
        written = many[action.nargs]
        options = [f"{option} {written}".strip() for option in action.option_strings]
        must = "; required" if action.required and options else ""
        found.append([" ".join(options or [written]), plain(action.help) + must])
    return found


@pytest.mark.slow
def test_every_command_and_option_is_shown(site: dict[str, str]) -> None:
    from topo.cli import parser

    page, whole = site["command_line.html"], parser()
    commands = next(action.choices for action in whole._actions if isinstance(action.choices, dict))
    assert len(commands) >= 9
    for name, command in commands.items():
        there, entries = part(page, f"topo {name}"), arguments(command)
        of_all = [entry for entry in entries if entry[0].split(" ")[0] in {f"--{option}" for option in COMMON}]
        assert len(of_all) == len(COMMON), name  # every command has them; they stand in a table of their own
        assert rows(there) == [entry for entry in entries if entry not in of_all and not entry[0].startswith("-h ")]
        assert words(there).startswith(plain(command.description)), name
        usage = re.search(r"<pre>(.*?)</pre>", there, re.DOTALL)
        requested = re.sub(
            r" (\[-h\]|\[--(seed N|threads N|quiet|profile|debug)\])", "", " ".join(command.format_usage().split())
        )
        assert usage and f"usage: {words(usage[1])}" == requested
        for line in (command.epilog or "").splitlines()[1:]:
            assert f"$ {plain(line)}" in words(there), name
        assert [entry for entry in rows(part(page, "Options of every command")) if entry[0] != "--version"] == of_all
    assert ["--version", "show program's version number and exit"] in rows(part(page, "Options of every command"))


def documented() -> list[tuple[str, Path]]:
    """The modules of the API reference whose members are shown, kernels among them."""
    found = [(f"topo.kernels.{path.stem}", path) for path in sorted((ROOT / "kernels").glob("[a-z]*.py"))]
    for page in sorted((DOCS / "api").glob("*.md")):
        for name, options in re.findall(r"^\.\. automodule:: (\S+)\n((?:   :.*\n)*)", page.read_text("utf-8"), re.M):
            if ":no-members:" not in options:
                path = ROOT / name.replace(".", "/")
                found.append((name, path / "__init__.py" if path.is_dir() else path.with_suffix(".py")))
    assert len(found) > 50
    return found


def public(path: Path) -> list[tuple[str, ast.FunctionDef | ast.ClassDef, bool]]:
    """(name, definition, in a class?) of what a module defines: what its __all__ names, or what has no underscore."""
    found: list[tuple[str, ast.FunctionDef | ast.ClassDef, bool]] = []
    body = ast.parse(path.read_text("utf-8")).body
    listed = [ast.literal_eval(line.value) for line in body
              if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__all__"]  # fmt: skip
    for thing in body:
        if not isinstance(thing, ast.FunctionDef | ast.ClassDef):
            continue
        if thing.name in listed[0] if listed else not thing.name.startswith("_"):
            found.append((thing.name, thing, False))
            for inner in thing.body if isinstance(thing, ast.ClassDef) else ():
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    found.append((f"{thing.name}.{inner.name}", inner, True))
    return found


def test_every_public_docstring_exists() -> None:
    for name, path in documented():
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), name
        for what, thing, inside in public(path):
            short = inside and len(thing.body) <= 2  # it says itself what it is
            assert short or ast.get_docstring(thing), f"{name}.{what} has no docstring"


@pytest.mark.slow
def test_docstrings_are_shown_word_for_word(site: dict[str, str]) -> None:
    """Formulas hold stars, bars and underscores, which markup eats: every line must come out as it was written."""
    text = " ".join(words(page) for page in site.values())
    lines = 0
    for name, path in documented():
        for what, thing, inside in public(path):
            for line in (ast.get_docstring(thing) or "").splitlines() if not inside else ():
                line = re.sub(r"^\s*(\*|\d\.) |`|# doctest:.*", "", line)
                line = " ".join(line.split())
                assert line in text, f"{name}.{what}: {line}"
                lines += 1
    assert lines > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    "module, line, many",
    [("topo.graph.views", r"\w+ {2,}(?=\S)", 4), ("topo.networks", r" {4}\S", 6),
     ("topo.graph.bipartite", r"\w+ {2,}(?=\S)", 3)],
)  # fmt: skip
def test_aligned_and_indented_lines_keep_every_space(site: dict[str, str], module: str, line: str, many: int) -> None:
    doc = inspect.getdoc(importlib.import_module(module)) or ""
    found = [text for text in doc.splitlines() if re.match(line, text)]
    assert len(found) == many
    written = html.escape(inspect.cleandoc("\n" + "\n".join(found)), quote=False)
    assert f"<pre><span></span>{written}\n</pre>" in "".join(site.values())


@pytest.mark.slow
def test_names_of_the_package_are_in_the_reference(site: dict[str, str]) -> None:
    ids = {found for page in site.values() for found in re.findall(r'\bid="(topo\.[^"]+)"', page)}
    names = {f"topo.{name}" for name in topo.__all__ if name not in ("__version__", "TopoError")}
    assert names <= ids, sorted(names - ids)
    assert {"topo.errors.TopoError", "topo.wiring.Layer", "topo.wiring.Join", "topo.graph.LayeredGraph"} <= ids
    assert {"topo.optimize.Problem", "topo.optimize.Balanced", "topo.train.Run", "topo.data.Dataset"} <= ids


# Examples and figures.

RUN = """
import doctest, re, sys
failed = 0
for path in sys.argv[1:]:
    text, names = open(path, encoding="utf-8").read(), {"__name__": "page"}
    for found in re.finditer(r"^```(python|pycon)\\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\\n", 0, found.start(2))
        if found[1] == "python":
            exec(compile("\\n" * line + found[2], path, "exec"), names)
        else:
            part = doctest.DocTestParser().get_doctest(found[2], names, path, path, line)
            failed += doctest.DocTestRunner().run(part, clear_globs=False).failed
            names = part.globs
sys.exit(failed > 0)
"""


@pytest.mark.slow
def test_examples_of_the_pages_run(tmp_path: Path) -> None:
    """In a process of their own: they add to the registries."""
    pages = [page for page in PAGES if FENCE.search(page.read_text("utf-8"))]
    assert {"quickstart.md", "theory.md", "extending.md"} <= {page.name for page in pages}
    done = subprocess.run([sys.executable, "-c", RUN, *map(str, pages)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def entropy(shares: np.ndarray) -> float:
    return -math.fsum(share * math.log(share) for share in shares.ravel() if share > 0)


@pytest.mark.small
@pytest.mark.parametrize("seed", range(4))
def test_balance_law_of_residual_blocks(seed: int) -> None:
    """log P + H(stream) = sum over blocks of H(route), a route being a parameter of the branch or the identity."""
    n, rng = 4, np.random.default_rng(seed)
    first, second = (rng.random((n, n)) < 0.6 for _ in range(2))
    start, stream, end = np.arange(n), np.arange(2 * n, 3 * n), np.arange(4 * n, 5 * n)
    steps = (
        Layer("a", (n, n), start, n), Join("add", (start, start + n), 2 * n),
        Layer("b", (n, n), stream, 3 * n), Join("add", (stream, stream + n), 4 * n),
    )  # fmt: skip
    wiring = Wiring(start, steps, end)
    masks = topo.MaskSet({"a": first, "b": second})
    before, after = first.astype(int) + np.eye(n, dtype=int), second.astype(int) + np.eye(n, dtype=int)
    paths = int((after @ before).sum())
    report = topo.analyze(masks, wiring, metrics="paths")
    assert report.network["effective_paths"] == paths

    visits = unit_centrality(topo.build_graph(masks, wiring))[stream]
    routes = [
        [share for j in range(n) for i in range(n) for share in [behind[j] * ahead[i] / paths] * many[j, i]]
        for many, ahead, behind in ((before, np.ones(n), after.sum(0)), (after, before.sum(1), np.ones(n)))
    ]
    total = sum(entropy(np.array(route)) for route in routes)
    assert math.log(paths) + entropy(visits) == pytest.approx(total, rel=1e-13)
    assert report.network["path_entropy"] <= math.log(first.sum()) + math.log(second.sum())


@pytest.mark.parametrize("density, floor", [(0.01, 8), (0.03, 8), (0.02, 3)])
def test_the_degree_floor_of_the_theory_page(density: float, floor: int) -> None:
    """Live hidden units: min(C, min over the two layers beside them of n_e // d); fan-ins within one."""
    wiring = topo.chain(topo.MaskSet({"a": np.ones((300, 64)), "b": np.ones((100, 300)), "c": np.ones((10, 100))}))
    masks = topo.generate("balance", wiring, density=density, degree_floor=floor, rng=0)
    kept = [int(mask.sum()) for mask in masks.values()]
    live = [int(mask.any(axis=1).sum()) for mask in masks.values()]
    assert live == [min(300, min(kept[:2]) // floor), min(100, min(kept[1:]) // floor), 10]
    for mask in masks.values():
        fan_in = mask.sum(axis=1)[mask.any(axis=1)]
        assert fan_in.max() - fan_in.min() <= 1


def test_every_method_has_its_idea_needs_cost_source_and_differences() -> None:
    """Idea and source stand in the registries, from which the page takes them; the rest in tables and sections."""
    from topo.calibrated import methods as calibrated
    from topo.generators import generators
    from topo.optimize import methods as solvers
    from topo.pruners import pruners
    from topo.train.dynamic import dynamics

    page = (DOCS / "methods.md").read_text("utf-8")
    tables = page.partition("## Needs, cost, and where we differ\n")[2].partition("\n## ")[0]
    held = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables.splitlines() if "| `" in line]
    wide = [row for row in held if len(row) == 4]
    assert {(row[0], row[1]) for row in wide} == {
        (f"`{name}`", entry.needs) for registry in (generators, solvers) for name, entry in registry.items()
    }
    scored = [*pruners.items(), *calibrated.items()]
    assert {row[0] for row in held if len(row) == 2} == {f"`{name}`" for name, _ in scored}
    assert all(entry.needs and entry.cost for _, entry in scored)
    assert all(all(row) for row in held) and len(held) == len({tuple(row) for row in held})
    for registry in (generators, solvers, pruners, calibrated):
        assert all(entry.description and entry.source for entry in registry.values())
    moving = page.partition("## Masks that move while the network trains\n")[2].partition("\n## ")[0]
    for name in dynamics:
        entry = moving.partition(f"### {name}\n")[2].partition("\n### ")[0]
        idea = entry.partition("\n* ")[0].strip()
        assert idea.count(". ") + idea.count(".\n") >= 1, name
        assert "* Needs:" in entry and "Cost:" in entry and "* Source:" in entry, name
