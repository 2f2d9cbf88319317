"""The HTML page of reports: one file that asks for nothing, holds every number as text, and runs no stranger's code."""

import base64
import hashlib
import json
import math
import re
import shutil
import subprocess
import zlib
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import product

import pytest

import topo
from topo.cli import main
from topo.errors import TopoError
from topo.report import Report, Reports, Row
from topo.report.numerals import decimal, shown
from topo.report.page import SCRIPT

HOSTILE = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>\x1b[31m"
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Page(HTMLParser):
    """Tags with their attributes, scripts, and tables as lists of rows of (text, data-v)."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.tables, self._cell = [], [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "script":
            self.scripts.append([given, ""])
        if tag == "table":
            self._rows = self.tables.setdefault(given["id"], [])
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._cell = [given.get("data-v"), ""]
            self._rows[-1].append(self._cell)

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}", {}))
        self._cell = None if tag in ("td", "th") else self._cell

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1][1] += data
        elif self._cell is not None:
            self._cell[1] += data


def report(name="a.pt", seed=0, layer="fc.weight"):
    rows = [
        Row(name, "density", None, "channel", 0.25 + seed / 10, "fraction"),
        Row(name, "effective_paths", None, "channel", 10**400 + seed, "paths"),
        Row(name, "log10_effective_paths", None, "channel", -math.inf, "log10 paths", "no path"),
    ]
    values = [3, math.nan, 10**20, 7, 3]
    layers = [layer, "b", "c", "d", "e"]
    rows += [Row(name, "kept", n, "channel", v, "parameters", "why") for n, v in zip(layers, values)]
    shapes = {n: (2, 2) for n in layers}
    notes = [{"metric": None, "layer": None, "note": "layers are a chain"}]
    return Report(name, "topo", "m", "channel", shapes, rows, notes, provenance={"method": name, "seed": seed})


@pytest.mark.small
def test_every_number_stands_in_the_page_as_text_and_as_it_is():
    made = report()
    page = Page(made.to_html())
    network = {row[0][1]: row[1] for row in page.tables["network0"][1:]}
    assert network["density"] == ["0.25", shown(0.25)]
    assert network["effective_paths"][0] == decimal(10**400)
    layers = page.tables["layers0"]
    assert [cell[1] for cell in layers[0]] == ["layer", "shape", "kept"]
    assert [row[2][0] for row in layers[1:]] == ["3", "", "1" + "0" * 20, "7", "3"]
    assert "layers are a chain" in made.to_html().partition('class="data"')[0]


@pytest.mark.small
def test_the_json_in_the_page_is_that_of_the_command():
    made = Reports([report(), report(HOSTILE, 1, HOSTILE)])
    page = Page(made.to_html())
    (data, text), (_, script) = page.scripts
    assert data == {"type": "application/json", "id": "data"} and script == SCRIPT
    assert text.replace("\\u003c", "<") == made.to_json() and "<" not in text
    assert json.loads(text)["reports"][1]["mask"] == HOSTILE
    assert Reports([report()]).to_html() == report().to_html()


@pytest.mark.small
def test_names_stay_text_and_nothing_is_asked_for():
    """Whatever a name holds: the tags are those of a page with plain names, and no attribute asks for a file."""
    plain = Reports([report("x", 0, "y"), report("z", 1, "y")])
    hostile = Reports([report(HOSTILE, 0, HOSTILE), report(HOSTILE + "2", 1, HOSTILE)])
    one, other = Page(plain.to_html()), Page(hostile.to_html(command=f"topo {HOSTILE}"))
    assert [t for t, _ in one.tags if "code" not in t] == [t for t, _ in other.tags if "code" not in t]
    assert "\x1b" not in hostile.to_html()
    for tag, given in other.tags:
        assert not any(key.startswith("on") or key in ("src", "action", "formaction") for key in given), tag
        assert given.get("href", "#").startswith("#")
    (policy,) = [given["content"] for _, given in other.tags if given.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    expected = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    assert unescape(policy) == expected
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", SCRIPT) and "fetch" not in SCRIPT


def test_commands_write_it(tmp_path, capsys):
    masks = topo.generate("erk", "mlp:8-6-4-2", density=0.6, rng=0)
    topo.write_masks(masks, tmp_path / "m.safetensors")
    page, saved, data = tmp_path / "a.html", tmp_path / "b.html", tmp_path / "a.json"
    assert main(["analyze", str(tmp_path / "m.safetensors"), "--html", str(page), "--json", str(data), "--quiet"]) == 0
    assert main(["report", str(data), "-o", str(saved), "--quiet"]) == 0
    first = saved.read_bytes()
    assert main(["report", str(data), "-o", str(saved), "--quiet"]) == 0
    assert saved.read_bytes() == first
    text = Page(page.read_text()).scripts[0][1]
    assert text.replace("\\u003c", "<") == data.read_text() == Page(saved.read_text()).scripts[0][1]
    assert "topo analyze" in page.read_text() and "mlp:8-6-4-2" in page.read_text()
    with pytest.raises(TopoError, match="none"):
        Reports([]).to_html()


def in_browser(path, *options):
    """The page as the browser has it once its script has run."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *options]
    return subprocess.run([*command, path.as_uri()], capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed; `make test-browser` installs it")
def test_the_script_runs_under_the_policy(tmp_path):
    """In a browser: the script runs, no stranger's does, tables get their tools, and the console is empty."""
    path = tmp_path / "page.html"
    Reports([report(HOSTILE, 0, HOSTILE), report("b", 1, HOSTILE)]).to_html(path)
    done = in_browser(path, "--dump-dom", "--enable-logging=stderr")
    page = Page(done.stdout)
    assert dict(page.tags)["html"].get("data-ready") == "yes", done.stderr[-2000:]
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert [given.get("aria-label") for tag, given in page.tags if tag == "input" and given.get("placeholder")]
    assert sum(tag == "circle" for tag, _ in page.tags) == 2 and not any(tag == "img" for tag, _ in page.tags)
    assert [row[2][0] for row in page.tables["layers0"][1:]] == ["3", "", "1" + "0" * 20, "7", "3"]


def deep(count):
    """A report of so many layers, with hostile names, ties, whole numbers beyond a float, and undefined ones."""
    layers = [f"{'&<b>' * (k % 3)}block.{(7 * k) % count}.{HOSTILE if k % 50 == 0 else 'conv'}" for k in range(count)]
    columns = {
        "kept": [math.nan if k % 11 == 0 else (k * 37) % 19 for k in range(count)],
        "density": [math.nan if k % 7 == 3 else ((k * 61) % 97) / 96 for k in range(count)],
        "effective_params": [10**20 + (k * 13) % 29 for k in range(count)],
    }
    rows = [Row("deep", "density", None, "channel", 0.25, "fraction")]
    rows += [Row("deep", m, n, "channel", v, "parameters") for m, held in columns.items() for n, v in zip(layers, held)]
    return Report("deep", "topo", "m", "channel", {n: (2, 2) for n in layers}, rows), layers, columns


# Sorts by every column, up and down, filters, and selects, as clicks do; what it saw becomes the title.
_CLICKS = """
var t=document.getElementById('layers0'),out=[],body=t.tBodies[0];
function order(){return Array.from(body.rows).map(function(r){return r.dataset.k}).join()}
Array.from(t.tHead.rows[0].cells).forEach(function(h){for(var n=0;n<2;n++){h.click();out.push(order())}});
var find=document.querySelector('input[aria-label="filter layers0"]');
find.value='block.7.';find.dispatchEvent(new Event('input'));
out.push(Array.from(body.rows).filter(function(r){return r.getClientRects().length})
 .map(function(r){return r.dataset.k}));
body.querySelector('[data-k="9"]').cells[0].click();
out.push(Array.from(document.querySelectorAll('#bars0 .chosen')).map(function(g){return g.dataset.k}).join());
out.push(document.documentElement.scrollWidth-innerWidth,innerWidth,Math.round(performance.now()));
parent.postMessage(out.join('|'),'*');
"""
# A telephone: browsers make no window of 360 px, but a frame may be so narrow.
_PHONE = """<title></title><script>onmessage=function(e){document.title=e.data}</script>
<iframe src="page.html" width="360" height="800" style="border:0"></iframe>"""


def clicked(text, folder, clicks=_CLICKS):
    """What a script saw in a page whose policy admits that one more, on a telephone."""
    digest = base64.b64encode(hashlib.sha256(clicks.encode()).digest()).decode()
    text = text.replace("; img-src", f" &#x27;sha256-{digest}&#x27;; img-src", 1)
    (folder / "page.html").write_text(text.replace("</body>", f"<script>{clicks}</script></body>"))
    (folder / "phone.html").write_text(_PHONE)
    done = in_browser(folder / "phone.html", "--dump-dom", "--virtual-time-budget=5000")
    return unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]).split("|")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed; `make test-browser` installs it")
def test_five_hundred_layers_are_sorted_as_python_does_filtered_and_selected_on_a_phone(tmp_path):
    """Numbers by size, the undefined last, equals stay where they were; nothing is wider than the window."""
    made, layers, columns = deep(500)
    text = made.to_html()
    assert len(text) < 1_000_000
    *orders, filtered, chosen, wider, width, _ = clicked(text, tmp_path)
    order = list(range(500))
    for values in ([name.lower() for name in layers], ["2x2"] * 500, *columns.values()):
        defined = [k for k in order if values[k] == values[k]]
        missing = [k for k in order if values[k] != values[k]]
        up = sorted(defined, key=lambda k, v=values: v[k]) + missing
        assert orders.pop(0) == ",".join(map(str, up))
        order = sorted([k for k in up if values[k] == values[k]], key=lambda k, v=values: v[k], reverse=True) + missing
        assert orders.pop(0) == ",".join(map(str, order))
    assert orders == [] and chosen == "9"
    assert filtered.split(",") == [str(k) for k in order if "block.7." in layers[k]]
    assert int(wider) <= 0 and width == "360"


def family():
    """Reports of two methods at two densities, with hostile names, three seeds each."""
    made = []
    for number, (method, density, seed) in enumerate(product((HOSTILE, "erk"), (0.1, 0.2), range(3))):
        nodes = math.nan if number == 4 else 7 * number % 5
        values = {"density": density, "effective_nodes": nodes, "units": 10**16 + 8 * number}
        rows = [Row(f"m{number}", metric, None, "channel", value, "nodes") for metric, value in values.items()]
        layers = {"sigma2": [1.0, 3.0, math.nan], "ramanujan_bound": [2.0, 2.0, 2.0], "kept": [1, 2, 3]}
        rows += [Row(f"m{number}", m, n, "channel", v, "") for m, held in layers.items() for n, v in zip("abc", held)]
        known = {"method": method, "density": density, "seed": seed}
        shapes = {name: (2, 2) for name in "abc"}
        made.append(Report(f"m{number}", "topo", "m", "channel", shapes, rows, provenance=known))
    return Reports(made)


@pytest.mark.small
def test_groups_that_differ_by_less_than_is_shown_are_told_apart():
    made = family()
    made = [replace(r, provenance={**r.provenance, "density": 0.10002 if n % 2 else 0.1}) for n, r in enumerate(made)]
    _, *rows = Page(Reports(made).to_html()).tables["grouped"]
    assert {row[1][1] for row in rows} == {"0.1", "0.10002"}


@pytest.mark.small
def test_groups_of_masks_hold_the_means_of_the_summary():
    made = family()
    head, *rows = Page(made.to_html()).tables["grouped"]
    assert [name for _, name in head] == ["method", "density_asked", "masks", "density", "effective_nodes", "units"]
    told = [(row["mean"], row["t95"]) for row in made.summary(by=["method", "density_asked"])]
    for cell, (mean, half) in zip((cell for row in rows for cell in row[3:]), told, strict=True):
        assert float(cell[0]) == mean and cell[1] == shown(mean, "nodes") + (f" ± {shown(half)}" if half > 0 else "")
    alone = Reports([made[0], made[3]])  # no two masks of one method and density
    assert "grouped" not in Page(alone.to_html()).tables


def beside_nulls():
    """A report with z against two null models, one of them undefined, one beyond the scale."""
    nulls = [
        {"null": null, "samples": 9, "metric": metric, "layer": layer, "observed": 1.0, "mean": 0.5, "std": 0.1,
         "z": z, "p": p}
        for null, metric, layer, z, p in (
            ("same_layers", "density", None, 1e9, 0.01), ("same_layers", "effective_paths", None, -3.5, 0.2),
            ("same_layers", "kept", "b", 1.0, 0.5), ("same_rows", "density", None, math.nan, 1.0),
            ("same_rows", "effective_paths", None, 0.25, 0.9),
        )
    ]  # fmt: skip
    return replace(report(), nulls=tuple(nulls))


@pytest.mark.small
def test_numbers_stand_beside_their_z_and_in_a_forest():
    page = Page(beside_nulls().to_html())
    head, *rows = page.tables["network0"]
    assert [name for _, name in head] == ["metric", "value", "unit", "group", "z, same_layers", "z, same_rows"]
    found = {row[0][1]: [row[3][1], row[4][0], row[5][0]] for row in rows}
    assert found["density"] == ["paths", "1000000000.0", ""] and found["effective_paths"] == ["paths", "-3.5", "0.25"]
    assert found["log10_effective_paths"] == ["paths", "", ""]
    marks = [given for tag, given in page.tags if tag == "circle"]
    assert len(marks) == 3 and sum(given["fill"] == "none" for given in marks) == 2
    assert all(190 <= float(given["cx"]) <= 650 for given in marks)
    text = beside_nulls().to_html()
    assert "topo plot null_forest report.json" in text and "density, same_layers: z 1.00e+09, p 0.0100" in text


# Groups by another column, draws another scatter, selects a layer, saves figures.
_GROUPS = """
var out=[],saved=[];URL.createObjectURL=function(b){saved.push(b);return '#'};
function rows(){return Array.from(document.getElementById('grouped').tBodies[0].rows).map(function(r){
 return [r.cells[0].textContent,r.cells[2].dataset.v,r.cells[4].dataset.v].join('~')}).join('^')}
var before=rows();
function tick(name){document.querySelector('input[aria-label="group by '+name+'"]').click()}
tick('method');out.push(rows());tick('method');out.push(rows()===before);
var s=document.querySelector('select[aria-label=vertical]');s.value=s.options[s.options.length-2].value;
s.dispatchEvent(new Event('change'));
function drawn(){return document.querySelectorAll('#dots circle').length}
function untold(){return /of 12 masks are not drawn/.test(document.getElementById('dots').textContent)}
out.push(drawn(),s.selectedOptions[0].textContent,untold());
s.value=s.options[s.options.length-1].value;s=document.querySelector('select[aria-label=horizontal]');
s.value=s.options[s.options.length-1].value;s.dispatchEvent(new Event('change'));out.push(drawn(),untold());
document.querySelector('#layers1 tbody tr[data-k="1"]').cells[0].click();
out.push(Array.from(document.querySelectorAll('g.chosen')).map(function(g){return g.parentNode.id}).join());
['spectra1','the scatter'].forEach(function(n){document.querySelector('[aria-label="save '+n+' as SVG"]').click()});
out.push(document.documentElement.scrollWidth-innerWidth);
Promise.all(saved.map(function(b){return b.text()})).then(function(all){all.forEach(function(t){
 var d=new DOMParser().parseFromString(t,'image/svg+xml'),n=function(s){return d.querySelectorAll(s).length};
 out.push(n('parsererror')+':'+n('circle,g'))});
 parent.postMessage(out.join('|'),'*')});
"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed; `make test-browser` installs it")
def test_masks_are_grouped_by_any_column_and_a_layer_is_marked_in_its_figures(tmp_path):
    made = family()
    grouped, back, dots, vertical, told, all_dots, again, chosen, wider, *saved = clicked(
        made.to_html(), tmp_path, _GROUPS
    )
    wanted = []
    for density in (0.1, 0.2):
        of = [r.network["effective_nodes"] for r in made if r.network["density"] == density]
        of = [value for value in of if value == value]
        wanted.append((density, sum(of) / len(of)))
    found = [row.split("~") for row in grouped.split("^")]
    assert [row[1] for row in found] == ["6", "6"]
    assert [(float(row[0]), float(row[2])) for row in found] == [pytest.approx(pair) for pair in wanted]
    assert back == "true" and vertical == "effective_nodes" and (dots, told) == ("11", "true")
    assert (all_dots, again) == ("12", "false")  # numbers beyond 2^53 too
    assert chosen == "bars1,spectra1" and int(wider) <= 0 and sorted(saved) == ["0:12", "0:2"]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed; `make test-browser` installs it")
def test_without_script_and_in_print_all_numbers_are_there(tmp_path):
    made, layers, columns = deep(60)
    path, printed = tmp_path / "page.html", tmp_path / "page.pdf"
    made.to_html(path)
    rows = Page(path.read_text()).tables["layers0"][1:]
    assert len(rows) == len(layers)
    for place, name in enumerate(columns, 2):
        for row, value in zip(rows, columns[name]):
            assert row[place][1] == shown(value, "parameters")
    in_browser(path, "--no-pdf-header-footer", f"--print-to-pdf={printed}")
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", printed.read_bytes(), re.DOTALL)
    drawn = sum(zlib.decompressobj().decompress(part).count(b"Tj") for part in streams if part[:1] == b"x")
    assert drawn > 3 * len(layers)
