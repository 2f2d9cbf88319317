"""Commands in the documentation: each is one that the command line takes, with the names that it knows."""

import re
import shlex
from pathlib import Path

from topo.cli import parser

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("notebooks/*.md"), *ROOT.glob("benchmarks/*.md")]
)
_BLOCK = re.compile(r"^```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"^\s*(?:\$ |- run: )?(topo \S.*)$", re.MULTILINE)
_INLINE = re.compile(r"`(topo \w+ [^`\n]*-[^`\n]*)`")


def commands(inline):
    """(page, words) of every `topo ...` in a block, or in the text where it holds an option."""
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        if inline:
            for line in _INLINE.findall(_BLOCK.sub("", text)):
                yield page.name, line.split()[1:]
        else:
            for block in _BLOCK.findall(text):
                block = re.sub(r"run: >-\n\s*(topo .*)\n\s*", r"run: \1 ", block)
                for line in _LINE.findall(block):
                    yield page.name, shlex.split(line, comments=True)[1:]


def test_each_command_in_a_block_is_one(capsys):
    """Its options exist and their values are of their kinds; not one is a pattern."""
    grammar, found = parser(), list(commands(inline=False))
    assert len(found) > 50 and len({page for page, _ in found}) > 12
    for page, words in found:
        try:
            grammar.parse_args(words)
        except SystemExit as stop:
            assert not stop.code, (page, words, capsys.readouterr().err)


def test_each_option_in_the_text_is_one_of_its_command():
    choices = parser().parse_args(["warm"]).commands
    found = list(commands(inline=True))
    assert len(found) > 30
    for page, words in found:
        assert words[0] in choices, (page, words)
        known = set(choices[words[0]]._option_string_actions)
        for word in words:
            if re.fullmatch(r"-[-\w]+(=.*)?", word) and not re.fullmatch(r"-[\d.]+", word):
                assert word.partition("=")[0] in known, (page, words)
