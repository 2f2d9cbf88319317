"""The null models: each draws masks that keep one part of what given masks hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from topo._support.doors import called, check_flags, check_function, check_text
from topo._support.registry import Registry
from topo._support.seeds import as_rng, own_rng
from topo.errors import TopoError
from topo.generators import Drawn, checked_rows, generators
from topo.generators.rewiring import MOST_LEFT, mixing, rewire
from topo.masks import BitRows, MaskSet, kernel_counts
from topo.nulls.walk import plan, walked
from topo.wiring import Wiring, apart
from topo.wiring.automorphisms import moved_by, renumbering

nulls = Registry("null model", "topo.nulls")

_MOST = 100_000
_KERNEL_ROUNDS = 16


@dataclass(frozen=True)
class Null:
    """A registered null model. keeps: what samples have in common with the masks. wired: it needs to know who feeds
    whom. told: what is to be said of its samples of given masks, for a report."""

    function: Callable[[Wiring, MaskSet, np.random.Generator], Drawn]
    name: str
    keeps: str
    wired: bool
    told: Callable[[Wiring, MaskSet], list[str]] | None = None

    def __call__(self, masks: MaskSet, rng: int | np.random.Generator = 0, wiring: Wiring | None = None) -> MaskSet:
        """One sample. wiring: None takes each layer by itself, in one group. A seed has a stream of its own here: that
        which drew the masks would draw the same again.

        Raises TopoError without the wiring that it needs, WiringError if masks and wiring differ.
        """
        self.check(wiring)
        if wiring is not None:
            wiring.check(masks)
        draws = own_rng(rng)
        own = wiring or apart(masks)
        plugin, known, masks = f"null model '{self.name}'", own.plain, own.plain_masks(masks)
        drawn = checked_rows(plugin, known, masks, called(plugin, "", self.function, known, masks, draws))
        return own.own_masks(MaskSet(dict(drawn), provenance={"method": self.name}))

    def remarks(self, masks: MaskSet, wiring: Wiring | None = None) -> list[str]:
        """What is to be said of its samples of these masks."""
        return self.told(wiring or apart(masks), masks) if self.told else []

    def check(self, wiring: Wiring | None) -> None:
        """TopoError without the wiring that it needs."""
        if self.wired and wiring is None:
            raise TopoError(f"the null model '{self.name}' needs the network's wiring: name its model")


def null(
    keeps: str, *, wired: bool = False, told: Callable[[Wiring, MaskSet], list[str]] | None = None
) -> Callable[[Callable[..., Drawn]], Callable[..., Drawn]]:
    """Decorator: register a function (wiring, masks, rng) that yields (name, bit rows)."""

    def enter(function: Callable[..., Drawn]) -> Callable[..., Drawn]:
        plugin = f"null model '{getattr(function, '__name__', function)}'"
        check_text(plugin, keeps=keeps)
        check_flags(plugin, wired=wired)
        check_function(plugin, function, "wiring, masks, rng")
        if told is not None:
            check_function(plugin, told, "wiring, masks", documented=False)
        nulls.add(function.__name__)(Null(function, function.__name__, keeps, wired, told))
        return function

    return enter


def requested(given: str | Mapping[str, int]) -> dict[str, int]:
    """Null model -> number of samples, in the order of the registry, of a mapping or of text as in "same_layers:100".

    "none" is not a null model.

    >>> requested("same_degrees:50, same_layers:100")
    {'same_layers': 100, 'same_degrees': 50}

    Raises TopoError for an unknown null model, one that is named twice, and a number below 1.
    """
    if isinstance(given, str) and given.strip() == "none":
        return {}
    pairs = list(given.items()) if isinstance(given, Mapping) else [_pair(part) for part in str(given).split(",")]
    wanted: dict[str, int] = {}
    for name, count in pairs:
        entry = nulls[name]
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 1 <= count <= _MOST:
            raise TopoError(f"null model '{name}' is asked for {count!r} samples; it is a whole number, 1 to {_MOST:,}")
        if entry.name in wanted:
            raise TopoError(f"null model '{name}' is asked for twice")
        wanted[entry.name] = int(count)
    return {name: wanted[name] for name in nulls if name in wanted}


def _pair(text: str) -> tuple[str, Any]:
    name, colon, count = (part.strip() for part in text.partition(":"))
    if not colon or not name:
        raise TopoError(f"null models are asked for as KIND:N, as in same_layers:100, not as '{text.strip()}'")
    return name, int(count) if count.isdecimal() and len(count) < 10 else count


def seeds(rng: int | np.random.Generator, wanted: Mapping[str, int]) -> dict[str, list[np.random.Generator]]:
    """A generator for each sample, spawned so that a sample depends on its own null model and number alone."""
    children = dict(zip(nulls, as_rng(rng).spawn(len(nulls))))
    return {name: children[name].spawn(count) for name, count in wanted.items()}


# -- the null models


@null("the number of kept parameters of the whole network")
def same_total(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> Drawn:
    """Uniform over all masks of the same layers that keep as many parameters; generator `random`."""
    budgets = {name: masks.rows(name).kept() for name in masks}
    yield from generators["random"].function(wiring, budgets, rng)


@null("the number of kept parameters of each layer")
def same_layers(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> Drawn:
    """Uniform over all masks with these counts (Frankle et al. 2021); generator `shuffle`."""
    yield from generators["shuffle"].function(wiring, masks, rng)


@null("the fan-in of each output unit, in kept parameters")
def same_rows(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> Drawn:
    """Uniform over all masks with these row sums: each row is drawn by itself."""
    for name in masks:
        rows = masks.rows(name)
        yield name, _redealt(rows, rows.columns, rng)


@null("the fan-out of each weight column (input channel and kernel position)")
def same_columns(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> Drawn:
    """Uniform over all masks with these column sums, of each group of a grouped convolution by itself."""
    for name in masks:
        mask, count = masks[name], wiring.layer(name).groups
        turned = np.concatenate([group.T for group in np.split(mask.reshape(len(mask), -1), count)])
        drawn = _redealt(BitRows.of_mask(turned), turned.shape[1], rng).unpack()
        back = np.concatenate([group.T for group in np.split(drawn, count)])
        yield name, BitRows.of_mask(back.reshape(mask.shape))


def _how_mixed(wiring: Wiring, masks: MaskSet) -> list[str]:
    found = {name: mixing(masks.rows(name), wiring.layer(name).groups) for name in masks if masks.rows(name).kept()}
    rounds = sorted({each.rounds for each in found.values()})
    if not rounds:
        return []
    lines = [
        f"same_degrees: rewired in {rounds[0]} to {rounds[-1]} rounds a layer; after half of them the overlap with the "
        f"masks beyond chance was measured, at most {MOST_LEFT:.0%} of it and its noise left"
    ]
    for name, each in found.items():
        if not each.mixed:
            lines.append(f"same_degrees: {name} does not mix: {each.left:.0%} left after {each.rounds // 2} rounds")
    return lines


@null("the degrees of both sides: the sum of each row and of each weight column", told=_how_mixed)
def same_degrees(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> Drawn:
    """Near uniform over all masks with these row and column sums, of each group of a grouped convolution by itself.

    By curveball trades between rows and between columns (generator `configuration`), in as many rounds as a layer is
    measured to need, see `topo.generators.rewiring.mixing`. Where few masks have these sums a sample may be the
    masks themselves.
    """
    yield from generators["configuration"].function(wiring, masks, rng)


def _unmoved(name: str, why: str, layers: list[str], of: int) -> list[str]:
    """What is to be said of layers of which every sample has the mask itself."""
    if not layers:
        return []
    if len(layers) == of:
        return [f"{name}: no weight moves ({why}): samples are the masks themselves"]
    told = ", ".join(f"'{layer}'" for layer in layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
    return [f"{name}: in {len(layers)} of {of} layers no weight moves ({why}): {told}"]


def _of_single_weights(wiring: Wiring, masks: MaskSet) -> list[str]:
    """Layers whose kernels are one weight each."""
    masks = wiring.plain_masks(masks)
    layers = [name for name in masks if masks.rows(name).columns == masks.shapes[name][1]]
    return _unmoved("same_kernels", "kernels of one weight", layers, len(masks))


def _of_single_kernels(wiring: Wiring, masks: MaskSet) -> list[str]:
    """Layers without two kernels of one input channel, as depthwise ones, or with kernels of one weight."""
    wiring, masks = wiring.plain, wiring.plain_masks(masks)

    def fixed(name: str) -> bool:
        alone = masks.shapes[name][0] == wiring.layer(name).groups
        return alone or masks.rows(name).columns == masks.shapes[name][1]

    layers = [name for name in masks if fixed(name)]
    why = "kernels of one weight, or one kernel an input channel"
    return _unmoved("same_kernels_degrees", why, layers, len(masks))


@null(
    "the number of kept weights of each kernel (pair of channels); in linear layers that is the mask itself",
    told=_of_single_weights,
)
def same_kernels(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> Drawn:
    """Uniform over all masks with these counts: kept weights change their places within a kernel.

    The channel graph stays as it is, and so does every number of it; numbers of the kernel view change. A kernel of a
    linear layer is one weight, so that nothing of it can move. It keeps the sums of rows, not those of weight columns.
    """
    for name in masks:
        rows = masks.rows(name)
        yield name, _redealt(rows, rows.columns // rows.shape[1], rng)


def _how_walked(wiring: Wiring, masks: MaskSet) -> list[str]:
    how = plan(wiring.plain, wiring.plain_masks(masks))
    if not any(how.steps.values()):
        return ["same_effective: there is nothing to trade: samples are the masks themselves"]
    walk = f"{how.accepted:.0%} of {sum(how.steps.values()):,} trades left the effective units as they were"
    left = "" if how.left <= 0.05 else ", so that samples resemble the masks"
    return [f"same_effective: {walk}; {how.left:.0%} of the weights that chance moves were left{left}"]


@null("the degrees of both sides, and which units are effective", wired=True, told=_how_walked)
def same_effective(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> Drawn:
    """Near uniform over the masks of these row and column sums and effective units that trades reach one by one.

    Trades as of `same_degrees`, each refused if another set of units would be effective (`topo.nulls.walk`).
    """
    yield from walked(wiring, masks, rng).items()


@null(
    "the number of kept weights of each kernel, and the sum of each weight column; of linear layers the mask itself",
    told=_of_single_kernels,
)
def same_kernels_degrees(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> Drawn:
    """Near uniform over all masks with these counts: kernels of one input channel trade weights, as curveballs.

    Row sums stay with the kernels; 16 rounds of trades of kernels and of kernel positions.
    """
    for name in masks:
        rows, groups = masks.rows(name), wiring.layer(name).groups
        size = rows.columns // rows.shape[1]
        if size == 1:
            yield name, rows
            continue
        kernels = masks[name].reshape(groups, len(rows.words) // groups, rows.shape[1], size).swapaxes(1, 2)
        words = BitRows.of_mask(np.ascontiguousarray(kernels).reshape(-1, size)).words.copy()
        rewire(words, size, groups * rows.shape[1], _KERNEL_ROUNDS, rng)
        drawn = np.unpackbits(words.view(np.uint8), axis=1, count=size, bitorder="little")
        yield name, BitRows.of_mask(drawn.reshape(kernels.shape).swapaxes(1, 2).reshape(rows.shape))


@null("the graph: hidden units change their numbers, consistently through the network", wired=True)
def relabelled(wiring: Wiring, masks: MaskSet, rng: np.random.Generator) -> Drawn:
    """The masks with hidden units renumbered at random (`renumbering`): an isomorphic network.

    Weights are not renumbered with them, so that numbers of |w| over the masks change.
    """
    units = renumbering(wiring, rng)
    for name in masks:
        layer, mask = wiring.layer(name), masks[name]
        moved = moved_by(layer, units)
        assert moved is not None
        rows, reads = (np.argsort(places) for places in moved)  # whence each row and column comes
        columns = reads.reshape(layer.groups, -1) % layer.shape[1]
        group = np.arange(layer.outputs) // (layer.outputs // layer.groups)
        yield name, BitRows.of_mask(mask[rows[:, None], columns[group]] if layer.groups > 1 else mask[rows][:, reads])


def _redealt(rows: BitRows, width: int, rng: np.random.Generator) -> BitRows:
    """Each run of `width` columns of each row drawn anew, uniformly, with as many bits as it has."""
    from topo.kernels.biregular import deal

    per_row = rows.columns // width
    counts = _counts(rows, width).astype(np.int64).reshape(-1)
    words = np.zeros_like(rows.words)
    deal(counts, per_row, width, rows.columns, False, rng, words)
    return BitRows(rows.shape, words)


def _counts(rows: BitRows, width: int) -> np.ndarray:
    """Bits of each run of `width` columns: (rows, runs)."""
    if width == rows.columns:
        return np.bitwise_count(rows.words).sum(axis=1, dtype=np.int64)
    return kernel_counts(rows.words, rows.columns, width)
