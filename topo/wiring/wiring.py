"""Wiring: who feeds whom in a network. It knows units and layers, and nothing of masks.

A *unit* is a channel of a feature map, a feature, or a neuron; units are numbered 0, 1, 2, ... A *layer* reads a list
of units and makes new ones. A *join* makes new units from units: `add` (sums of branches), `gate` (element-wise
products) and `score` (attention scores: per head, a dot product over its query and key units; attention is a score that
gates the value units). Steps stand in the order in which they run. Layout operations (views, concatenations, slices,
flattening) leave no step: they only change which units the next step reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from topo._support.atomic import write_text
from topo._support.distinct import distinct
from topo._support.names import unknown
from topo._support.screen import folding, printable, screen
from topo._support.text_files import read_text
from topo.errors import WiringError
from topo.masks import BitRows, MaskSet
from topo.wiring.as_json import fields_of, refusing_odd_values, text_of
from topo.wiring.maps import Maps
from topo.wiring.runs import MOST_UNITS
from topo.wiring.steps import CONSTANT, NOTHING, Join, Layer, Step, as_units
from topo.wiring.table import Groups, Table


@dataclass(frozen=True, eq=False, repr=False)
class Wiring:
    """The layered DAG of a network: input units, steps in running order, output units.

    inputs, outputs: int32 arrays of units. Units 0 .. n_inputs - 1 come first if they are inputs; each step makes a
    contiguous range of new units. A parameter that is used twice has two layers of the same name.
    model, input_shape: for the record. notes: what was assumed while tracing, a line each.
    parameters: the names in module order (the model's `named_parameters`), each once: the order of mask files that
    carry no names. It differs from running order in residual networks; by default it is `names`.
    unused: names of weights of the model that the traced way through it does not use (the other branch of an `if`):
    masks of them fit, and are left aside.
    maps: finds the places of its maps (topo.trace sets it), for the unrolled view; a saved or copied wiring has none.

    >>> layers = (Layer("a", (2, 3), np.arange(3), 3), Layer("b", (1, 2), np.array([3, 4]), 5))
    >>> wiring = Wiring(np.arange(3), layers, np.array([5]))
    >>> wiring.names, wiring.n_units
    (('a', 'b'), 6)

    Raises WiringError if a step reads a unit that is not there yet, or if two steps make the same unit.
    """

    inputs: np.ndarray
    steps: tuple[Step, ...]
    outputs: np.ndarray
    model: str | None = None
    input_shape: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    maps: Callable[[], Maps] | None = field(default=None, repr=False)
    _names: dict[str, Layer] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", as_units(self.inputs, "the network's list of inputs"))
        object.__setattr__(self, "outputs", as_units(self.outputs, "the network's list of outputs"))
        object.__setattr__(self, "steps", tuple(self.steps))
        if self.n_units > MOST_UNITS:
            raise WiringError(f"the wiring numbers {self.n_units:,} units; up to {MOST_UNITS:,} are possible")
        for name, units in (("inputs", self.inputs), ("outputs", self.outputs)):
            if len(distinct(units)) < len(units) or units.min(initial=0) < 0:
                raise WiringError(f"the network's {name} are units, each once; a unit stands in them twice, or -1 does")
        made = np.zeros(self.n_units, np.bool_)
        made[self.inputs] = True
        names: dict[str, Layer] = {}
        for step in self.steps:
            label = f"layer '{step.name}'" if isinstance(step, Layer) else f"a join of kind '{step.kind}'"
            for read in step.operands:
                known = read[read >= 0]
                if known.size and (known.max() >= self.n_units or not made[known].all()):
                    raise WiringError(f"{label} reads a unit that no input and no earlier step makes")
            if made[step.start : step.stop].any():
                raise WiringError(f"{label} makes units {step.start} to {step.stop - 1}, some of which exist already")
            made[step.start : step.stop] = True
            if isinstance(step, Layer):
                before = names.setdefault(step.name, step)
                if before.mask_shape != step.mask_shape:
                    raise WiringError(
                        f"layer '{step.name}' is used with masks of shapes {before.mask_shape} and {step.mask_shape}"
                    )
                if before.kind == "embedding" != step.kind:
                    names[step.name] = step
        known = self.outputs[(self.outputs >= 0) & (self.outputs < self.n_units)]
        if self.outputs.size == 0 or len(known) < len(self.outputs) or not made[known].all():
            raise WiringError("the network's outputs are units that no step makes")
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "parameters", tuple(self.parameters) or tuple(names))
        if len(self.parameters) != len(names) or set(self.parameters) != set(names):
            odd = sorted(set(self.parameters) ^ set(names)) or sorted(self.parameters)
            raise WiringError(
                f"the names in module order must be those of the layers, each once; they differ in {_some(odd)}"
            )

    def __repr__(self) -> str:
        return screen(*self._table())

    def _repr_html_(self) -> str:
        return folding(*self._table(), "step")

    def _table(self) -> tuple[str, list[str], list[list[str]]]:
        """What a screen shows: a line, a header, and a row for each step."""
        about = f"{len(self.names)} layers, {self.n_units:,} units, {len(self.inputs):,} in, {len(self.outputs):,} out"
        lines = [
            [printable(step.name), step.kind, "x".join(map(str, step.mask_shape)), _span(step)]
            if isinstance(step, Layer)
            else ["", step.kind, f"{len(step.operands)} operands", _span(step)]
            for step in self.steps
        ]
        return f"Wiring({self.model or 'a network'}: {about})", ["step", "kind", "shape", "makes units"], lines

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies are made anew: what is cached knows arrays by their place in memory."""
        return Wiring, tuple(getattr(self, entry.name) for entry in fields(self) if entry.init and entry.name != "maps")

    @cached_property
    def n_units(self) -> int:
        """One more than the largest unit number."""
        last = [int(self.inputs.max(initial=-1)) + 1, *(step.stop for step in self.steps)]
        return max(last)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in running order; a shared parameter stands once for each use."""
        return tuple(step for step in self.steps if isinstance(step, Layer))

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names in running order, each once."""
        return tuple(self._names)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Mask shape of each parameter."""
        return {name: layer.mask_shape for name, layer in self._names.items()}

    def layer(self, name: str) -> Layer:
        """The first use of a parameter, as an embedding only if it has no other."""
        try:
            return self._names[name]
        except KeyError:
            raise WiringError(unknown("layer", name, self._names)) from None

    @property
    def input_first(self) -> dict[str, int]:
        """Name -> groups of the layers whose parameter is stored (in, out / groups, ...), unlike its mask."""
        return {name: layer.groups for name, layer in self._names.items() if layer.transposed}

    @cached_property
    def plain(self) -> Wiring:
        """The same network with a matrix as the mask of each parameter, `Layer.shape`, as kernels and methods work on.

        A parameter of three or more dimensions is laid out as its layer; one that is used in two layouts (a tied
        autoencoder, an embedding tied to a head) keeps its mask, and its other uses the axes that they take.
        """
        axes: dict[str, set[tuple[int, ...] | None]] = {}
        for layer in self.layers:
            axes.setdefault(layer.name, set()).add(layer.axes)
        same = {name for name, orders in axes.items() if len(orders) == 1 and None not in orders}
        if not same:
            return self
        steps = [
            replace(step, own=None, axes=None) if isinstance(step, Layer) and step.name in same else step
            for step in self.steps
        ]
        return replace(self, steps=tuple(steps))

    def plain_masks(self, masks: MaskSet) -> MaskSet:
        """Masks of this wiring as masks of `plain`."""
        return self._relaid(masks, lambda layer, rows: layer.laid_out(rows))

    def own_masks(self, masks: MaskSet) -> MaskSet:
        """Masks of `plain` as masks of this wiring: of the parameters' own shapes."""
        return self._relaid(masks, lambda layer, rows: layer.as_mask(rows))

    def _relaid(self, masks: MaskSet, turn: Callable[[Layer, BitRows], BitRows]) -> MaskSet:
        if self.plain is self:
            return masks
        known = [name for name in masks if name in self._names]
        changed = [name for name in known if self.plain.layer(name).axes != self.layer(name).axes]
        rows = {name: masks.rows(name) for name in masks}
        rows |= {name: turn(self.layer(name), rows[name]) for name in changed}
        return MaskSet(rows, provenance=masks.provenance)

    @cached_property
    def untied(self) -> Wiring:
        """`plain` with embeddings that are tied to a layer as plain inputs, for methods that know one layout a mask.

        Raises WiringError, naming the parameter, if another is used in two layouts, and if a known mask closes weights.
        """
        plain = self.plain
        if closed := [layer.name for layer in plain.layers if layer.pattern is not None]:
            raise WiringError(
                f"some weights of '{closed[0]}' take no part in it, since a known mask closes them; this method would "
                "place parameters on them"
            )
        odd = [layer for layer in plain.layers if layer.axes != plain.layer(layer.name).axes]
        if not odd:
            return plain
        if other := [layer.name for layer in odd if layer.kind != "embedding"]:
            raise WiringError(
                f"parameter '{other[0]}' is used in two layouts (as W and as W.T); this method knows one for each mask"
            )
        gone = {id(layer) for layer in odd}
        read = [plain.inputs[np.isin(plain.inputs, np.concatenate(self._read_by_others(plain, gone)))]]
        inputs = np.concatenate([*read, *(np.arange(layer.start, layer.stop) for layer in odd)])
        kept = [step for step in plain.steps if id(step) not in gone]
        number = np.full(plain.n_units + 2, NOTHING, np.int32)
        number[CONSTANT] = CONSTANT
        made = np.concatenate([inputs, *(np.arange(step.start, step.stop) for step in kept)])
        number[made] = np.arange(len(made))
        steps: list[Step] = []
        for step in kept:
            start = int(number[step.start])
            if isinstance(step, Layer):
                steps.append(replace(step, reads=number[step.reads], start=start))
            else:
                steps.append(replace(step, operands=tuple(number[units] for units in step.operands), start=start))
        return replace(plain, inputs=number[inputs], steps=tuple(steps), outputs=number[plain.outputs])

    @staticmethod
    def _read_by_others(plain: Wiring, gone: set[int]) -> list[np.ndarray]:
        read = [units for step in plain.steps if id(step) not in gone for units in step.operands]
        return [*read, plain.outputs]

    @cached_property
    def groups(self) -> Groups:
        """Which units are made together."""
        return Groups(self.inputs, self.steps, self.outputs, self.n_units)

    @cached_property
    def table(self) -> Table:
        """The steps as numbers, for kernels."""
        return Table(self.inputs, self.steps, self.outputs, self.n_units)

    @cached_property
    def shortcuts(self) -> frozenset[int]:
        """Steps (by index) that are shortcut layers.

        Their output goes into an `add` and nowhere else, and the other branch of that `add` starts at the same units
        and has two layers or more. Node counts in the papers' convention leave them out.
        """
        maker = np.full(self.n_units, -1, np.int64)
        readers = np.zeros(self.n_units, np.int64)
        for index, step in enumerate(self.steps):
            maker[step.start : step.stop] = index
            for read in step.operands:
                readers[distinct(read[read >= 0])] += 1

        def makers(units: np.ndarray) -> list[int]:
            """Steps that make these units; -1 for inputs."""
            return distinct(maker[units[units >= 0]]).tolist()

        def depth_from(target: np.ndarray, source: list[int]) -> int:
            """Most layers on a way from the steps of `source` to the units of `target`; -1 if there is none."""
            ends = makers(target)
            depth = dict.fromkeys(source, 0)
            for index in range(min(source) + 1, max(ends, default=-1) + 1):
                if index not in depth:
                    step = self.steps[index]
                    reads = step.operands
                    before = max((depth.get(i, -1) for read in reads for i in makers(read)), default=-1)
                    depth[index] = before + isinstance(step, Layer) if before >= 0 else -1
            return max((depth.get(i, -1) for i in ends), default=-1)

        found = set()
        for step in self.steps:
            if not (isinstance(step, Join) and step.kind == "add"):
                continue
            for operand in step.operands:
                direct = makers(operand)
                if len(direct) != 1 or direct[0] < 0 or not isinstance(layer := self.steps[direct[0]], Layer):
                    continue
                if readers[layer.start : layer.stop].max() > 1:
                    continue
                source = makers(layer.reads)
                others = [other for other in step.operands if other is not operand]
                if source and max(depth_from(other, source) for other in others) >= 2:
                    found.add(direct[0])
        return frozenset(found)

    @cached_property
    def reachable(self) -> tuple[np.ndarray, np.ndarray]:
        """Units that paths along value branches reach from an input, and from which they reach an output, if every
        weight is kept: bool (units + 2,) each, the last entries, a constant and nothing, False.

        Queries and keys only gate, and what leads nowhere carries nothing: no mask makes a path meet them.
        """
        live, ahead, behind = (np.zeros(self.n_units + 2, np.bool_) for _ in range(3))
        live[CONSTANT] = True
        live[self.inputs] = ahead[self.inputs] = behind[self.outputs] = True
        for step in self.steps:
            made = slice(step.start, step.stop)
            if isinstance(step, Layer):
                for flags in (live, ahead):
                    flags[made] = step.fed(flags[step.reads])
                continue
            over = [live[operand] for operand in step.operands]
            if step.kind == "score":
                live[made] = np.logical_and.reduce(over).reshape(-1, step.width).any(axis=1)
            elif step.kind == "gate":
                live[made] = np.logical_and.reduce(over)
                ahead[made] = live[made] & ahead[step.operands[0]]
            else:
                live[made] = np.logical_or.reduce(over)
                ahead[made] = np.logical_or.reduce([ahead[operand] for operand in step.operands])
        for step in reversed(self.steps):
            given = behind[step.start : step.stop]
            if isinstance(step, Layer):
                behind[step.reads[step.wanted(given)]] = True
            elif step.kind == "gate":
                behind[step.operands[0][given & live[step.start : step.stop]]] = True
            elif step.kind == "add":
                for operand in step.operands:
                    behind[operand[given]] = True
            behind[CONSTANT:] = False
        return ahead, behind

    def check(self, masks: MaskSet) -> None:
        """WiringError that names the first mask, in its own order, which is or fits no layer of this wiring."""
        for name in masks:
            shape, layer = masks.rows(name).shape, self._names.get(name)
            if layer is None and name in self.unused:
                continue
            if layer is None:
                model = f"the model {self.model}" if self.model else "the model"
                raise WiringError(
                    f"mask '{name}' {shape} is not a layer of {model}; its layers are: {_some(self.names)}"
                )
            if layer.mask_shape != shape:
                hint = ""
                if layer.transposed and shape[:2] == layer.shape[1::-1]:
                    hint = "; it is stored input-first, masks are not: swap two axes, or read a file with its model"
                raise WiringError(f"mask '{name}' has shape {shape} but the model's layer has {layer.mask_shape}{hint}")

    def used(self, masks: MaskSet) -> MaskSet:
        """The masks without those of parameters that the traced way through the model does not use."""
        if not self.unused or not any(name in self.unused for name in masks):
            return masks
        kept = {name: masks.rows(name) for name in masks if name not in self.unused}
        return MaskSet(kept, provenance=masks.provenance)

    def to_json(self) -> str:
        """The wiring as JSON text: all that is needed to analyse masks later without the model's code."""
        return text_of({entry.name: getattr(self, entry.name) for entry in fields(self) if entry.init})

    @classmethod
    def from_json(cls, text: str) -> Wiring:
        """The wiring written by `to_json`; WiringError if the text does not hold one."""
        with refusing_odd_values():
            return cls(**fields_of(text))

    def save(self, path: str | Path) -> None:
        """Write the JSON text to a file."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Wiring:
        """Read the JSON file that `save` wrote; WiringError that names it if it cannot be read."""
        return cls.from_json(read_text(path, "wiring", WiringError))

    def named(self, model: str | None) -> Wiring:
        """The same wiring under another model name."""
        return replace(self, model=model)


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def _span(step: Step) -> str:
    return f"{step.start} to {step.stop - 1}" if step.stop > step.start else "none"
