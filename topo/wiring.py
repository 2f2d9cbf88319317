"""Wiring: who feeds whom in a network. It knows units and layers, and nothing of masks.

A *unit* is a channel of a feature map, a feature, or a neuron; units are numbered 0, 1, 2, ... A *layer* reads a list
of units and makes new ones. A *join* makes new units from units: `add` (sums of branches), `gate` (element-wise
products) and `score` (attention scores: per head, a dot product over its query and key units; attention is a score that
gates the value units). Steps stand in the order in which they run. Layout operations (views, concatenations, slices,
flattening) leave no step: they only change which units the next step reads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from topo.errors import WiringError
from topo.flat import Groups, Table
from topo.masks import MaskSet
from topo.runs import MOST_UNITS, count_units, runs_of, units_of, whole

LAYER_KINDS = ("linear", "conv", "embedding")
JOIN_KINDS = ("add", "gate", "score")
SCHEMA = "topo-wiring/2"
_READ = (SCHEMA, "topo-wiring/1")  # the first version knew no constants; all that it says means the same
NOTHING = -1
CONSTANT = -2
MOST_WEIGHTS = 1 << 48


def _units(values: Any, what: str) -> np.ndarray:
    given = np.asarray(values)
    if given.size and (given.dtype.kind not in "iu" or given.min() < CONSTANT or given.max() >= MOST_UNITS):
        raise WiringError(
            f"{what} reads what are no units; units are whole numbers below {MOST_UNITS:,}, -1 is zero, -2 a constant"
        )
    units = np.ascontiguousarray(given, np.int32)
    units.flags.writeable = False
    return units


def _part(values: Any, most: int, what: str) -> np.ndarray:
    part = np.asarray(values)
    whole = part.ndim == 1 and (part.dtype.kind in "iu" or not part.size)
    if not whole or part.min(initial=0) < 0 or part.max(initial=0) >= most or (np.diff(part) <= 0).any():
        raise WiringError(f"{what} {str(part.tolist())[:40]}; they are ascending whole numbers below {most}")
    return _units(part, what)


@dataclass(frozen=True, eq=False, slots=True)
class Layer:
    """A weighted layer.

    name: the parameter's name. shape: of its mask, (out, in / groups, *kernel); see `transposed`.
    reads: int32 (in,), the unit behind each input channel or feature; -1 is zero (padding), -2 a constant that is not
    zero: its weights count as fed, and no path begins there. A unit may be read twice (after a flatten, one channel is
    height * width features). start: the first of the `out` units it makes.
    positions: output positions per example (height * width, or tokens), None if unknown: a kept weight costs one
    multiply-accumulate at each.
    transposed: the parameter itself is stored input-first (GPT-2's Conv1D, embeddings, transposed convolutions);
    `shape` and masks are output-first all the same.
    rows, columns: where only a part of the parameter is multiplied by (a slice, as the query's part of a stacked
    projection), its outputs and its inputs within a group, int32 and ascending; None is all. Units of other rows carry
    nothing, other columns read none, and the weights outside take no part in this use.
    """

    name: str
    shape: tuple[int, ...]
    reads: np.ndarray
    start: int
    kind: str = "linear"
    groups: int = 1
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    positions: int | None = None
    transposed: bool = False
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise WiringError(f"a layer is called {self.name!r}; a name is text")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "reads", _units(self.reads, f"layer '{self.name}'"))
        for side in ("stride", "padding", "dilation"):
            object.__setattr__(self, side, tuple(int(n) for n in getattr(self, side)))
        if self.kind not in LAYER_KINDS:
            raise WiringError(
                f"layer '{self.name}' is of kind '{self.kind}'; a layer is one of {', '.join(LAYER_KINDS)}"
            )
        if len(self.shape) < 2 or min(self.shape) < 1:
            raise WiringError(
                f"layer '{self.name}' has shape {self.shape}; a layer has (out, in, ...), each at least 1"
            )
        if math.prod(self.shape) > MOST_WEIGHTS:
            raise WiringError(
                f"layer '{self.name}' has shape {self.shape}; up to {MOST_WEIGHTS:,} weights are possible"
            )
        if not whole(self.start):
            raise WiringError(
                f"layer '{self.name}' makes units from {self.start!r} on; units are numbered 0, 1, 2, ..."
            )
        if self.positions is not None and not whole(self.positions):
            raise WiringError(f"layer '{self.name}' has positions {self.positions!r}; it is a whole number, or None")
        if not whole(self.groups, 1) or self.shape[0] % self.groups:
            raise WiringError(
                f"layer '{self.name}' makes {self.shape[0]} units in {self.groups} groups, which do not divide them"
            )
        if self.reads.ndim != 1 or len(self.reads) != self.shape[1] * self.groups:
            raise WiringError(
                f"layer '{self.name}' takes {self.shape[1] * self.groups} inputs but reads {self.reads.size} units"
            )
        for side, most in (("rows", self.shape[0]), ("columns", self.shape[1])):
            if getattr(self, side) is not None:
                object.__setattr__(self, side, _part(getattr(self, side), most, f"layer '{self.name}' uses {side}"))
        if self.columns is not None:
            outside = np.ones(self.shape[1], np.bool_)
            outside[self.columns] = False
            object.__setattr__(self, "reads", _units(np.where(np.tile(outside, self.groups), -1, self.reads), ""))

    @property
    def outputs(self) -> int:
        """How many units it makes."""
        return self.shape[0]

    @property
    def stop(self) -> int:
        """One more than the last unit it makes."""
        return self.start + self.shape[0]

    @property
    def taps(self) -> int:
        """Weights per kernel: height * width of a convolution, 1 of a linear layer."""
        return math.prod(self.shape[2:])

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def part(self) -> tuple[np.ndarray, np.ndarray]:
        """bool (out,) and (in / groups,): the rows and columns that take part in this use."""
        sides = []
        for length, places in zip(self.shape, (self.rows, self.columns)):
            flags = np.full(length, places is None)
            flags[[] if places is None else places] = True
            sides.append(flags)
        return sides[0], sides[1]

    @property
    def used(self) -> int:
        """Number of weights that take part in this use."""
        rows = self.shape[0] if self.rows is None else len(self.rows)
        columns = self.shape[1] if self.columns is None else len(self.columns)
        return rows * columns * self.taps


@dataclass(frozen=True, eq=False, slots=True)
class Join:
    """Units made from units: unit `start + i` comes from entry i of every operand (-1: zero, -2: never zero).

    add: paths sum, live if any operand is: with a constant always, though paths follow the units alone. gate: a
    product, live if all operands are; operand 0 is the value branch. score: operands query and key, (heads * width,)
    each; unit `start + h` is the sum over d of the products of entries h * width + d, so it is live if some pair is; it
    carries no path of the value branch.
    """

    kind: str
    operands: tuple[np.ndarray, ...]
    start: int
    width: int = 1

    def __post_init__(self) -> None:
        name = f"a join of kind '{self.kind}'"
        object.__setattr__(self, "operands", tuple(_units(operand, name) for operand in self.operands))
        if not whole(self.start):
            raise WiringError(f"{name} makes units from {self.start!r} on; units are numbered 0, 1, 2, ...")
        if self.kind not in JOIN_KINDS:
            raise WiringError(f"a join is of kind '{self.kind}'; a join is one of {', '.join(JOIN_KINDS)}")
        lengths = {len(operand) for operand in self.operands}
        if len(self.operands) < 2 or len(lengths) != 1:
            raise WiringError(
                f"a join of kind '{self.kind}' has operands of {sorted(lengths)} units; "
                "it takes two or more of equal length"
            )
        if not whole(self.width, 1) or len(self.operands[0]) % self.width or (self.width != 1 and self.kind != "score"):
            raise WiringError(
                f"a join of kind '{self.kind}' over {len(self.operands[0])} units cannot have width {self.width}"
            )

    @property
    def outputs(self) -> int:
        """How many units it makes."""
        return len(self.operands[0]) // self.width

    @property
    def stop(self) -> int:
        """One more than the last unit it makes."""
        return self.start + self.outputs


Step = Layer | Join


@dataclass(frozen=True, eq=False)
class Wiring:
    """The layered DAG of a network: input units, steps in running order, output units.

    inputs, outputs: int32 arrays of units. Units 0 .. n_inputs - 1 come first if they are inputs; each step makes a
    contiguous range of new units. A parameter that is used twice has two layers of the same name.
    model, input_shape: for the record. notes: what was assumed while tracing, a line each.
    parameters: the names in module order (the model's `named_parameters`), each once: the order of mask files that
    carry no names. It differs from running order in residual networks; by default it is `names`.

    Raises WiringError if a step reads a unit that is not there yet, or if two steps make the same unit.
    """

    inputs: np.ndarray
    steps: tuple[Step, ...]
    outputs: np.ndarray
    model: str | None = None
    input_shape: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    _names: dict[str, Layer] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", _units(self.inputs, "the network's list of inputs"))
        object.__setattr__(self, "outputs", _units(self.outputs, "the network's list of outputs"))
        object.__setattr__(self, "steps", tuple(self.steps))
        if self.n_units > MOST_UNITS:
            raise WiringError(f"the wiring numbers {self.n_units:,} units; up to {MOST_UNITS:,} are possible")
        for name, units in (("inputs", self.inputs), ("outputs", self.outputs)):
            if len(np.unique(units)) < len(units) or units.min(initial=0) < 0:
                raise WiringError(f"the network's {name} are units, each once; a unit stands in them twice, or -1 does")
        made = np.zeros(self.n_units, np.bool_)
        made[self.inputs] = True
        names: dict[str, Layer] = {}
        for step in self.steps:
            label = f"layer '{step.name}'" if isinstance(step, Layer) else f"a join of kind '{step.kind}'"
            for read in (step.reads,) if isinstance(step, Layer) else step.operands:
                known = read[read >= 0]
                if known.size and (known.max() >= self.n_units or not made[known].all()):
                    raise WiringError(f"{label} reads a unit that no input and no earlier step makes")
            if made[step.start : step.stop].any():
                raise WiringError(f"{label} makes units {step.start} to {step.stop - 1}, some of which exist already")
            made[step.start : step.stop] = True
            if isinstance(step, Layer):
                before = names.setdefault(step.name, step)
                if before.shape != step.shape:
                    raise WiringError(f"layer '{step.name}' is used with shapes {before.shape} and {step.shape}")
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies are made anew: what is cached knows arrays by their place in memory."""
        return Wiring, tuple(getattr(self, entry.name) for entry in fields(self) if entry.init)

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
        return {name: layer.shape for name, layer in self._names.items()}

    def layer(self, name: str) -> Layer:
        """The first use of a parameter."""
        try:
            return self._names[name]
        except KeyError:
            raise WiringError(f"no layer is called '{name}'; there are: {', '.join(self._names)}") from None

    @property
    def input_first(self) -> dict[str, int]:
        """Name -> groups of the layers whose parameter is stored (in, out / groups, ...), unlike its mask."""
        return {name: layer.groups for name, layer in self._names.items() if layer.transposed}

    @cached_property
    def groups(self) -> Groups:
        """Which units are made together."""
        return Groups(self)

    @cached_property
    def table(self) -> Table:
        """The steps as numbers, for kernels."""
        return Table(self)

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
            for read in (step.reads,) if isinstance(step, Layer) else step.operands:
                readers[np.unique(read[read >= 0])] += 1

        def makers(units: np.ndarray) -> list[int]:
            """Steps that make these units; -1 for inputs."""
            return np.unique(maker[units[units >= 0]]).tolist()

        def depth_from(target: np.ndarray, source: list[int]) -> int:
            """Most layers on a way from the steps of `source` to the units of `target`; -1 if there is none."""
            ends = makers(target)
            depth = dict.fromkeys(source, 0)
            for index in range(min(source) + 1, max(ends, default=-1) + 1):
                if index not in depth:
                    step = self.steps[index]
                    reads = (step.reads,) if isinstance(step, Layer) else step.operands
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
                    fed = flags[step.reads].reshape(step.groups, -1).any(axis=1)
                    flags[made] = fed.repeat(step.outputs // step.groups) & step.part[0]
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
                of_groups = (given & step.part[0]).reshape(step.groups, -1).any(axis=1)
                behind[step.reads[of_groups.repeat(step.shape[1])]] = True
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
            if layer is None:
                model = f"the model {self.model}" if self.model else "the model"
                raise WiringError(f"mask '{name}' {shape} is no layer of {model}; its layers are: {_some(self.names)}")
            if layer.shape != shape:
                hint = ""
                if layer.transposed and shape[:2] == layer.shape[1::-1]:
                    hint = "; it is stored input-first, masks are not: swap two axes, or read a file with its model"
                raise WiringError(f"mask '{name}' has shape {shape} but the model's layer has {layer.shape}{hint}")

    def to_json(self) -> str:
        """The wiring as JSON text: all that is needed to analyse masks later without the model's code."""
        document = {
            "schema": SCHEMA,
            "model": self.model,
            "input_shape": list(self.input_shape) if self.input_shape else None,
            "notes": list(self.notes),
            "parameters": list(self.parameters),
            "inputs": runs_of(self.inputs),
            "outputs": runs_of(self.outputs),
            "steps": [_step_to_json(step) for step in self.steps],
        }
        return json.dumps(document, separators=(",", ":")) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Wiring:
        """The wiring written by `to_json`; WiringError if the text is none."""
        try:
            document = json.loads(text)
            if document.get("schema") not in _READ:
                raise WiringError(
                    f"this JSON has schema {document.get('schema')!r}; a wiring that this topo reads has "
                    + " or ".join(map(repr, _READ))
                )
            if (asked := sum(map(count_units, _lists_of_runs(document)))) > MOST_UNITS:
                raise WiringError(f"this JSON asks for lists of {asked:,} units; up to {MOST_UNITS:,} are read")
            shape, model, notes = document["input_shape"], document["model"], document["notes"]
            if not isinstance(model, str | None) or not all(isinstance(note, str) for note in notes):
                raise WiringError("the model and the notes of a wiring are text")
            if shape and not all(whole(n, 1) for n in shape):
                raise WiringError(f"the wiring has input_shape {shape}; it is a list of whole numbers of at least 1")
            return cls(
                inputs=units_of(document["inputs"]),
                steps=tuple(_step_from_json(step) for step in document["steps"]),
                outputs=units_of(document["outputs"]),
                model=model,
                input_shape=tuple(shape) if shape else None,
                notes=tuple(notes),
                parameters=tuple(document.get("parameters", ())),
            )
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise WiringError(f"this is no wiring in JSON: {type(error).__name__} {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the JSON text to a file."""
        from topo.atomic import write_text

        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Wiring:
        """Read the JSON file that `save` wrote."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))

    def named(self, model: str | None) -> Wiring:
        """The same wiring under another model name."""
        return replace(self, model=model)


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


_PARTS = ("rows", "columns")


def _lists_of_runs(document: Mapping[str, Any]) -> Iterator[Any]:
    yield from (document["inputs"], document["outputs"])
    for step in document["steps"]:
        if step["step"] == "layer":
            yield from (step["reads"], *(step[side] for side in _PARTS if side in step))
        else:
            yield from step["operands"]


def _step_to_json(step: Step) -> dict[str, Any]:
    if isinstance(step, Join):
        return {
            "step": step.kind,
            "operands": [runs_of(operand) for operand in step.operands],
            "start": step.start,
            "width": step.width,
        }
    return {
        "step": "layer",
        "name": step.name,
        "kind": step.kind,
        "shape": list(step.shape),
        "reads": runs_of(step.reads),
        "start": step.start,
        "groups": step.groups,
        "stride": list(step.stride),
        "padding": list(step.padding),
        "dilation": list(step.dilation),
        "positions": step.positions,
        "transposed": step.transposed,
        **{side: runs_of(part) for side in _PARTS if (part := getattr(step, side)) is not None},
    }


def _step_from_json(entry: Mapping[str, Any]) -> Step:
    fields = dict(entry)
    kind = fields.pop("step")
    if kind == "layer":
        return Layer(**fields | {side: units_of(fields[side]) for side in ("reads", *_PARTS) if side in fields})
    operands = tuple(units_of(runs) for runs in fields["operands"])
    return Join(kind, operands, fields["start"], fields["width"])


def chain(masks: MaskSet) -> Wiring:
    """The wiring of a plain stack: each layer reads all units of the one before, in the order of `masks`.

    A layer may take m times as many inputs as the one before gives (a flatten: each channel becomes m features). A
    convolution of shape (c, 1, ...) on c units is depthwise. Residual connections leave no trace in masks, so this is
    an assumption, and the wiring's notes say so.

    Raises WiringError that names the two layers that do not fit.
    """
    names = list(masks)
    first = masks.rows(names[0]).shape
    inputs = np.arange(first[1], dtype=np.int32)
    units, start, steps = inputs, len(inputs), []
    for previous, name in zip([None, *names], names):
        shape = masks.rows(name).shape
        depthwise = len(shape) > 2 and shape[1] == 1 and len(units) > 1 and shape[0] % len(units) == 0
        taken = len(units) if depthwise else shape[1]
        if taken % len(units) or (taken != len(units) and len(shape) > 2):
            raise WiringError(
                f"'{name}' takes {shape[1]} inputs but the layer before it, '{previous}', gives {len(units)}; "
                "masks that are no plain stack need their model"
            )
        kind = "conv" if len(shape) > 2 else "linear"
        steps.append(
            Layer(
                name,
                shape,
                np.repeat(units, taken // len(units)),
                start,
                kind,
                groups=len(units) if depthwise else 1,
                positions=1 if kind == "linear" else None,
            )
        )
        units = np.arange(start, start + shape[0], dtype=np.int32)
        start += shape[0]
    note = "wiring: a plain chain, assumed from the shapes; residual connections cannot be seen in masks"
    return Wiring(inputs, tuple(steps), units, notes=(note,))


def apart(masks: MaskSet, groups: Mapping[str, int] | None = None) -> Wiring:
    """A wiring in which no layer feeds another, for what looks at each layer alone. groups: of convolutions, else 1."""
    shapes = {name: masks.rows(name).shape for name in masks}
    split = {name: (groups or {}).get(name, 1) for name in shapes}
    widths = [shape[1] * split[name] for name, shape in shapes.items()]
    ends = np.cumsum(widths + [shape[0] for shape in shapes.values()], dtype=np.int32)
    units = np.split(np.arange(ends[-1], dtype=np.int32), ends[:-1])
    reads, writes = units[: len(shapes)], units[len(shapes) :]
    layers = tuple(
        Layer(name, shape, read, int(made[0]), "conv" if len(shape) > 2 else "linear", groups=split[name])
        for (name, shape), read, made in zip(shapes.items(), reads, writes)
    )
    return Wiring(np.concatenate(reads), layers, np.concatenate(writes))
