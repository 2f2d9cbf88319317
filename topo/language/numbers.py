"""Numbers of layers that one pass over their bytes tells, under the names of the metrics that count them on bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from topo.containers.counting import Counts
from topo.language.dead import Dead, dead_by_block, residual_channels
from topo.language.parts import DECODER
from topo.language.survey import Survey
from topo.metrics import Metric, chosen, metrics
from topo.metrics.degrees import gini, peak, variation
from topo.report import Report, Row, Value

VIEW, LAYER_VIEW = "channel", "kernel"
_EMPTY = "the layer keeps no weight"
# What `--metrics default` is where masks are not kept: everything that one pass tells, but for rarer shares.
DEFAULT = (
    "params,kept,density,sparsity,mean_density,min_density,dead_in,dead_out,fan_in_mean,fan_in_cv,fan_in_gini,fan_in_max,"
    "fan_out_mean,fan_out_cv,fan_out_gini,fan_out_max,dead_columns,n_m_2_4,n_m_4_8,block_occupancy"
)


def _share(n: int, m: int) -> Callable[[Counts], float]:
    return lambda held: 1.0 - held.over[n, m] / held.groups(m)


_LAYERS: dict[str, Callable[[Counts], Any]] = {
    "kept": lambda held: held.kept,
    "density": lambda held: held.kept / held.size,
    "sparsity": lambda held: 1.0 - held.kept / held.size,
    "dead_in": lambda held: _dead_inputs(held),
    "dead_out": lambda held: held.dead_rows,
    "fan_in_mean": lambda held: float(held.rows.mean()),
    "fan_in_cv": lambda held: variation(held.rows),
    "fan_in_gini": lambda held: gini(held.rows),
    "fan_in_max": lambda held: int(held.rows.max()),
    "fan_in_max_ratio": lambda held: peak(held.rows),
    "fan_out_mean": lambda held: float(held.columns.mean()),
    "fan_out_cv": lambda held: variation(held.columns),
    "fan_out_gini": lambda held: gini(held.columns),
    "fan_out_max": lambda held: int(held.columns.max()),
    "fan_out_max_ratio": lambda held: peak(held.columns),
    "dead_columns": lambda held: held.dead_columns,
    "n_m_2_4": _share(2, 4),
    "n_m_4_8": _share(4, 8),
    "block_occupancy": lambda held: held.block_occupancy,
}


def _dead_inputs(held: Counts) -> int:
    return int(np.count_nonzero(~held.columns.reshape(held.shape[1], -1).any(axis=1)))


_NETWORK: dict[str, Callable[[Mapping[str, Counts]], Any]] = {
    "params": lambda layers: sum(held.size for held in layers.values()),
    "kept": lambda layers: sum(held.kept for held in layers.values()),
    "density": lambda layers: _density(layers),
    "sparsity": lambda layers: 1.0 - _density(layers),
    "mean_density": lambda layers: float(np.mean([held.density for held in layers.values()])),
    "min_density": lambda layers: min(held.density for held in layers.values()),
}


def _density(layers: Mapping[str, Counts]) -> float:
    return _NETWORK["kept"](layers) / _NETWORK["params"](layers)


def told_by_counts(names: str) -> bool:
    """Whether one pass tells every metric of a list, as `--metrics` takes it."""
    return all(entry.name in (_NETWORK if entry.scope == "network" else _LAYERS) for entry in chosen(names))


def report(found: Survey, name: str, metrics: str = DEFAULT, format: str | None = None) -> Report:
    """The report of a language model by its counts alone: no mask was kept.

    found: see `survey`. metrics: those that `told_by_counts` knows. The network's numbers are of the decoder's linear
    layers, or of everything where the file has no decoder; layers of every part follow.

    >>> np.savez("layer.npz", **{"layers.0.mlp.up_proj.weight": np.array([[0.5, 0, 0, 2], [0, 0, 0, 1]])})
    >>> from topo import formats, language
    >>> language.numbers.report(language.survey(formats.opened("layer.npz")), "layer.npz").network["density"]
    0.375
    """
    layers = found.decoder or found.counts
    entries = chosen(metrics)
    rows = [
        Row(name, entry.name, None, VIEW, _NETWORK[entry.name](layers), entry.unit)
        for entry in entries
        if entry.scope == "network"
    ]
    rows += [row for layer, held in layers.items() for row in _rows(name, layer, held, entries)]
    shapes = {layer: held.shape for layer, held in layers.items()}
    made = Report(name, format, None, VIEW, shapes, rows, coverage=found.coverage)
    return with_survey(made, found)


def with_survey(made: Report, found: Survey, sees: Sequence[str] | None = None) -> Report:
    """A report with the scopes of a language model, what is dead in it, and layers outside of the decoder.

    sees: parameters that the report covers, where it does not cover all: others get no rows.
    """
    rows = list(made.rows)
    at = sum(row.layer is None for row in rows)
    rows[at:at] = [Row(made.mask, name, None, VIEW, value, unit) for name, value, unit in dead_numbers(found)]
    shapes = dict(made.shapes)
    entries = [metrics[f"layer:{name}"] for name in ("kept", "density", "sparsity", "dead_in", "dead_out")]
    held_already = {row.layer for row in rows}
    wanted = {row.metric for row in rows if row.layer is not None}
    for layer, held in found.counts.items():
        if layer in found.decoder or layer in held_already or (sees is not None and layer not in sees):
            continue
        shapes[layer] = held.shape
        rows += _rows(made.mask, layer, held, [entry for entry in entries if entry.name in wanted])
    notes = [{"metric": None, "layer": None, "note": note} for note in [*claims(found), *found.odd]]
    scope = DECODER if found.decoder else "all"
    scopes = [entry.as_dict() for entry in found.scopes]
    return replace(
        made, rows=rows, shapes=shapes, notes=[*made.notes, *notes], scopes=scopes, scope=scope, coverage=found.coverage
    )


def _rows(mask: str, layer: str, held: Counts, entries: Sequence[Metric]) -> Iterator[Row]:
    for entry in entries:
        if entry.scope != "layer":
            continue
        value = Value.of(_LAYERS[entry.name](held))
        note = _EMPTY if isinstance(value.number, float) and math.isnan(value.number) else None
        view = VIEW if entry.view == "network" else LAYER_VIEW
        yield Row(mask, entry.name, layer, view, value.number, entry.unit, note)


def dead_numbers(found: Survey) -> Iterator[tuple[str, int, str]]:
    """(name, number, unit) of what is dead in the whole model, where the file tells it."""
    total = sum(dead_by_block(found).values(), Dead())
    named = (
        ("heads", total.heads, "dead_heads", total.dead_heads, "heads"),
        ("kv_groups", total.kv_groups, "dead_kv_groups", total.dead_kv_groups, "groups"),
        ("experts", total.experts, "dead_experts", total.dead_experts, "experts"),
    )
    for all_name, all_number, dead_name, dead_number, unit in named:
        if all_number is not None and dead_number is not None:
            yield all_name, all_number, unit
            yield dead_name, dead_number, unit
    channels = residual_channels(found)
    if channels is not None:
        yield "residual_channels", channels[0], "units"
        yield "dead_residual_channels", channels[1], "units"


def claims(found: Survey) -> list[str]:
    """What the folder's sparsity_config says, against what was counted."""
    claim = found.config.claim if found.config else {}
    if not claim:
        return []
    structure = str(claim.get("sparsity_structure") or "").replace("SparsityStructure.", "").lower()
    stated = claim.get("global_sparsity")
    said, wrong = [], []
    if isinstance(stated, int | float) and not isinstance(stated, bool):
        counted = {scope.scope: 1.0 - scope.density for scope in found.scopes if scope.params}
        near = next((name for name, value in counted.items() if abs(value - stated) <= 0.005), None)
        shares = ", ".join(f"{name} {value:.4f}" for name, value in counted.items())
        said.append(f"sparsity {stated:.4g}")
        if near is None:
            wrong.append(f"counted is {shares}")
    if structure in ("2:4", "two_four", "structured"):
        pruned = [held for name, held in found.decoder.items() if name in found.pruned]
        kept = sum(held.over[2, 4] == 0 for held in pruned)
        said.append("2:4")
        if kept < len(pruned) or not pruned:
            wrong.append(f"{kept} of {len(pruned)} pruned layers are 2:4")
    elif structure:
        said.append(structure)
    claimed = ", ".join(said) or "no number"
    if wrong:
        return [f"config.json's sparsity_config says {claimed}, but {'; '.join(wrong)}"]
    return [f"config.json's sparsity_config says {claimed}, as counted"] if said else []
