"""Figures of the HTML page: drawn as SVG of what its tables hold, each with its data and the command that draws it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from topo.report.markup import text
from topo.report.numerals import shown

Report = Any  # topo.report.Report
_STEP, _LEFT, _TOP, _TALL = 14, 34, 8, 130  # of a layer; margins; height of the axis, all in pixels
_FAR = 12.0  # z beyond which a mark stands at the edge
_NOISE = 1.96  # |z| of a normal number that 5 % pass
_EXTREME = 0.05  # p of a mark that is full
_LINE, _NAMES, _SCALE = 16, 190, 460  # of the forest: height of a line, width of names, width of the scale
_COLOURS = ("#1c5fa8", "#c44e00", "#2a8a57", "#7a4fa3", "#8a6d00", "#b0306a")


def figures(report: Report, place: int) -> str:
    """Those of layers: densities, and second singular values beside their Ramanujan bounds."""
    return _densities(report, place) + _spectra(report, place)


def _figure(title: str, about: str, svg: str, data: str, kind: str, report: Report) -> str:
    """about: HTML of the legend. data: id of the table that holds the numbers. kind: of `topo plot`."""
    model = f" --model {shlex.quote(report.model)}" if report.model else ""
    view = "" if report.view == "channel" else f" --view {report.view}"
    what = "report.json" if kind == "null_forest" else f"{shlex.quote(report.mask)}{model}{view}"
    return (
        f"<h3>{title}</h3><p class=legend>{about}</p><div class=tools></div><div class='wide figure'>{svg}</div>"
        f'<p class=made>Data: <a href="#{data}">the table</a>. '
        f"<code>topo plot {kind} {text(what)} -o {kind}.svg</code></p>"
    )


def _svg(name: str, layers: int, width: int, height: int, inside: str) -> str:
    """layers: number of the mask whose layers are its parts, -1 if they are not."""
    of = f' data-layers="{layers}"' if layers >= 0 else ""
    return (
        f'<svg id="{name}"{of} role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"{inside}</svg>"
    )


def _by_layer(name: str, place: int, count: int, ticks: Mapping[str, float], groups: Sequence[str]) -> str:
    """A place for each layer above an axis; ticks: text -> share of the height."""
    width, height = max(240, _LEFT + _STEP * count + 10), _TOP + _TALL + 12
    base = _TOP + _TALL
    lines = "".join(
        f'<text class=tick x="{_LEFT - 8}" y="{base - _TALL * share + 3:.1f}">{label}</text>'
        f'<path class=grid d="M{_LEFT - 4} {base - _TALL * share:.1f}H{width - 5}"/>'
        for label, share in ticks.items()
    )
    axis = f'<path class=axis d="M{_LEFT - 4} {_TOP}V{base}H{width - 5}"/>'
    return _svg(f"{name}{place}", place, width, height, lines + axis + "".join(groups))


def _densities(report: Report, place: int) -> str:
    found = [(entry["layer"], _share(entry, "kept"), _share(entry, "effective_params")) for entry in report.layers]
    if not any(kept is not None for _, kept, _ in found):
        return ""
    groups = []
    for number, (name, kept, alive) in enumerate(found):
        said = f"{name}: density {shown(kept) if kept is not None else '–'}"
        said += f", effective {shown(alive)}" if alive is not None else ""
        bars = [(kept, "kept"), (alive, "alive")]
        inner = "".join(_bar(number, share, kind) for share, kind in bars if share is not None)
        groups.append(f"<g data-k={number}><title>{text(said)}</title>{inner}</g>")
    svg = _by_layer("bars", place, len(found), {"0": 0, "0.5": 0.5, "1": 1}, groups)
    about = "<i class=kept></i> kept <i class=alive></i> of it on a path"
    return _figure("Density, layer by layer", about, svg, f"layers{place}", "density_profile", report)


def _bar(number: int, share: float, kind: str) -> str:
    tall = _TALL * share
    return (
        f'<rect class={kind} x="{_LEFT + _STEP * number}" y="{_TOP + _TALL - tall:.2f}" width="10" '
        f'height="{tall:.2f}"/>'
    )


def _share(entry: Mapping[str, Any], metric: str) -> float | None:
    value = entry.get(metric)
    if value is None or value != value:
        return None
    return value / math.prod(entry["shape"])


def _spectra(report: Report, place: int) -> str:
    held = [(entry, *(entry.get(name) for name in ("sigma2", "ramanujan_bound"))) for entry in report.layers]
    ratios = [s / b if s is not None and b and s == s and b == b else None for _, s, b in held]
    if not any(ratio is not None for ratio in ratios):
        return ""
    most = max(1.25, *(ratio for ratio in ratios if ratio is not None))
    groups = []
    for number, ((entry, sigma, bound), ratio) in enumerate(zip(held, ratios)):
        if ratio is None:
            continue
        said = f"{entry['layer']}: sigma2 {shown(sigma)}, bound {shown(bound)}, ratio {shown(ratio)}"
        kind = "alive" if ratio <= 1 else "over"
        groups.append(f"<g data-k={number}><title>{text(said)}</title>{_bar(number, ratio / most, kind)}</g>")
    svg = _by_layer("spectra", place, len(held), {"0": 0, "1": 1 / most}, groups)
    about = (
        "sigma2 over its Ramanujan bound: <i class=alive></i> up to 1 the layer is a Ramanujan graph, "
        "<i class=over></i> above it is not"
    )
    return _figure("Spectrum, layer by layer", about, svg, f"layers{place}", "ramanujan_profile", report)


def forest(report: Report, place: int) -> str:
    """z of the network's numbers against each null model; nothing where no z is finite."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in report.nulls:
        if entry["metric"].endswith("_layers"):  # how many layers a mean is of
            continue
        if entry["layer"] is None and entry["z"] is not None and math.isfinite(entry["z"]):
            found.setdefault(entry["metric"], {})[entry["null"]] = entry
    if not found:
        return ""
    kinds = list(dict.fromkeys(kind for entries in found.values() for kind in entries))
    width, height = _NAMES + _SCALE + 20, _LINE * len(found) + 34

    def x(z: float) -> float:
        return _NAMES + _SCALE * (max(-_FAR, min(_FAR, z)) + _FAR) / (2 * _FAR)

    parts = [
        f'<rect class=noise x="{x(-_NOISE):.1f}" y="4" width="{x(_NOISE) - x(-_NOISE):.1f}" height="{height - 24}"/>'
    ]
    parts += [
        f'<path class=grid d="M{x(z):.1f} 4V{height - 20}"/><text class="tick mid" x="{x(z):.1f}" y="{height - 7}">'
        f"{z}</text>"
        for z in (-10, -5, 0, 5, 10)
    ]
    for line, (metric, entries) in enumerate(found.items()):
        parts.append(f'<text class=tick x="{_NAMES - 8}" y="{_LINE * line + 16}">{text(metric)}</text>')
        for number, kind in enumerate(kinds):
            if kind in entries:
                z, p = entries[kind]["z"], entries[kind]["p"]
                ink = _COLOURS[number % len(_COLOURS)]
                fill = ink if p is not None and p < _EXTREME else "none"
                y = _LINE * line + 12 + 6 * ((number + 0.5) / len(kinds) - 0.5)
                said = f"{metric}, {kind}: z {shown(z)}, p {shown(p) if p is not None else '–'}"
                parts.append(
                    f'<circle cx="{x(z):.1f}" cy="{y:.1f}" r="3.5" stroke="{ink}" fill="{fill}">'
                    f"<title>{text(said)}</title></circle>"
                )
    about = " ".join(
        f'<i style="background:{_COLOURS[number % len(_COLOURS)]}"></i> {text(kind)}'
        for number, kind in enumerate(kinds)
    )
    about += (
        f". Full: the rank among the samples is extreme (p < {_EXTREME:g}); grey: |z| < {_NOISE:g}; beyond {_FAR:g} "
        "at the edge."
    )
    svg = _svg(f"forest{place}", -1, width, height, "".join(parts))
    return _figure("How far from null models: z", about, svg, f"nulls{place}", "null_forest", report)
