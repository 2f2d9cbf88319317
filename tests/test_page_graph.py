"""The graph in the HTML page: what it holds against searches over lists, and what clicks and keys do in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape

import numpy as np
import pytest
from test_page import BROWSER, HOSTILE, Page, in_browser
from test_random_wirings import random_wiring

import naive
import topo
import toys
from topo._support.screen import printable
from topo.graph import build_graph
from topo.graph.columns import Columns
from topo.graph.drawing import STOPS, drawing, fewest
from topo.masks import MaskSet

pytestmark = pytest.mark.kernels


def lines_of(found, link=None):
    every = found["links"] if link is None else [link]
    return [tuple(k["lines"][n : n + 3]) for k in every for n in range(0, len(k["lines"]), 3)]


@pytest.mark.small
@pytest.mark.parametrize("seed", range(30))
def test_lines_on_paths_are_the_edges_between_live_units(seed):
    """Of wirings that no model has: every kind of step, groups, parameters used again and in part."""
    rng = np.random.default_rng(seed)
    wiring = random_wiring(rng)
    masked = [name for name in wiring.names if wiring.layer(name).kind != "embedding"]
    if not masked:
        wiring, masked = toys.branching(), list(toys.branching().names)
    density = float(rng.choice([0.3, 0.7, 1.0]))
    masks = MaskSet({name: rng.random(wiring.layer(name).mask_shape) < density for name in masked})
    found, net = drawing(masks, wiring), naive.Net(masks, wiring)
    columns, live = Columns(build_graph(masks, wiring)), net.forward & net.backward
    unit_of = [int(columns.units[columns.order[column]][first]) for column, first, *_ in found["dots"]]
    assert len(set(unit_of)) == len(unit_of) == sum(column["units"] for column in found["columns"])
    steps = {}
    for layer in net.layers:
        edges = {(int(columns.drawn[u]), int(columns.drawn[v])) for _, u, v in net.edges(layer) if {u, v} <= live}
        steps[layer.name] = steps.get(layer.name, set()) | edges
    told = {name: set() for name in steps}
    for link in found["links"]:
        for a, b, level in lines_of(found, link):
            if level:
                assert found["dots"][a][3] and found["dots"][b][3]
                if link["layer"] is not None:
                    told[link["layer"]].add((unit_of[a], unit_of[b]))
    assert told == steps
    assert {unit for unit, dot in zip(unit_of, found["dots"]) if dot[3]} == {int(columns.drawn[u]) for u in live} & {
        *unit_of
    }


@pytest.mark.small
def test_the_fewest_units_are_the_fewest():
    rng = np.random.default_rng(0)
    for _ in range(20):
        shares = rng.random(int(rng.integers(1, 9))) ** 4 * (rng.random() < 0.9)
        wanted = []
        for stop in STOPS:
            falling = sorted(shares.tolist(), reverse=True)
            enough = [n for n in range(len(falling) + 1) if sum(falling[:n]) >= stop / 100 * sum(falling) * (1 - 1e-12)]
            wanted.append(enough[0] if stop < 100 else np.count_nonzero(shares))
        assert fewest(shares, np.count_nonzero(shares)) == wanted


@pytest.mark.small
def test_many_units_share_dots_and_nothing_is_lost():
    masks = toys.sparse(toys.residual(16, 3), 0.3, 0)
    whole, few = (drawing(masks, toys.residual(16, 3), most_lines=most) for most in (10**6, 150))
    assert few["columns"] == whole["columns"] and len(lines_of(few)) <= 150 < len(lines_of(whole))
    for place in (2, 3, 5, 6):  # units, live units, fan-in, fan-out
        assert sum(dot[place] for dot in few["dots"]) == sum(dot[place] for dot in whole["dots"])
    assert sum(dot[4] for dot in few["dots"]) == pytest.approx(sum(dot[4] for dot in whole["dots"]), rel=1e-3)
    assert all(dot[1] == -1 for dot in few["dots"] if dot[2] > 1) and max(dot[2] for dot in few["dots"]) > 1
    assert [column["fewest"][-1] for column in whole["columns"]] == [column["live"] for column in whole["columns"]]


def hostile():
    """A network whose layers have names that would be tags: a chain with a dead unit, a collapsed layer beside it."""
    a = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]], bool)
    b = np.array([[1, 0, 1, 0], [0, 1, 1, 0]], bool)
    masks = MaskSet({HOSTILE + "a": a, HOSTILE + "b": b})
    return topo.analyze(masks, topo.chain(masks), mask_name=HOSTILE)


@pytest.mark.small
def test_the_page_holds_the_graph_as_text_without_a_script():
    text = hostile().to_html()
    page = Page(text)
    assert [row[2][0] for row in page.tables["units0"][1:]] == ["2", "2", "2"]  # live
    assert not any(tag == "img" for tag, _ in page.tags) and text.count("<script>") == 1
    (data,) = [json.loads(held) for given, held in page.scripts if "data-graph" in given]
    assert data["columns"][1]["name"] == printable(HOSTILE) + "a" and {link["k"] for link in data["links"]} == {0, 1}
    svg = text.partition("id=graph0")[2].partition("</svg>")[0]
    assert "2 of 4 units live" in svg and hostile().to_html() == text
    back = topo.report.Report.from_json(hostile().to_json())
    assert "graph of units is drawn where" in back.to_html() and "data-graph" not in back.to_html().split("<script>")[0]


@pytest.mark.small
def test_a_deep_and_wide_network_stays_under_a_megabyte():
    wiring = toys.residual(64, 25, kernel=1)
    masks = toys.sparse(wiring, 0.5, 0)
    made = topo.analyze(masks, wiring, metrics="paths")
    text = made.to_html()
    assert len(text) < 1_000_000 and len(lines_of(made.drawing())) <= 20_000


# Clicks a unit, a layer's row, a column, an empty place; slides, zooms and saves; what it saw becomes the title.
_CLICKS = """
var svg=document.querySelector('#graph0 svg'),out=[],told=[],said=document.querySelector('.said');
function click(e){e.dispatchEvent(new MouseEvent('click',{bubbles:true}))}
function lit(){return Array.from(svg.querySelectorAll('circle.on')).map(function(c){return c.dataset.d}).join()}
function key(k){svg.dispatchEvent(new KeyboardEvent('keydown',{key:k,bubbles:true}))}
UNITS.forEach(function(u){click(svg.querySelector('circle[data-d="'+u+'"]'));out.push(lit());told.push(said.textContent)});
key('Escape');out.push(lit());
click(document.querySelector('#layers0 tbody tr[data-k="2"]').cells[0]);out.push(lit());
click(svg.querySelector('rect[data-c="2"]'));out.push(document.querySelector('#layers0 tr.chosen').dataset.k);
key('ArrowRight');out.push(said.textContent.split(':')[0]);
var slide=document.querySelector('input[type=range]');slide.value=11;slide.dispatchEvent(new Event('input'));
out.push(slide.nextSibling?'':slide.parentNode.nextSibling.textContent);
key('Escape');out.push(svg.querySelectorAll('circle.few').length);
key('+');out.push(+svg.getAttribute('viewBox').split(' ')[2]<+svg.getAttribute('width'));
key('0');out.push(+svg.getAttribute('viewBox').split(' ')[2]==+svg.getAttribute('width'));
var saved;URL.createObjectURL=function(b){saved=b;return '#'};
click(document.querySelector('[aria-label="save the picture as SVG"]'));
out.push(document.documentElement.scrollWidth-innerWidth,svg.querySelectorAll('circle').length);
saved.text().then(function(t){var back=new DOMParser().parseFromString(t,'image/svg+xml');
out.push(back.querySelectorAll('circle').length,told.join('~'));parent.postMessage(out.join('|'),'*')});
"""
_PHONE = """<title></title><script>onmessage=function(e){document.title=e.data}</script>
<iframe src="page.html" width="360" height="800" style="border:0"></iframe>"""


def paths_of(found, link=None):
    """Pairs of dots that lines on paths join."""
    return [(a, b) for a, b, level in lines_of(found, link) if level]


def back(pairs):
    return [(b, a) for a, b in pairs]


def closure(pairs, dot):
    """A dot, and all that lines lead to from it."""
    seen, left = {dot}, [dot]
    while left:
        here = left.pop()
        new = {b for a, b in pairs if a == here} - seen
        seen |= new
        left += new
    return seen


def on_paths(found, dot):
    """Dots on a path through one; none of a dead one."""
    every = closure(paths_of(found), dot) | closure(back(paths_of(found)), dot)
    return every if found["dots"][dot][3] else set()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed; `make test-browser` installs it")
def test_units_and_layers_light_their_paths_and_the_slider_keeps_the_fewest(tmp_path):
    wiring = toys.residual(6, 3, inputs=3)
    drawn = {**toys.sparse(wiring, 0.2, 3)}
    drawn["stem"] = drawn["stem"] & (np.arange(6) == 0).reshape(6, 1, 1, 1)  # a waist
    masks = MaskSet({HOSTILE * (k == 2) + name: mask for k, (name, mask) in enumerate(drawn.items())})
    renamed = dict(zip(wiring.names, masks))
    wiring = type(wiring).from_json(
        re.sub('"0.conv2"', json.dumps(renamed["0.conv2"]).replace("\\", r"\\"), wiring.to_json())
    )
    made = topo.analyze(masks, wiring, metrics="paths")
    found = made.drawing()
    waist = next(k for k, dot in enumerate(found["dots"]) if dot[4] == 1)
    units = [waist, len(found["dots"]) // 2, *(k for k, dot in enumerate(found["dots"]) if not dot[3])][:3]
    script = _CLICKS.replace("UNITS", str(units))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = made.to_html().replace("; img-src", f" &#x27;sha256-{digest}&#x27;; img-src", 1)
    (tmp_path / "page.html").write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    (tmp_path / "phone.html").write_text(_PHONE)
    options = ("--dump-dom", "--virtual-time-budget=5000", "--enable-logging=stderr")
    done = in_browser(tmp_path / "phone.html", *options)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line], done.stderr[-2000:]
    seen = unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]).split("|")
    for unit in units:
        assert set(map(int, filter(None, seen.pop(0).split(",")))) == on_paths(found, unit), unit
    assert seen.pop(0) == ""
    own = [pair for link in found["links"] if link["layer"] == list(masks)[2] for pair in paths_of(found, link)]
    wanted = set().union(*(closure(paths_of(found), b) | closure(back(paths_of(found)), a) for a, b in own))
    assert set(map(int, filter(None, seen.pop(0).split(",")))) == wanted
    assert seen.pop(0) in {
        str(list(masks).index(link["layer"])) for link in found["links"] if link["to"] == 2 and link["layer"]
    }
    assert seen.pop(0) == printable(found["columns"][3]["name"])
    assert STOPS[11] == 90 and seen.pop(0).startswith("90 %: the fewest units of each layer")
    shown = sum(column["fewest"][11] for column in found["columns"])
    assert int(seen.pop(0)) == len(found["dots"]) - shown
    assert seen[:2] == ["true", "true"] and int(seen[2]) <= 0
    assert seen[3] == seen[4] == str(len(found["dots"]))
    for unit, said in zip(units, seen[5].split("~"), strict=True):
        column, first, _, live, share, *_ = found["dots"][unit]
        name = printable(found["columns"][column]["name"])
        carried = f": {float(f'{100 * share:.3g}'):g} % of all paths" if live else ": dead"
        assert said.startswith(f"{name}, unit {first}{carried}")


@pytest.mark.small
def test_what_lives_by_a_skip_alone_is_told():
    """A residual layer without a weight: its column shows the units of the sum, which the skip feeds."""
    wiring = toys.residual(6, 3, inputs=3)
    masks = toys.sparse(wiring, 0.6, 1)
    masks = MaskSet({name: masks[name] & (name != "1.conv2") for name in masks})
    made = topo.analyze(masks, wiring, metrics="paths")
    found = made.drawing()
    by_skip = {column["name"]: column["by_skip"] for column in found["columns"] if column["by_skip"]}
    (column,) = (column for column in found["columns"] if column["name"] == "1.conv2")
    assert by_skip == {"1.conv2": column["live"]} and column["live"] > 0
    assert sum(dot[7] for dot in found["dots"]) == column["live"]
    assert f"1.conv2: {column['live']} of 6 units live, {column['live']} by the skip alone" in made.to_html()
