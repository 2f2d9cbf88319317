"""Report: what `analyze` found, as tidy rows, and its forms: JSON, CSV, pandas, Markdown, LaTeX, HTML.

Undefined is NaN in Python, null in JSON, an empty field in CSV and a dash in tables, and a note says why.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from topo._support.atomic import write_text
from topo._support.screen import printable
from topo._version import __version__
from topo.errors import TopoError
from topo.report import text
from topo.report.groups import grouped, labels
from topo.report.holm import holm
from topo.report.numerals import decimal, finite, shown, whole
from topo.report.page import page
from topo.report.table import Table, plain

if TYPE_CHECKING:
    import pandas

SCHEMA = "topo/1"
COLUMNS = ("mask", "metric", "layer", "view", "value", "unit", "note")
NULL_COLUMNS = ("null", "samples", "metric", "observed", "mean", "std", "z", "p")
# What a table says of where a mask comes from, as far as it is known.
ORIGIN = ("file", "sha256", "method", "seed", "options", "density")
# Numbers of the network, and of layers, that are looked at first.
FIRST = (
    "density", "effective_density", "effective_nodes", "log10_effective_paths", "layer_collapse", "balance_gap",
    "path_entropy_width", "flops_effective", "ramanujan_gap", "imdb",
)  # fmt: skip
OF_LAYERS = frozenset("kept density effective_params effective_in effective_out sigma2 ramanujan_gap imdb".split())
_MOST = 12
_AS_TEXT = frozenset({"effective_paths"})
_OF_GROUPS = frozenset({"group", "block", "projection", "layers"})
# A number whose rank among the samples of a null model is at least so likely, both tails, is taken for one of them.
_NOISE = 0.05

Number = int | float


def _plain(number: Any) -> Number:
    """A Python int or float: None is NaN, booleans are 0 and 1, numpy scalars lose their type."""
    if number is None:
        return math.nan
    if hasattr(number, "item"):
        number = number.item()
    return int(number) if isinstance(number, bool) else number


def _repr(number: Number) -> str:
    """repr() that does not fail on integers beyond 4300 digits."""
    return repr(number) if isinstance(number, float) or abs(number) < 10**30 else shown(number, "paths")


@dataclass(frozen=True, repr=False)
class Value:
    """A number that explains itself: what a metric returns where a bare number would not do.

    number: int (of any size) or float; None and NaN mean undefined. note: why it is undefined, or how it was found.
    """

    number: Number
    note: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "number", _plain(self.number))

    def __repr__(self) -> str:
        return f"Value({_repr(self.number)}, {self.note!r})"

    @classmethod
    def of(cls, number: Any) -> Value:
        """A Value as it is; any number wrapped into one."""
        return number if isinstance(number, cls) else cls(number)


@dataclass(frozen=True, repr=False)
class Row:
    """One number of one mask. layer: None for a number of the whole network. view: of the convolutions' graph."""

    mask: str
    metric: str
    layer: str | None
    view: str
    value: Number
    unit: str = ""
    note: str | None = None

    def __post_init__(self) -> None:
        value = _plain(self.value)
        object.__setattr__(self, "value", value)
        if not finite(value) and not self.note:
            object.__setattr__(self, "note", "undefined" if math.isnan(value) else f"{value}: not finite")

    def __repr__(self) -> str:
        where = f"{self.mask!r}, {self.metric!r}, {self.layer!r}, {self.view!r}"
        return f"Row({where}, {_repr(self.value)}, {self.unit!r}, {self.note!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """The numbers of one mask set; immutable.

    mask: its name. format: the reader that understood the file. model, view: what was analysed. shapes: parameter name
    -> shape, in network order. rows: every number. notes: dicts {"metric", "layer", "note"} with remarks of the whole
    analysis first, then those of the rows. nulls: dicts {"null", "samples", "metric", "layer", "observed", "mean",
    "std", "z", "p"}, and "p_holm" after `with_holm`, null models in the order of how much they keep, each with its
    numbers in the order of the rows; see `topo.nulls.score`. coverage: {"read", "left_out", "names"}, parameters with a
    mask and without, as the file was read; None where the masks come from no file. scopes: of a language model, dicts
    {"scope", "layers", "params", "kept", "density"} of its pruned layers, its decoder's linear layers and everything;
    scope: the one that the network's numbers are of. group: the pattern by which `groups` are made, see `grouped`.
    provenance: what is known of where the masks come from, as JSON holds it: "file", "sha256" (of the file's bytes, up
    to 256 MB), "method", "seed", "options", "density" (as it was asked for), and "fields", which `topo.analyze_files`
    took from the file's name; a key that is not there is unknown. drawing: gives what `to_html` draws of the network
    (`topo.graph.drawing`), from the masks that it holds; None of a report that was read from a file, and of masks
    without a wiring. JSON and CSV do not hold it.

    >>> rows = [Row("a.pt", "density", None, "channel", 0.5), Row("a.pt", "density", "fc.weight", "channel", 0.5)]
    >>> report = Report("a.pt", "topo", None, "channel", {"fc.weight": (2, 3)}, rows)
    >>> report.network["density"], report.layers
    (0.5, [{'layer': 'fc.weight', 'shape': (2, 3), 'density': 0.5}])
    """

    mask: str
    format: str | None
    model: str | None
    view: str
    shapes: Mapping[str, tuple[int, ...]]
    rows: Sequence[Row]
    notes: Sequence[Mapping[str, str | None]] = field(default=())
    nulls: Sequence[Mapping[str, Any]] = field(default=())
    coverage: Mapping[str, Any] | None = None
    scopes: Sequence[Mapping[str, Any]] = field(default=())
    scope: str | None = None
    group: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    drawing: Callable[[], Mapping[str, Any]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        shapes = {str(name): tuple(int(n) for n in shape) for name, shape in self.shapes.items()}
        object.__setattr__(self, "shapes", MappingProxyType(shapes))
        object.__setattr__(self, "rows", tuple(self.rows))
        given = [(note.get("metric"), note.get("layer"), note["note"]) for note in self.notes]
        of_rows = [(row.metric, row.layer, row.note) for row in self.rows if row.note]
        notes = tuple({"metric": m, "layer": n, "note": said} for m, n, said in dict.fromkeys([*given, *of_rows]))
        object.__setattr__(self, "notes", notes)
        object.__setattr__(self, "nulls", tuple(self.nulls))
        object.__setattr__(self, "scopes", tuple(self.scopes))
        object.__setattr__(self, "provenance", MappingProxyType(plain_json(dict(self.provenance))))

    def __repr__(self) -> str:
        """One screen: what it is of, and the numbers of the network that are looked at first."""
        first = f"Report({self.headings[0]}: {len(self.rows)} numbers of {len(self.shapes)} layers)"
        units = {row.metric: row.unit for row in self.rows if row.layer is None}
        told = [name for name in FIRST if name in units] or list(units)[:_MOST]
        lines = [f"  {name} {shown(self.network[name], units[name])}" for name in told]
        lines += [f"  {len(self.collapsed)} collapsed: {few(self.collapsed)}"] if self.collapsed else []
        return "\n".join(printable(line) for line in [first, *lines])

    def __str__(self) -> str:
        """The numbers as tables of text: the network's, the most used ones of the layers, and the remarks."""
        made = []
        for header, lines in self.tables():
            keys = 2 if header[0] == "layer" else 1
            table = Table(header, lines, keys=keys, left=frozenset({2, 3} if header[0] == "network" else ()))
            if keys == 2 and any(name in OF_LAYERS for name in header):
                table = table.only([c for c, name in enumerate(header) if c < 2 or name in OF_LAYERS])
            made.append(plain(table))
        made += ["".join(f"note: {printable(line)}\n" for line in self.remarks())]
        return "\n".join([printable(self.headings[0]) + "\n", *filter(None, made)]).rstrip("\n")

    @cached_property
    def network(self) -> Mapping[str, Number]:
        """Metric -> number of the whole network: int (of any size), float, NaN where undefined."""
        return MappingProxyType({row.metric: row.value for row in self.rows if row.layer is None})

    @property
    def layers(self) -> list[dict[str, Any]]:
        """A dict per layer, in network order: {"layer": name, "shape": shape, metric: number, ...}."""
        found: dict[str, dict[str, Any]] = {
            name: {"layer": name, "shape": shape} for name, shape in self.shapes.items()
        }
        for row in self.rows:
            if row.layer is not None:
                found[row.layer][row.metric] = row.value
        return list(found.values())

    @property
    def scope_line(self) -> str | None:
        """The densities of a language model's scopes in a line; None of another network."""
        if not self.scopes:
            return None
        said = [f"{entry['scope']} {entry['density']:.4f}" for entry in self.scopes if entry["density"] is not None]
        return f"density by scope: {', '.join(said)}; the network's numbers are those of '{self.scope}'"

    def grouped(self, pattern: str | None = None) -> list[dict[str, Any]]:
        """The layers' numbers in groups: {"group", "layers": how many, "params", metric: number, ...} of each.

        pattern: parts of a name, `*` for any one part or piece of it; what it matches is the group (`layers.*` by
        block, `*_proj` by projection), and with brackets a regular expression whose brackets are. By default names of a
        language model are grouped by block and projection ("0.q_proj", with "block" and "projection" beside), and other
        names make no groups. Counts are summed, shares weighted by parameters, other numbers averaged.

        >>> rows = [Row("a", "kept", f"layers.{n}.q_proj.weight", "channel", n, "parameters") for n in (0, 1)]
        >>> shapes = {row.layer: (2, 2) for row in rows}
        >>> Report("a", None, None, "channel", shapes, rows).grouped("*_proj")
        [{'group': 'q_proj', 'layers': 2, 'params': 8, 'kept': 1}]

        Raises TopoError for a pattern that matches no layer.
        """
        units = {row.metric: row.unit for row in self.rows if row.layer is not None}
        return grouped(self.layers, units, pattern if pattern is not None else self.group)

    @cached_property
    def groups(self) -> list[dict[str, Any]]:
        """`grouped` by the report's own pattern; empty where it has none and the names tell no groups."""
        return self.grouped()

    def with_groups(self, pattern: str | None) -> Report:
        """The same report with its groups made by this pattern; TopoError if it matches no layer."""
        labels(list(self.shapes), pattern)
        return replace(self, group=pattern)

    @cached_property
    def collapsed(self) -> tuple[str, ...]:
        """Layers with no effective parameter; where that is not known, layers that keep none."""
        counts: dict[str, dict[str, Number]] = {}
        for row in self.rows:
            if row.layer is not None and row.metric in ("kept", "effective_params") and row.value == row.value:
                counts.setdefault(row.layer, {})[row.metric] = row.value
        return tuple(name for name in self.shapes if 0 in counts.get(name, {}).values())

    @cached_property
    def views(self) -> Mapping[str, str]:
        """Metric -> view, of the metrics that are seen in another view than the report's.

        Where the network's number and the layers' of one name differ in view, the layers' stands as "layer:metric".
        """
        found: dict[str, str] = {row.metric: row.view for row in self.rows if row.layer is None}
        for row in self.rows:
            if row.layer is not None:
                found["layer:" * (found.get(row.metric, row.view) != row.view) + row.metric] = row.view
        named = {name: view for name, view in found.items() if view != self.view or name.startswith("layer:")}
        return MappingProxyType(named)

    @property
    def first_rungs(self) -> Mapping[str, str | None]:
        """The old name of `first_explaining_null`, kept for one release."""
        return self.first_explaining_null

    @cached_property
    def first_explaining_null(self) -> Mapping[str, str | None]:
        """Metric of the network -> the first null model at which its p is within noise, None if it is at no one.

        Within noise is p >= 0.05, or that no sample differs from the masks. What such a null model keeps is enough to
        explain the number; which come first is said in `topo.nulls`. A metric is left out where too few samples were
        drawn to tell: 39 of them cannot bring p below 0.05.
        """
        return MappingProxyType({metric: first for metric, (first, told) in self._explained.items() if told})

    @cached_property
    def _explained(self) -> dict[str, tuple[str | None, bool]]:
        """Metric of the network -> its first explaining null model, and whether the samples are enough to tell."""
        found: dict[str, tuple[str | None, bool]] = {}
        for entry in self.nulls:
            metric = entry["metric"]
            first, told = found.get(metric, (None, True))
            if entry["layer"] is not None or entry["p"] != entry["p"] or first or not told:
                continue
            enough = _same(entry) or 2 / (1 + entry["samples"]) < _NOISE
            found[metric] = (entry["null"] if enough and entry["p"] >= _NOISE else None, enough)
        return found

    def null_lines(self, metrics: Container[str] | None = None) -> list[str]:
        """For a reader: a line for each null model, with the metrics (of `metrics`) first within noise at it.

        Beside each metric stands its |z|. Then what no null model explains, and how many numbers were tested.
        """
        told = {metric: found for metric, found in self._explained.items() if metrics is None or metric in metrics}
        levels = dict.fromkeys(entry["null"] for entry in self.nulls)
        z = {(entry["null"], entry["metric"]): entry["z"] for entry in self.nulls if entry["layer"] is None}
        lines = []
        for level in [*levels, None]:
            named = [metric for metric, found in told.items() if found == (level, True)]
            if level:
                apart = [(metric, abs(z[level, metric])) for metric in named]
                names = ", ".join(f"{metric} (|z| {far:.1f})" if far == far else metric for metric, far in apart)
                what = f"first within noise (p >= {_NOISE:g}) at {level}"
            else:
                names, what = ", ".join(named), f"beyond noise of every null model (p < {_NOISE:g})"
            lines += [f"{what}: {names}"] if names else []
        few_drawn = [metric for metric, (_, enough) in told.items() if not enough]
        if few_drawn:
            least = int(2 / _NOISE)
            lines.append(f"too few samples to tell noise (p below {_NOISE:g} takes {least}): {', '.join(few_drawn)}")
        tested = sum(entry["p"] == entry["p"] and not _same(entry) for entry in self.nulls)
        if lines and tested > 1:
            lines.append(f"{tested} numbers were tested: by chance some {tested * _NOISE:.0f} have p < {_NOISE:g}")
        return lines

    def with_holm(self) -> Report:
        """The same report with "p_holm" in each entry of `nulls`: p adjusted for the number of all entries (Holm)."""
        adjusted = holm([entry["p"] for entry in self.nulls])
        return replace(self, nulls=[{**entry, "p_holm": p} for entry, p in zip(self.nulls, adjusted)])

    def with_fields(self, fields: Mapping[str, Any]) -> Report:
        """The same report with these fields of its file's name, as `topo.analyze_files` reads them."""
        return replace(self, provenance={**self.provenance, "fields": dict(fields)})

    def remarks(self) -> list[str]:
        """Everything that is said under the tables, for a reader: notes, and where numbers are within noise."""
        scope = [self.scope_line] if self.scope_line else []
        return scope + note_lines(self.notes) + self.null_lines()

    def with_notes(self, notes: Iterable[str]) -> Report:
        """The same report with these remarks on the whole analysis put first."""
        remarks = [{"metric": None, "layer": None, "note": note} for note in notes]
        return replace(self, notes=[*remarks, *self.notes])

    def without_drawing(self) -> Report:
        """The same report, which holds no masks and draws no network."""
        return self if self.drawing is None else replace(self, drawing=None)

    def only(self, metrics: str | Sequence[str]) -> Report:
        """The numbers of these metrics (names, or one text with commas between), in this order, as for a narrow table.

        Notes on other metrics are left out. Collapsed layers are known by `kept` and `effective_params`.

        Raises TopoError for a metric that the report does not hold.
        """
        names = [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics)
        held = dict.fromkeys(row.metric for row in self.rows)
        for name in names:
            if name not in held:
                raise TopoError(f"the report of '{self.mask}' has no metric '{name}'; it has: {', '.join(held)}")
        rows = [row for name in dict.fromkeys(names) for row in self.rows if row.metric == name]
        notes = [note for note in self.notes if note["metric"] is None or note["metric"] in names]
        nulls = [entry for entry in self.nulls if entry["metric"] in names]
        return replace(self, rows=rows, notes=notes, nulls=nulls)

    @classmethod
    def from_json(cls, document: str | bytes | Mapping[str, Any]) -> Report:
        """The report of `to_json`: its text, or what `json.loads` made of it; `topo.read_reports` reads files.

        >>> report = topo.analyze({"fc.weight": np.array([[1, 0], [1, 1]])})
        >>> Report.from_json(report.to_json()).to_json() == report.to_json()
        True

        Raises TopoError for what is not a report, and for several.
        """
        found = reports_from_json(document)
        if len(found) != 1:
            raise TopoError(f"the JSON holds {len(found)} reports, not one; topo.read_reports(FILE) reads them all")
        return found[0]

    @property
    def columns(self) -> dict[str, Any]:
        """What a table says of the mask beside its numbers: where it comes from, how much was read, its name's fields.

        "density_asked" is the density in the provenance; options are JSON text.
        """
        known = {("density_asked" if key == "density" else key): self.provenance.get(key) for key in ORIGIN}
        known = {key: _json(value) if isinstance(value, dict) else value for key, value in known.items()}
        known |= {key: self.coverage[key] for key in ("read", "left_out") if self.coverage and key in self.coverage}
        return {key: value for key, value in known.items() if value is not None} | self.fields

    @property
    def fields(self) -> dict[str, Any]:
        """What `topo.analyze_files` read in the file's name by its pattern."""
        return dict(self.provenance.get("fields") or {})

    def to_json(self) -> str:
        """JSON text {"schema": "topo/1", "version", "reports": [this one]}; numbers are finite or null."""
        return reports_to_json([self])

    def to_html(self, path: str | Path | None = None, *, command: str | None = None) -> str:
        """One HTML page: offline, sortable, every number readable without a script; see `Reports.to_html`."""
        return reports_to_html([self], path, command=command)

    def to_csv(self) -> str:
        """Tidy CSV text: mask, metric, layer, view, value, unit, note; an undefined value is an empty field."""
        return reports_to_csv([self])

    def to_frame(self, *, wide: bool = False, level: str | None = None) -> pandas.DataFrame:
        """The rows as a pandas table; see `Reports.to_frame`, of which this is one report.

        Raises TopoError where pandas is not installed.
        """
        return frame([self], wide=wide, level=level)

    def to_markdown(self) -> str:
        """Two Markdown tables, the network's numbers and the layers', and the notes."""
        return text.markdown(self.headings, self.tables(), self.remarks())

    def to_latex(self) -> str:
        """Two LaTeX tables (booktabs), of the network and of the layers, and the notes; collapsed layers are bold."""
        return text.latex(self.headings, self.tables(), self.remarks(), self.collapsed)

    def _repr_html_(self) -> str:
        """The network's numbers; the layers', null models and remarks fold out."""
        return text.folding(self.headings, self.tables(), self.remarks(), self.collapsed)

    @property
    def headings(self) -> list[str]:
        """One line: the mask, its format, the model and the view."""
        known = [("format", self.format), ("model", self.model), ("view", self.view)]
        return [", ".join([self.mask, *(f"{name} {value}" for name, value in known if value)])]

    def tables(self) -> list[tuple[list[str], list[list[str]]]]:
        """Numbers of the network, of the layers, and the network's against null models, as (header, lines) of text.

        An empty table is left out, and so are numbers that no sample of a null model changes.
        """
        network = [
            [row.metric, shown(row.value, row.unit), row.unit, row.view] for row in self.rows if row.layer is None
        ]
        units = {row.metric: row.unit for row in self.rows if row.layer is not None}
        layers = [
            [entry["layer"], "x".join(map(str, entry["shape"]))]
            + [shown(entry[metric], unit) if metric in entry else "" for metric, unit in units.items()]
            for entry in self.layers
        ]
        of_network = {row.metric: row.unit for row in self.rows if row.layer is None}
        columns = [*NULL_COLUMNS, *(["p_holm"] if any("p_holm" in entry for entry in self.nulls) else [])]
        nulls = [
            [entry["null"], str(entry["samples"]), entry["metric"]]
            + [shown(entry[key], of_network.get(entry["metric"], "")) for key in ("observed", "mean", "std")]
            + [shown(entry[key]) for key in columns[6:]]
            for entry in self.nulls
            if entry["layer"] is None and not _same(entry)
        ]
        found = [
            (["network", "value", "unit", "view"], network),
            (["layer", "shape", *units], layers if units else []),
            (columns, nulls),
        ]
        return [(header, body) for header, body in found if body]


def _same(entry: Mapping[str, Any]) -> bool:
    """Whether no sample of the null model has another number than the masks themselves."""
    return bool(entry["std"] == 0 and entry["p"] == 1)


def note_lines(notes: Iterable[Mapping[str, str | None]]) -> list[str]:
    """Notes for a reader, a line each; the same text for several layers or metrics is one line."""
    grouped: dict[tuple[str, bool], tuple[dict[str, None], dict[str, None]]] = {}
    for note in notes:
        metrics, layers = grouped.setdefault((str(note["note"]), bool(note["layer"])), ({}, {}))
        metrics.update({note["metric"]: None} if note["metric"] else {})
        layers.update({note["layer"]: None} if note["layer"] else {})
    lines = []
    for (said, _), (metrics, layers) in grouped.items():
        where = " of ".join(part for part in (few(list(metrics)), few(list(layers))) if part)
        lines.append(f"{where}: {said}" if where else said)
    return lines


def few(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def reports_to_json(reports: Iterable[Report]) -> str:
    """JSON text {"schema": "topo/1", "version", "reports": [...]}, with a line for each layer and each note."""
    head = f'{{"schema": {json.dumps(SCHEMA)}, "version": {json.dumps(__version__)}, "reports": ['
    return head + ",".join("\n " + _report_to_json(report) for report in reports) + "\n]}\n"


def reports_to_html(reports: Sequence[Report], path: str | Path | None = None, *, command: str | None = None) -> str:
    """The page of some reports, see `Reports.to_html`; TopoError for none."""
    if not reports:
        raise TopoError("a page is made of one report or more; there is none")
    made = page(reports, reports_to_json(reports), command=command)
    if path is not None:
        write_text(path, made)
    return made


def _report_to_json(report: Report) -> str:
    network = {metric: _json_number(metric, value) for metric, value in report.network.items()}
    layers = [
        {key: list(value) if key == "shape" else value if key == "layer" else _json_number(key, value)
         for key, value in entry.items()}
        for entry in report.layers
    ]  # fmt: skip
    nulls = [
        {key: value if key in ("null", "samples", "metric", "layer")
         else _json_number(entry["metric"] if key == "observed" else key, value)
         for key, value in entry.items()}
        for entry in report.nulls
    ]  # fmt: skip
    about = {"mask": report.mask, "format": report.format, "model": report.model, "view": report.view}
    parts = [_json(about)[1:-1], f'"views": {_json(dict(report.views))}', f'"network": {_json(network)}']
    for name, entries in (("layers", layers), ("nulls", nulls), ("notes", report.notes)):
        parts.append(f'"{name}": [' + ",".join("\n   " + _json(entry) for entry in entries) + "]")
    parts.append(f'"coverage": {_json(report.coverage and dict(report.coverage))}')
    parts.append(f'"provenance": {_json(dict(report.provenance))}')
    parts.append(f'"units": {_json(_units(report))}')
    if report.scopes:
        parts.append(f'"scope": {_json(report.scope)}')
        parts.append('"scopes": [' + ",".join("\n   " + _json(dict(entry)) for entry in report.scopes) + "]")
    if report.groups:
        entries = [
            {key: value if key in _OF_GROUPS else _json_number(key, value) for key, value in entry.items()}
            for entry in report.groups
        ]
        parts.append('"groups": [' + ",".join("\n   " + _json(entry) for entry in entries) + "]")
    if report.group is not None:
        parts.append(f'"group": {_json(report.group)}')
    return "{" + ",\n  ".join(parts) + "}"


def _units(report: Report) -> dict[str, str]:
    """Metric -> unit, of those that have one; where the layers' differs from the network's, as "layer:metric"."""
    found = {row.metric: row.unit for row in report.rows if row.layer is None}
    for row in report.rows:
        if row.layer is not None:
            found["layer:" * (found.get(row.metric, row.unit) != row.unit) + row.metric] = row.unit
    return {metric: unit for metric, unit in found.items() if unit or metric.startswith("layer:")}


def plain_json(value: Any) -> Any:
    """A value as JSON holds it: numbers of numpy plain, what is not finite None, what has no form in JSON as text."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_json(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def reports_from_json(document: str | bytes | Mapping[str, Any]) -> list[Report]:
    """The reports that `reports_to_json` wrote; TopoError that says what is missing in a document that is none.

    Where "views" is missing (files of old) single layers have no view, and where "units" is, numbers have no unit.
    """
    if not isinstance(document, Mapping):
        try:
            document = json.loads(document)
        except (ValueError, RecursionError):
            raise TopoError("it is not JSON") from None
    if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
        raise TopoError(f"it is not a report of topo analyze --json, whose schema is {SCHEMA}")
    try:
        return [_report_from_json(entry) for entry in document["reports"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else f"{error}"
        raise TopoError(f"it is not a whole report of topo analyze --json: {what}") from None


def _report_from_json(entry: Mapping[str, Any]) -> Report:
    views, units = entry.get("views"), entry.get("units") or {}
    against = {score["null"] for score in entry["nulls"]}
    notes = {
        (note["metric"], note["layer"]): note["note"]
        for note in entry["notes"]
        if note["note"].partition(":")[0] not in against  # why a z is undefined
    }

    def row(metric: str, layer: str | None, value: Any) -> Row:
        of_layer = "layer:" * (layer is not None) + metric
        view = entry["view"] if layer is None else ""
        if views is not None:
            view = views.get(of_layer, views.get(metric, entry["view"]))
        unit = units.get(of_layer, units.get(metric, ""))
        return Row(entry["mask"], metric, layer, view, _from_json(value), unit, notes.get((metric, layer)))

    rows = [row(metric, None, value) for metric, value in entry["network"].items()]
    rows += [
        row(metric, layer["layer"], value)
        for layer in entry["layers"]
        for metric, value in layer.items()
        if metric not in ("layer", "shape")
    ]
    texts = ("null", "samples", "metric", "layer")
    nulls = [
        {key: value if key in texts else _from_json(value) for key, value in score.items()} for score in entry["nulls"]
    ]
    shapes = {layer["layer"]: tuple(layer["shape"]) for layer in entry["layers"]}
    return Report(
        entry["mask"], entry["format"], entry["model"], entry["view"], shapes, rows, entry["notes"], nulls,
        entry.get("coverage"), entry.get("scopes") or (), entry.get("scope"), entry.get("group"),
        entry.get("provenance") or {},
    )  # fmt: skip


def _from_json(value: Any) -> Number:
    return math.nan if value is None else whole(value) if isinstance(value, str) else value


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _json_number(metric: str, value: Number) -> Number | str | None:
    if not finite(value):
        return None
    return decimal(int(value)) if metric in _AS_TEXT else value


def reports_to_csv(reports: Iterable[Report]) -> str:
    """Tidy CSV text of several reports under one header.

    Behind the columns of every table stand those of the provenance that any of the reports has (`Report.columns`).
    Where a report has groups there is one column more, `group`: of the rows of its layers, and of the groups' own,
    which have no layer.
    """
    reports = list(reports)
    origin = list(dict.fromkeys(key for report in reports for key in report.columns))
    in_groups = any(report.groups for report in reports)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([*COLUMNS, *map(_free, origin), *(["group"] if in_groups else [])])
    for report in reports:
        known = [report.columns.get(key, "") for key in origin]
        group_of = labels(list(report.shapes), report.group) if in_groups else {}
        for row in report.rows:
            line = [row.mask, row.metric, row.layer or "", row.view, _csv_number(row.value), row.unit, row.note or ""]
            line += known
            writer.writerow([*line, group_of.get(row.layer or "", {}).get("group", "")] if in_groups else line)
        about = {row.metric: (row.view, row.unit) for row in report.rows if row.layer is not None}
        for entry in report.groups:
            for metric, value in entry.items():
                if metric in about:
                    view, unit = about[metric]
                    line = [report.mask, metric, "", view, _csv_number(value), unit, "", *known, entry["group"]]
                    writer.writerow(line)
    return lines.getvalue()


def _csv_number(value: Number) -> Number | str:
    return "" if not finite(value) else decimal(value) if isinstance(value, int) else value


def _free(key: str) -> str:
    """A column's name that none of the tidy table's own has."""
    return f"{key}_asked" if key in (*COLUMNS, "exact", "group") else key


def wide_row(report: Report) -> dict[str, Any]:
    """One mask as a row: mask, format, model, view, `Report.columns`, and the network's numbers.

    Exact counts of paths are decimal text. A metric that a field of the file's name is called like is "measured_" and
    its name: the field is what was asked for.
    """
    row: dict[str, Any] = {"mask": report.mask, "format": report.format, "model": report.model, "view": report.view}
    row |= report.columns
    for metric, value in report.network.items():
        name = f"measured_{metric}" if metric in row else metric
        row[name] = _cell(metric, value)
    return row


def _cell(metric: str, value: Number) -> Number | str | None:
    if metric in _AS_TEXT:
        return decimal(int(value)) if finite(value) else None
    return value


def frame(reports: Sequence[Report], *, wide: bool = False, level: str | None = None) -> pandas.DataFrame:
    """Reports as one pandas table, see `Reports.to_frame`."""
    try:
        import pandas
    except ImportError:
        raise TopoError("to_frame() needs pandas: pip install 'topo-masks[pandas]'") from None
    if level not in (None, "network", "layer"):
        raise TopoError(f"level is '{level}'; it is 'network' (a row a mask) or 'layer' (a row a layer)")
    if level == "layer":
        rows = []
        for report in reports:
            known = {"mask": report.mask, **report.columns}
            for entry in report.layers:
                layer = {("measured_" * (key in known) + key): _cell(key, value) for key, value in entry.items()
                         if key not in ("layer", "shape")}  # fmt: skip
                shape = "x".join(map(str, entry["shape"]))
                rows.append({**known, "layer": entry["layer"], "shape": shape, **layer})
        return pandas.DataFrame(rows)
    if wide or level == "network":
        return pandas.DataFrame([wide_row(report) for report in reports])
    origin = list(dict.fromkeys(key for report in reports for key in report.columns))
    records = [
        (*_record(row), *(report.columns.get(key) for key in origin)) for report in reports for row in report.rows
    ]
    made = pandas.DataFrame(records, columns=[*COLUMNS, "exact", *map(_free, origin)])
    return made.astype({"value": "float64"})


def _record(row: Row) -> tuple[Any, ...]:
    value, note = row.value, row.note
    try:
        value = float(value)
    except OverflowError:
        value, note = math.nan, f"{shown(row.value, 'paths')} is beyond float64" + (f"; {note}" if note else "")
    exact = decimal(int(row.value)) if row.metric in _AS_TEXT and finite(row.value) else None
    return row.mask, row.metric, row.layer, row.view, value, row.unit, note, exact
