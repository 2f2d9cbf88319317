"""The first command of an installation: two processes compile, and the numbers are the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from topo.cli import compiling, main

MASK = Path(__file__).parent.parent / "notebooks" / "masks" / "synflow_resnet20_d0.02.safetensors"


def test_the_first_command_gives_what_every_later_one_gives(tmp_path: Path) -> None:
    """With an empty cache: both processes leave kernels in it, and the second one is gone with the first."""
    code = (
        "import subprocess, sys; real, made = subprocess.Popen, []; "
        "subprocess.Popen = lambda *a, **k: made.append(real(*a, **k)) or made[-1]; "
        "from topo.cli import main; code = main(sys.argv[1:]); "
        "print(code, len(made), *(one.returncode is not None for one in made))"
    )
    texts, folder = [], tmp_path / "strange"
    folder.mkdir()
    (folder / "numba.py").write_text("open('was here', 'w')")  # a file of the current folder is nobody's module
    for number, asked in enumerate((["--threads", "2"], ["--threads", "2"], ["--threads", "1"])):
        out = tmp_path / f"{number}.json"
        line = [sys.executable, "-P", "-c", code, "analyze", str(MASK), "--quiet", "--csv", os.devnull]
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        line += ["--json", str(out), *asked]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True, cwd=folder)
        assert done.stdout.splitlines()[-1].split() == (["0", "1", "True"] if number == 0 else ["0", "0"])
        texts.append(out.read_text())
    assert [path.name for path in folder.iterdir()] == ["numba.py"]
    assert texts[0] == texts[1] == texts[2] and json.loads(texts[0])["reports"]


def test_the_other_end_compiles_for_the_same_types() -> None:
    """What the second process compiles is what an analysis of a file calls: no kernel of it is compiled again."""
    code = (
        "import sys; from topo.cli import compiling, main; compiling.other_end(); "
        "from topo.kernels import bits, components, paths, spectrum; "
        "kernels = (paths.count_backward, components.components, spectrum.gram, spectrum.transpose, "
        "bits.column_counts); before = [len(kernel.signatures) for kernel in kernels]; "
        "code = main(['analyze', sys.argv[1], '--quiet', '--csv', '/dev/null']); "
        "print(code, before, [len(kernel.signatures) for kernel in kernels])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(MASK)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 [1, 1, 1, 1, 1] [1, 1, 1, 1, 1]"


def test_one_process_compiles_where_no_second_is_wanted_or_allowed(monkeypatch, tmp_path: Path) -> None:
    asked = []

    def refuse(*line, **options):
        asked.append(line)
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr("topo.kernels.CACHES", [tmp_path])
    monkeypatch.setattr(compiling.threads, "count", lambda threads: threads or 2)
    arguments = ["analyze", str(MASK), "--quiet", "--csv", os.devnull]
    assert main([*arguments, "--threads", "1"]) == 0 and not asked
    assert main(arguments) == 0 and len(asked) == 1
    (tmp_path / "kernels_1").mkdir()
    (tmp_path / "kernels_1" / compiling._LAST.replace("*", "1")).touch()
    assert main(arguments) == 0 and len(asked) == 1


@pytest.mark.parametrize("name", ["paths.count_backward-350.py27.nbi", "paths.count_forward-300.py311.nbi"])
def test_a_cache_of_another_python_is_not_filled(monkeypatch, tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    monkeypatch.setattr("topo.kernels.CACHES", [tmp_path])
    assert not compiling._is_filled()
