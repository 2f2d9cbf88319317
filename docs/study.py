"""The study: the tables of the sweeps in docs/study, and the page that is written from them.

python docs/study.py                    writes docs/does_topology_predict.md and its figures from the tables
python docs/study.py RESULTS [...]      first packs the results of `topo sweep` into docs/study/NAME.csv.gz; cells that
                                        are there and not in RESULTS stay: a part can be run later (--only)

Every number and every sentence of findings on the page is made here from the tables.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from scipy import stats

import topo
from topo import plots
from topo._support.atomic import replacing, write_text
from topo.evidence.table import LAYER, Table, read_table
from topo.plots.evidence import draw_evidence

HERE = Path(__file__).parent
TABLES, PAGE, SWEEPS = HERE / "study", HERE / "does_topology_predict.md", HERE.parent / "sweeps"
PRIMARY = "effective_params"  # named before the sweeps were run
METRICS = (
    PRIMARY, "mean_log_density", "effective_nodes", "log10_effective_paths", "path_entropy_width", "path_entropy",
    "balance_gap", "flops_effective", "copeland", "overlap_coefficient", "sigma1", "sigma2", "spectral_gap",
    "is_ramanujan", "ramanujan_gap_relative", "delta_s", "imdb", "imdb_relative", "components",
)  # fmt: skip
CHOICE = ("mnist1d_mlp", "digits_conv")  # options of balance are chosen on the validation parts of their data
SETTINGS = ("network", "data", "method", "options", "density", "density_effective", "lr", "seed", "null", "train_seed")
OUTCOMES = ("accuracy", "val_accuracy", "seconds")
# Sweeps that turn one knob: the option, the metric that moves with it, and what it is called.
TURNED = {
    "live_units": ("degree_floor", "effective_nodes", "nodes", "An intervention: units moved at fixed weights",
                   "Moving the same effective weights to fewer units (degree floors above {least:g}, {data}), beside "
                   "all units: {counts}."),
    "sigma2": ("excess", "sigma2", "sigma2", "An intervention: sigma2 turned up at fixed degrees",
               "Turning sigma2 up at fixed degrees (edges drawn into clusters, {data}), beside random graphs of the "
               "same degrees: {counts}."),
}  # fmt: skip
CHANCE = 15.0  # percent: below it, of ten classes, nothing was learned
SAME_WEIGHTS = 0.01  # share by which effective weights may differ to be called equal
RIVALS = ("erk", "igq", "synflow", "npb", "phew", "dpai")
GOAL = (("erk", "npb", "dpai", "synflow", "phew"), ("0.02", "0.01", "0.005"))  # to be ahead of, and at which densities
Row = Mapping[str, str]


# -- tables


def pack(results: Path) -> Path:
    """Settings, outcomes, the metrics of the page and layer densities of a sweep's folder, as docs/study/NAME.csv.gz.

    Cells that failed are rows without an outcome.
    """
    table = read_table(results)
    rows = rows_of(table) + list(csv.DictReader(io.StringIO((results / "failures.csv").read_text("utf-8"))))
    path = TABLES / f"{results.name}.csv.gz"
    packed = read_table(path) if path.exists() else table
    made = {_settings(row) for row in rows}
    rows = [row for row in rows_of(packed) if _settings(row) not in made] + rows if path.exists() else rows
    columns = dict.fromkeys([*packed.columns, *table.columns])
    names = [name for name in columns if name in (*SETTINGS, *OUTCOMES, *METRICS) or name.startswith(LAYER)]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_short(name, row.get(name, "")) for name in names] for row in rows)
    TABLES.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(out.getvalue().encode(), mtime=0))
    return path


def _settings(row: Row) -> tuple[str, ...]:
    return tuple(row.get(name) or "" for name in SETTINGS)


def _short(name: str, entry: str) -> str:
    """Numbers of metrics to six digits: no finding rests on more."""
    try:
        return entry if name in SETTINGS or not entry else f"{float(entry):.6g}"
    except ValueError:
        return entry


def rows_of(table: Table) -> list[Row]:
    return [{name: column[row] for name, column in table.columns.items()} for row in range(len(table))]


def read() -> dict[str, list[Row]]:
    """The tables, by name; rows of cells that failed have no accuracy."""
    return {path.name.removesuffix(".csv.gz"): rows_of(read_table(path)) for path in sorted(TABLES.glob("*.csv.gz"))}


def whole(rows: Iterable[Row]) -> list[Row]:
    """Those of cells that did not fail."""
    return [row for row in rows if row["accuracy"]]


def kind(row: Row) -> str:
    """What a row is called: its method, with the options that tell it from others, and the null that it is of it."""
    options = json.loads(row["options"]) if row["options"] else {}
    name = " ".join([row["method"], *(str(value) for value in options.values())])
    name += " at equal effective density" if row.get("density_effective") else ""
    return f"{name}: {row['null']}" if row.get("null") else name


def is_mask(row: Row) -> bool:
    return not row.get("null")


def values(rows: Iterable[Row], column: str = "accuracy") -> dict[tuple[str, str], dict[str, float]]:
    """(kind, density) -> seed -> accuracy in percent."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        found.setdefault((kind(row), row["density"]), {})[row["seed"]] = 100 * float(row[column])
    return found


# -- statistics


def interval(numbers: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (Student's t)."""
    n = len(numbers)
    half = float(stats.t.ppf(0.975, n - 1)) * float(np.std(numbers, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return float(np.mean(numbers)), half


def paired(one: Mapping[str, float], other: Mapping[str, float]) -> tuple[float, float] | None:
    """Mean and half-interval of one minus other over the seeds of both."""
    seeds = sorted(set(one) & set(other))
    return interval([one[seed] - other[seed] for seed in seeds]) if len(seeds) > 1 else None


def verdict(found: tuple[float, float]) -> int:
    """1 above 0 with 95 %, -1 below, 0 open."""
    mean, half = found
    return 0 if abs(mean) <= half else (1 if mean > 0 else -1)


def said(found: tuple[float, float] | None, sign: bool = False) -> str:
    if found is None:
        return ""
    mean, half = found
    text = f"{mean:+.1f} ± {half:.1f}" if sign else f"{mean:.1f} ± {half:.1f}"
    return f"**{text}**" if sign and verdict(found) else text


def counted(verdicts: Sequence[int]) -> str:
    """How often the interval of a difference lies above 0, below it, and on both sides (too wide to tell)."""
    above, below = verdicts.count(1), verdicts.count(-1)
    return f"above in {above}, below in {below}, open in {len(verdicts) - above - below} of {len(verdicts)} cells"


# -- the page


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = [":--" if k == 0 else "--:" for k in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *lines]) + "\n"


def _network(row: Row) -> str:
    """The network's name; of one in a file the file's."""
    return row["network"].partition(".py:")[0]


def percent(density: str) -> str:
    return f"{100 * float(density):g} %"


def densities(rows: Iterable[Row]) -> list[str]:
    return sorted({row["density"] for row in rows}, key=float, reverse=True)


def runs(tables: Mapping[str, list[Row]]) -> str:
    lines = []
    for name, rows in tables.items():
        first, failed = rows[0], sum(not row["accuracy"] for row in rows)
        rows = whole(rows)
        masks = [row for row in rows if is_mask(row)]
        seeds = len({row["seed"] for row in rows})
        minutes = sum(float(row["seconds"]) for row in rows) / 60
        lines.append([
            name, first["data"], _network(first), ", ".join(map(percent, densities(rows))), str(seeds),
            f"{len(masks):,}", f"{len(rows) - len(masks):,}", str(failed), f"{minutes:.0f}",
        ])  # fmt: skip
    return table(["sweep", "data", "network", "densities", "seeds", "masks", "their nulls", "failed", "minutes"], lines)


def accuracies(rows: Sequence[Row]) -> str:
    """Every kind of mask: mean and interval per density, the best on top; the best of a column in bold."""
    held = values(row for row in rows if is_mask(row))
    columns = densities(rows)
    kinds = list(dict.fromkeys(name for name, _ in held))
    means = {key: interval(list(found.values())) for key, found in held.items()}
    best = {d: max(means[name, d][0] for name in kinds if (name, d) in means) for d in columns}

    def height(name: str) -> float:
        return float(np.mean([means[name, d][0] - best[d] for d in columns if (name, d) in means]))

    lines = []
    for name in sorted(kinds, key=height, reverse=True):
        cells = []
        for d in columns:
            text = said(means.get((name, d)))
            cells.append(f"**{text}**" if text and means[name, d][0] == best[d] else text)
        lines.append([name, *cells])
    return table(["masks", *(percent(d) for d in columns)], lines)


def of_nulls(rows: Sequence[Row]) -> tuple[str, dict[str, list[int]]]:
    """Nulls minus their masks, paired by seed; and the verdicts of each null where one of both learned something."""
    held = values(rows)
    found: dict[str, list[int]] = {}
    lines = []
    for name in sorted({name for name, _ in held if ": " in name}, key=lambda name: (name.split(": ")[1], name)):
        method, null = name.split(": ")
        cells = []
        for d in densities(rows):
            both = held.get((name, d), {}), held.get((method, d), {})
            pair = paired(*both)
            cells.append(said(pair, sign=True))
            if pair is not None and max(float(np.mean(list(side.values()))) for side in both) > CHANCE:
                found.setdefault(null, []).append(verdict(pair))
        lines.append([name, *cells])
    return table(["null minus mask", *(percent(d) for d in densities(rows))], lines), found


def chosen(tables: Mapping[str, list[Row]]) -> tuple[str, str]:
    """Validation accuracy of the options of balance, a column a data set of CHOICE, and the best mean."""
    found: dict[str, list[float]] = {}
    sets = [rows for rows in tables.values() if rows[0]["network"] in CHOICE]
    for rows in sets:
        held = values([row for row in rows if row["method"] == "balance" and is_mask(row)], "val_accuracy")
        for name in dict.fromkeys(name for name, _ in held):
            cells = [float(np.mean(list(entry.values()))) for (other, _), entry in held.items() if other == name]
            found.setdefault(name, []).append(float(np.mean(cells)))
    whole = {name: entries for name, entries in found.items() if len(entries) == len(sets)}
    best = max(whole, key=lambda name: float(np.mean(whole[name])))
    lines = [
        [name, *(f"{entry:.1f}" for entry in entries), f"{np.mean(entries):.1f}", _behind(sets, best, name)]
        for name, entries in sorted(whole.items(), key=lambda item: -float(np.mean(item[1])))
    ]
    return best, table(["options", *(rows[0]["data"] for rows in sets), "mean", "behind the first"], lines)


def _behind(sets: Sequence[Sequence[Row]], best: str, name: str) -> str:
    """Validation accuracy of the best options minus that of others, paired by data, density and seed."""
    apart = []
    for rows in sets:
        held = values([row for row in rows if row["method"] == "balance" and is_mask(row)], "val_accuracy")
        apart += [held[best, d][seed] - held[name, d][seed] for d in densities(rows) for seed in held[best, d]]
    return "" if name == best else said(interval(apart), sign=True)


def against(rows: Sequence[Row], mine: str) -> tuple[str, dict[str, list[int]]]:
    """Test accuracy of one kind minus that of the rivals, paired by seed."""
    held = values(row for row in rows if is_mask(row))
    columns = densities(rows)
    lines, found = [], {}
    for rival in RIVALS:
        pairs = [paired(held.get((mine, d), {}), held.get((rival, d), {})) for d in columns]
        if any(pair is not None for pair in pairs):
            lines.append([rival, *(said(pair, sign=True) for pair in pairs)])
            found[rival] = [verdict(pair) for pair in pairs if pair is not None]
    return table([f"{mine} minus", *(percent(d) for d in columns)], lines), found


def goal(tables: Mapping[str, list[Row]], mine: str) -> str:
    """In which cells one kind is ahead of all rivals of the goal, and of which it is not in the others."""
    rivals, wanted = GOAL
    whole, short = [], []
    for rows in tables.values():
        held = values(row for row in rows if is_mask(row))
        if not all(any((rival, d) in held for d in wanted) for rival in rivals):
            continue  # not all of them were run
        for d in wanted:
            pairs = {rival: paired(held.get((mine, d), {}), held.get((rival, d), {})) for rival in rivals}
            behind = [rival for rival, pair in pairs.items() if pair is None or verdict(pair) < 1]
            where = f"{_network(rows[0])} at {percent(d)}"
            whole += [] if behind else [where]
            short += [f"{where} (against {', '.join(behind)})"] if behind else []
    return (
        f"The goal was to be ahead of {', '.join(rivals)}, each by a difference whose interval lies above 0, at "
        f"{', '.join(map(percent, wanted))}. `{mine}` is in {len(whole)} of the {len(whole) + len(short)} cells where "
        f"all of these were run: {', '.join(whole) or 'none'}. It is not, or the interval leaves it open, in: "
        f"{', '.join(short) or 'none'}."
    )


def equal_effective(rows: Sequence[Row]) -> str:
    """Masks minus ERK masks of as many effective weights, paired by seed, where both have as many within 1 %."""
    masks = [row for row in rows if is_mask(row)]
    held, weights = values(masks), values(masks, PRIMARY)
    twin = "erk at equal effective density"
    columns = [d for d in densities(rows) if (twin, d) in held]
    lines = []
    for name in dict.fromkeys(name for name, _ in held if name != twin):
        cells = []
        for d in columns:
            mine, theirs = (float(np.mean(list(weights[key, d].values()))) for key in (name, twin))
            equal = abs(mine - theirs) <= SAME_WEIGHTS * theirs
            cells.append(said(paired(held[name, d], held[twin, d]), sign=True) if equal else "")
        if any(cells):
            lines.append([name, *cells])
    seeds = ", ".join(f"{len(held[twin, d])} seeds" for d in columns)
    return table([f"minus {twin} ({seeds})", *(percent(d) for d in columns)], lines) if columns else ""


def number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.2f}"


def turned(rows: Sequence[Row], name: str) -> tuple[str, str]:
    """The dose and the response of a sweep of TURNED: the metric that moves, effective weights, and accuracies."""
    option, metric, called, _, sentence = TURNED[name]
    rows = whole(rows)
    held, columns = values(rows), densities(rows)
    of = {float(json.loads(row["options"])[option]): kind(row) for row in rows}
    doses = sorted(of)
    doses = [d for k, d in enumerate(doses) if not k or _numbers(rows, of[d]) != _numbers(rows, of[doses[k - 1]])]
    lines, verdicts = [], []
    for dose in doses:
        line = [f"{dose:g}"]
        for d in columns:
            mine = [row for row in rows if kind(row) == of[dose] and row["density"] == d]
            moving, weights = (float(np.mean([float(row[key]) for row in mine])) for key in (metric, PRIMARY))
            shown = f"{moving:,.0f}" if moving >= 10 else f"{moving:.2f}"
            line += [shown, f"{weights:,.0f}", said(interval(list(held[of[dose], d].values())))]
            if dose != doses[0]:
                verdicts.append(verdict(paired(held[of[dose], d], held[of[doses[0]], d]) or (0.0, 0.0)))
        lines.append(line)
    header = [option.replace("_", " ")]
    header += [f"{what}, {percent(d)}" for d in columns for what in (called, "weights", "accuracy")]
    return table(header, lines), sentence.format(least=doses[0], data=rows[0]["data"], counts=counted(verdicts))


def learning_rates(rows: Sequence[Row]) -> tuple[str, str, str]:
    """Title, accuracies at each learning rate, and whether the order of methods hangs on it."""
    held: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        held.setdefault((kind(row), row["density"], row["lr"]), {})[row["seed"]] = 100 * float(row["accuracy"])
    rates, kinds = (sorted({key[k] for key in held}, key=order) for k, order in ((2, float), (0, str)))
    columns = [(d, rate) for d in densities(rows) for rate in rates]
    lines = [[name, *(said(interval(list(held[name, d, rate].values()))) for d, rate in columns)] for name in kinds]
    header = ["masks", *(f"{percent(d)}, lr {float(rate):g}" for d, rate in columns)]
    others = [name for name in kinds if name != "balance"]
    each = [verdict(paired(held["balance", d, rate], held[name, d, rate]) or (0.0, 0.0))
            for name in others for d, rate in columns]  # fmt: skip

    def tuned(name: str, d: str) -> dict[str, float]:
        return max((held[name, d, rate] for rate in rates), key=lambda found: float(np.mean(list(found.values()))))

    best = [
        verdict(paired(tuned("balance", d), tuned(name, d)) or (0.0, 0.0)) for name in others for d in densities(rows)
    ]
    return (
        "Learning rates",
        table(header, lines),
        (
            f"Learning rates of {', '.join(f'{float(rate):g}' for rate in rates)} ({rows[0]['data']}): balance beside "
            f"{', '.join(others)} at the same rate is {counted(each)}; each at its own best rate, chosen on the test "
            f"data, {counted(best)}."
        ),
    )


CONTROLS = {
    "relabelled": "with hidden units renumbered",
    "reinit": "trained from other initial weights",
    "invert": "inverted, so that as few of their weights as can be are kept",
}


def controls(rows: Sequence[Row]) -> tuple[str, str, str]:
    """Title, the differences of controls from their masks, and how often they are any."""
    text, found = of_nulls(rows)
    told = "; ".join(f"{CONTROLS[name]}: {counted(found[name])}" for name in CONTROLS if name in found)
    return (
        "Controls: renumbered, from other weights, inverted",
        text,
        (
            f"Masks of {', '.join(dict.fromkeys(row['method'] for row in rows))} ({rows[0]['data']}), beside "
            f"themselves: {told}."
        ),
    )


def trained_masks(rows: Sequence[Row]) -> tuple[str, str, str]:
    """Title, accuracies of masks that training makes beside others, and the differences from balance."""
    held = values(rows)
    told = []
    for name in ("imp", "rigl", "set"):
        pairs = [paired(held[key], held["balance", key[1]]) for key in held if key[0].split()[0] == name]
        told.append(f"{name} {counted([verdict(pair) for pair in pairs if pair is not None])}")
    return (
        "Masks that training makes",
        accuracies(rows),
        (
            f"Masks that training makes, which cost more, beside those of balance at equal density "
            f"({rows[0]['data']}; rigl and set start from those of erk): {'; '.join(told)}."
        ),
    )


# Sweeps that look at one question each, beside the comparison of methods.
ASIDE = {"learning_rates": learning_rates, "controls": controls, "trained_masks": trained_masks}


def compares(name: str) -> bool:
    """Whether a sweep compares methods, and counts in what is said of all."""
    return name not in TURNED and name not in ASIDE


def _numbers(rows: Sequence[Row], name: str) -> list[tuple[str, ...]]:
    """All that is known of the runs at a dose: floors beyond what a layer can bear make the same masks."""
    return [tuple(row[key] for key in row if key not in ("options", "seconds")) for row in rows if kind(row) == name]


def nodes(tables: Mapping[str, list[Row]], best: str) -> tuple[str, str]:
    """Effective nodes that the chosen options and the methods of random and of balanced paths keep; and a finding."""
    lines, fewer, accurate = [], 0, []
    for rows in tables.values():
        masks = [row for row in rows if is_mask(row)]
        many, held = values(masks, "effective_nodes"), values(masks)
        for d in densities(rows):
            means = [float(np.mean(list(many[name, d].values()))) / 100 for name in (best, "npb", "erk")]
            lines.append([_network(rows[0]), percent(d), *(f"{mean:,.0f}" for mean in means)])
            if means[0] < means[1]:
                fewer += 1
                accurate.append(verdict(paired(held[best, d], held["npb", d]) or (0.0, 0.0)))
    return table(["network", "density", f"`{best}`", "npb", "erk"], lines), (
        f"`{best}` keeps fewer effective nodes than npb in {fewer} of {len(lines)} cells of network and density: the "
        f"same weights on fewer units, of more weights each. In these, its accuracy beside that of npb: "
        f"{counted(accurate)}."
    )


def correlations(found: topo.Evaluation) -> str:
    def held(entry: Mapping[str, Any], key: str) -> str:
        low, high = ("low", "high") if key == "rho" else ("partial_low", "partial_high")
        if math.isnan(entry[key]):
            return ""
        return number(entry[key]) + ("" if math.isnan(entry[low]) else f" ({entry[low]:+.2f} to {entry[high]:+.2f})")

    lines = [
        [f"`{entry['metric']}`", held(entry, "rho"), held(entry, "partial"), number(entry["partial_components"]),
         number(entry["means"]), str(entry["undefined"])]
        for entry in found.metrics
    ]  # fmt: skip
    return table(
        ["metric", "raw", f"given `{found.baseline}`", "given 3 components", "methods' means", "undefined"], lines
    )


def predictions(found: topo.Evaluation) -> str:
    held = sorted((e for e in found.left_out if not math.isnan(e["r2"])), key=lambda e: -e["r2"])
    lines = [
        [_features(entry["features"]), f"{entry['r2']:.2f}", number(entry["gain"]), f"{100 * entry['pairs']:.0f} %"]
        for entry in held
    ]  # fmt: skip
    return table(["features", "R2", "beyond density", "pairs in order"], lines)


def _features(names: Sequence[str]) -> str:
    return "all of them" if len(names) > 2 else " + ".join(f"`{name}`" for name in names)


def of_metrics(found: topo.Evaluation, each: Sequence[topo.Evaluation]) -> list[str]:
    """Findings of the evaluation, as sentences. each: the evaluations of the networks by themselves."""
    count = len(each)
    apart = {entry["metric"]: [one["partial"] for e in each for one in e.metrics if one["metric"] == entry["metric"]]
             for entry in found.metrics}  # fmt: skip
    named = {entry["metric"]: entry for entry in found.metrics}
    density, first = named["mean_log_density"], named[PRIMARY]
    sentences = [
        f"The mean log density of the layers alone correlates with accuracy at {density['rho']:+.2f} within cells; the "
        f"primary metric `{PRIMARY}`, named beforehand, at {first['rho']:+.2f}, and at {first['partial']:+.2f} where "
        f"the density of the layers is given ({_span(first, 'partial_')}). The noise ceiling is {found.ceiling:.2f}."
    ]
    signs = {name: [math.copysign(1, value) for value in apart[name] if not math.isnan(value)] for name in named}
    agreeing = [f"`{name}`" for name, held in signs.items() if len(held) == count and abs(sum(held)) == count]
    sentences.append(
        f"Given the density of the layers, these have one sign in all {count} networks, which chance gives one metric "
        f"in {2 ** (count - 1)}: {', '.join(agreeing) or 'none'}."
    )
    alone = next(entry for entry in found.left_out if entry["features"] == ["mean_log_density"])
    best = max((e for e in found.left_out if not math.isnan(e["gain"])), key=lambda e: e["gain"])
    sentences.append(
        f"For a method that the line has not seen, densities alone order {100 * alone['pairs']:.0f} % of the pairs "
        f"right (R2 {alone['r2']:.2f}); the most is gained by {_features(best['features'])} ({best['gain']:+.2f} R2, "
        f"{100 * best['pairs']:.0f} % of the pairs)."
    )
    return sentences


def _span(entry: Mapping[str, Any], prefix: str) -> str:
    low, high = entry[f"{prefix}low"], entry[f"{prefix}high"]
    return "no interval: one cluster" if math.isnan(low) else f"95 % interval {low:+.2f} to {high:+.2f}"


NULLS = {
    "same_layers": "Masks shuffled within their layers, which keeps the densities of the layers alone",
    "same_degrees": "Random masks in which every unit keeps its degrees",
}


def page(tables: Mapping[str, list[Row]]) -> str:
    ran, names = runs(tables), list(tables)
    left = [f"`sweeps/{path.name}`" for path in sorted(SWEEPS.glob("*.toml")) if path.stem not in tables]
    interventions = {name: rows for name, rows in tables.items() if name in TURNED}
    aside = {name: whole(rows) for name, rows in tables.items() if name in ASIDE}
    tables = {name: whole(rows) for name, rows in tables.items() if compares(name)}
    found = evaluated(tables)
    best, choice = chosen(tables)
    nulls: dict[str, list[int]] = {}
    wins: dict[str, dict[str, list[int]]] = {}
    parts = []
    for name, rows in tables.items():
        title = f"{rows[0]['data']}, {_network(rows[0])}"
        parts += [f"### {title}\n", accuracies(rows), f"![accuracy against sparsity on {title}](study/{name}.png)\n"]
        text, verdicts = of_nulls(rows)
        for null, entries in verdicts.items():
            nulls.setdefault(null, []).extend(entries)
        parts += ["Nulls of the masks, trained as they are:\n", text] if verdicts else []
        if text := equal_effective(rows):
            share = f"within {100 * SAME_WEIGHTS:.0f} %"
            told = f"Beside ERK masks with as many effective weights, {share}, at an effective density of:"
            parts += [f"{told}\n", text]
        text, wins[name] = against(rows, best)
        parts += [f"The chosen options, `{best}`, against others:\n", text]
    findings = of_metrics(found, [evaluated({name: rows}) for name, rows in tables.items()])
    of = {null: ", ".join(rows[0]["data"] for rows in tables.values() if any(row.get("null") == null for row in rows))
          for null in nulls}  # fmt: skip
    findings += [
        f"{NULLS[null]}, beside the masks that they are nulls of ({of[null]}; where one of both is above "
        f"{CHANCE:.0f} %): {counted(entries)}."
        for null, entries in sorted(nulls.items()) if null in NULLS
    ]  # fmt: skip
    for name, verdicts in wins.items():
        row = tables[name][0]
        chose = row["network"] in CHOICE
        seen = "its validation part was used for the choice" if chose else "it was not used for the choice"
        findings.append(
            f"`{best}` on {row['data']}, {_network(row)} ({seen}): "
            + "; ".join(f"against {rival} {counted(entries)}" for rival, entries in verdicts.items()) + "."
        )  # fmt: skip
    findings.append(goal(tables, best))
    kept, sentence = nodes(tables, best)
    findings.append(sentence)
    for name, rows in interventions.items():
        text, sentence = turned(rows, name)
        findings.append(sentence)
        parts += [f"### {TURNED[name][3]}\n", text]
    for name, rows in aside.items():
        title, text, sentence = ASIDE[name](rows)
        findings.append(sentence)
        parts += [f"### {title}\n", text]
    return "\n".join([
        "# The study: does topology predict accuracy?",
        "",
        prose(
            """`docs/study.py` writes this page from the tables in docs/study, which the sweeps in sweeps/ made: nothing
            in it is typed by hand. An interval is 95 % of the mean over seeds (Student's t). Differences are paired by
            seed; one in bold has an interval that leaves out 0, an open one has not: it is too wide to tell. Accuracies
            are those of the last epoch on test data, in percent. A seed is that of the mask, the weights and the order
            of the data at once."""
        ),
        "## Findings",
        "",
        *(prose(f"* {sentence}", "  ").rstrip() for sentence in findings),
        "",
        prose(
            "These are findings on small networks of which most weights are gone. Larger networks and longer training "
            "were not looked at."
            + (f" Sweeps that are shipped and were not run here: {', '.join(left)}." if left else "")
        ),
        "## What was run",
        "",
        ran,
        prose(
            """Cells fail where no budget of ERK meets an effective density within a weight in a thousand. Minutes are
            those of the clock, on a core that had other work, too."""
        ),
        "```sh",
        *(f"topo sweep sweeps/{name}.toml -o {name}" for name in names),
        f"python docs/study.py {' '.join(names)}",
        "```",
        "",
        "## Accuracy",
        "",
        *parts,
        "## Which metric goes with accuracy",
        "",
        prose(
            f"""`topo evaluate` over all {found.rows:,} rows, masks and nulls, in {found.cells} cells of network, data
            and density ([rules](evaluate.md)). Intervals are of the bootstrap over networks with their data, of which
            there are {found.clusters}: so few that they are too narrow, and hold the truth less often than 95 %."""
        ),
        correlations(found),
        "![correlations with accuracy](study/evidence.png)",
        "",
        "A line fitted without one method and tried on it, each in turn:",
        "",
        predictions(found),
        "## Options of balance",
        "",
        f"By the accuracy on the validation parts of {' and '.join(CHOICE)}, the mean over densities and seeds:",
        "",
        choice,
        "What they keep: effective nodes of masks of equal density. Few is what a degree floor asks for.",
        "",
        kept,
    ])  # fmt: skip


def prose(text: str, indent: str = "") -> str:
    """A paragraph in lines, and an empty one."""
    return textwrap.fill(" ".join(text.split()), 118, subsequent_indent=indent) + "\n"


def evaluated(tables: Mapping[str, list[Row]]) -> topo.Evaluation:
    """`topo evaluate` over all rows; options of balance that made the same masks count once."""
    known = {
        tuple(value for key, value in row.items() if key not in ("options", "seconds")): row
        for rows in tables.values()
        for row in rows
    }
    return topo.evaluate(list(known.values()), metrics=METRICS, primary=PRIMARY)


def draw(tables: Mapping[str, list[Row]]) -> None:
    """The accuracies of each table's masks, of balance the chosen options alone; and the correlations."""
    best, _ = chosen(tables)
    for name, rows in tables.items():
        shown = [
            {"method": kind(row), "density": row["density"], "accuracy": row["accuracy"]}
            for row in rows
            if is_mask(row) and not row.get("density_effective") and (row["method"] != "balance" or kind(row) == best)
        ]
        with plots.paper(wide=True, ratio=0.5):
            figure = plots.figure()
            plots.accuracy_sparsity(shown, figure.add_subplot())
            plots.save(figure, TABLES / f"{name}.png", dpi=130)
    with plots.paper(wide=True, ratio=0.7):
        figure = plots.figure()
        draw_evidence(evaluated(tables), figure.add_subplot())
        plots.save(figure, TABLES / "evidence.png", dpi=130)


def main(folders: Sequence[str]) -> None:
    matplotlib.use("Agg")
    for folder in folders:
        pack(Path(folder))
    tables = read()
    write_text(PAGE, page(tables))
    draw({name: whole(rows) for name, rows in tables.items() if compares(name)})


if __name__ == "__main__":
    main(sys.argv[1:])
