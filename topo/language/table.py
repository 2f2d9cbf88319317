"""A language model in a table: a row for each block, equal ones folded, a column for each projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from topo.containers.counting import Counts
from topo.language.dead import Dead, dead_by_block
from topo.language.survey import Survey
from topo.report.groups import by_block_and_projection, in_block_order, place_of


def scope_line(found: Survey) -> str:
    """The three densities in a line, and what was left out.

    "scope: decoder 224 linear layers 0.5000 | pruned 224 layers 0.5000 | all 226 layers ... 0.4805 | left out: none"
    """
    pruned, decoder, everything = found.scopes
    parts = [f"decoder {_layers(decoder.layers, 'linear layer')} {_density(decoder.density)}"]
    parts.append(f"pruned {_layers(pruned.layers, 'layer')} {_density(pruned.density)}")
    parts.append(f"all {_layers(everything.layers, 'layer')} with embeddings and head {_density(everything.density)}")
    left = found.left_out
    names = ", ".join(f"'{name}'" for name in list(left)[:3]) + (", ..." if len(left) > 3 else "")
    parts.append(f"left out: {names} ({sum(left.values()):,} parameters)" if left else "left out: none")
    return "scope: " + " | ".join(parts)


def _layers(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _density(value: float) -> str:
    return "–" if value != value else f"{value:.4f}"


def read_line(found: Survey) -> str:
    """ "read 13.5 GB of bfloat16 in 3 files"."""
    amount = next(
        f"{found.bytes / size:.1f} {unit}"
        for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
        if found.bytes >= size / 10 or unit == "kB"
    )
    files = f" in {found.files} files" if found.files > 1 else ""
    return f"{amount} of {' and '.join(found.dtypes)}{files}"


def block_table(found: Survey) -> tuple[list[str], list[list[str]], bool]:
    """Header, lines, and whether blocks were folded: density by block and projection, 2:4, and what is dead.

    "2:4": layers that are 2:4 of all; "dead rows" and "columns": units of the block's layers without a kept weight;
    "heads", "kv", "experts": those that can do nothing of all, a dash where it cannot be told.
    """
    known = by_block_and_projection(found.decoder)
    blocks: dict[tuple[str, int], dict[str, list[Counts]]] = {}
    for name, (_, projection) in known.items():
        place = place_of(name)
        if place is not None:
            blocks.setdefault((place.stack, place.block), {}).setdefault(projection, []).append(found.counts[name])
    several = len({stack for stack, _ in blocks}) > 1
    columns = in_block_order(projection for held in blocks.values() for projection in held)
    dead = dead_by_block(found)
    lines: list[tuple[str, int, int, list[str]]] = []
    for (stack, number), held in sorted(blocks.items()):
        cells = _cells(held, columns, dead.get((stack, number), Dead()))
        if lines and lines[-1][0] == stack and lines[-1][2] == number - 1 and lines[-1][3] == cells:
            lines[-1] = (stack, lines[-1][1], number, cells)
        else:
            lines.append((stack, number, number, cells))
    labelled = [
        [_label(stack if several else "", first, last), *cells] for stack, first, last, cells in lines
    ]  # fmt: skip
    header = ["block", *_short_names(columns), "2:4", "dead rows", "columns", "heads", "kv", "experts"]
    empty = [at for at in range(len(header)) if at > len(columns) and all(line[at] == "–" for line in labelled)]
    kept = [at for at in range(len(header)) if at not in empty]
    folded = any(first < last for _, first, last, _ in lines)
    return [header[at] for at in kept], [[line[at] for at in kept] for line in labelled], folded


def _label(stack: str, first: int, last: int) -> str:
    numbers = str(first) if first == last else f"{first}-{last}"
    return f"{stack}.{numbers}" if stack else numbers


def _cells(held: Mapping[str, Sequence[Counts]], columns: Sequence[str], dead: Dead) -> list[str]:
    cells = []
    for projection in columns:
        layers = held.get(projection, ())
        size = sum(counts.size for counts in layers)
        cells.append(_density(sum(counts.kept for counts in layers) / size) if size else "–")
    every = [counts for layers in held.values() for counts in layers]
    cells.append(f"{sum(counts.over[2, 4] == 0 for counts in every)}/{len(every)}")
    cells += [str(sum(counts.dead_rows for counts in every)), str(sum(counts.dead_columns for counts in every))]
    pairs = ((dead.dead_heads, dead.heads), (dead.dead_kv_groups, dead.kv_groups), (dead.dead_experts, dead.experts))
    return cells + ["–" if number is None else f"{number}/{total}" for number, total in pairs]


def _short_names(projections: Sequence[str]) -> list[str]:
    """The columns' names: without `_proj`, where that leaves no two alike.

    >>> _short_names(["q_proj", "gate", "gate_proj", "attn.c_proj"])
    ['q', 'gate', 'gate_proj', 'attn.c_proj']
    """
    short = [name if name.endswith("c_proj") else name.removesuffix("_proj") for name in projections]
    return [mine if short.count(mine) == 1 else name for mine, name in zip(short, projections)]
