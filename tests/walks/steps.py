"""What the walks share: the commands and the Python of a page of the documentation, done in their order.

A walk runs outside the checkout, on an installed wheel: python student.py WHEEL_SITE DOCS, in an empty folder.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SITE, DOCS = Path(sys.argv[1]), Path(sys.argv[2])
_BLOCK = re.compile(r"^```(py|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def walk(page, answers=None):
    """Do the blocks of a page; return the names that its Python made. answers: exit codes that are not 0, by place."""
    import topo
    from topo.cli import main

    assert Path(topo.__file__).is_relative_to(SITE), topo.__file__
    sys.path.insert(0, os.getcwd())
    names, count = {}, 0
    for kind, text in _BLOCK.findall((DOCS / page).read_text("utf-8")):
        if kind == "py" and (file := re.match(r"# (\w+\.py)\n", text)):
            Path(file[1]).write_text(text)
        elif kind == "py":
            exec(compile(text, page, "exec"), names)
        else:
            for line in text.replace("\\\n", " ").splitlines():
                program, *arguments = shlex.split(line)
                assert program == "topo", line
                code = main([*arguments, "--quiet"])
                assert code == (answers or {}).get(count, 0), (code, line)
                count += 1
    assert count, page
    return names


def labels(path):
    """The words in a drawn SVG."""
    found = re.findall(r"<text[^>]*>(.*?)</text>", Path(path).read_text("utf-8"), re.DOTALL)
    return [" ".join(re.sub("<[^>]+>", "", text).split()) for text in found]


def ink(path):
    """How many grey values a picture has; 1 is an empty page."""
    from PIL import Image

    with Image.open(path) as image:
        return len(set(image.convert("L").resize((200, 120)).tobytes()))


def interactive(path):
    """The page after its script has run, if there is a browser; otherwise as it is. Its script must have run there."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return Path(path).read_text("utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    done = subprocess.run([browser, *options, Path(path).resolve().as_uri()], capture_output=True, text=True)
    assert 'data-ready="yes"' in done.stdout, done.stderr[-1000:]
    return done.stdout
