"""The README: its three uses run as they stand; figures of the pages that it leads to are those of the benchmarks."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from topo.cli import main
from topo.formats import formats
from topo.pruners import pruners

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


CAPABILITIES = (ROOT / "docs" / "capabilities.md").read_text(encoding="utf-8")
SPEED = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")


def section(title: str, text: str = TEXT) -> str:
    """What stands under a heading of the second order."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


USES = dict(
    zip(
        ("analyse", "generate and train", "plot"),
        [re.findall(r"```(\w+)\n(.*?)```", part, re.S) for part in ("\n" + section("Three uses")).split("\n**")[1:]],
        strict=True,
    )
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the repository's own mask where the README looks for it."""
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_shell(text: str) -> None:
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "topo" and main(words[1:]) == 0, line


@pytest.mark.parametrize("use", USES)
def test_each_use_stands_in_the_shell_and_in_python_under_six_lines(use: str) -> None:
    assert [language for language, _ in USES[use]] == ["sh", "python"]
    assert all(len(text.splitlines()) < 6 for _, text in USES[use])


@pytest.mark.parametrize("use", USES)
def test_each_use_runs(use: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = dict(USES[use])
    run_shell(texts["sh"])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(texts["python"], f"README.md: {use}", "exec"), {})
    plt.close("all")
    made = {
        "analyse": ["report.json", "densities.pdf"],
        "generate and train": ["balance.safetensors", "runs/balance/summary.json"],
        "plot": ["layers.pdf", "overlap.pdf"],
    }[use]
    assert all((folder / name).stat().st_size for name in made)
    if use == "analyse":
        assert printed.getvalue().startswith("3117655989491274312148247039780 206\n")
        assert re.search(r"^effective_nodes +206 ", capsys.readouterr().out, re.M)
    if use == "generate and train":
        accuracy, rest = printed.getvalue().split(maxsplit=1)
        assert float(accuracy) > 0.5 and rest.strip() == "()"


def test_the_speed_table_repeats_rows_of_the_benchmarks() -> None:
    rows = [line for line in SPEED.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 8
    measured = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for row in rows:
        assert f"\n{row.rstrip(' |')} |" in measured, row


def test_numbers_of_formats_and_pruners() -> None:
    words = dict(
        zip("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split(), range(10, 20))
    )
    table = section("What others have", CAPABILITIES)
    counted = re.search(r"reads the masks .*?\| (\w+) formats", table), re.search(r"pruners at .*?\| (\w+),", table)
    assert [words[found[1]] for found in counted if found] == [len(formats), len(pruners)]


def test_it_is_one_screen() -> None:
    assert len(TEXT.splitlines()) <= 60


def test_links_lead_somewhere() -> None:
    for link, anchor in re.findall(r"\]\(([^)#]+)(?:#([^)]*))?\)", TEXT):
        assert link.startswith("https://") or (ROOT / link).exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (ROOT / link).read_text(encoding="utf-8"), re.M)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, anchor
    listed = re.search(r"topo list ([\w| ]+)`", TEXT)
    assert listed is not None
    for what in listed[1].split("|"):
        assert main(["list", what.strip()]) == 0
