"""Layer and Join: the steps of a network, each of which reads units and makes new ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from topo.errors import WiringError
from topo.masks import BitRows
from topo.wiring.runs import MOST_UNITS, whole

LAYER_KINDS = ("linear", "conv", "embedding")
JOIN_KINDS = ("add", "gate", "score")
MOST_WEIGHTS = 1 << 48

# What stands in place of a unit: exactly zero, and a constant that is never zero.
NOTHING, CONSTANT = -1, -2


def as_units(values: Any, what: str) -> np.ndarray:
    """int32, read-only; WiringError, saying that `what` reads them, if they are not numbers of units, -1 or -2."""
    given = np.asarray(values)
    if given.size and (given.dtype.kind not in "iu" or given.min() < CONSTANT or given.max() >= MOST_UNITS):
        raise WiringError(
            f"{what} reads something other than units; "
            f"units are whole numbers below {MOST_UNITS:,}; -1 stands for zero and -2 for a constant"
        )
    units = np.ascontiguousarray(given, np.int32)
    units.flags.writeable = False
    return units


def _part(values: Any, most: int, what: str) -> np.ndarray:
    part = np.asarray(values)
    whole = part.ndim == 1 and (part.dtype.kind in "iu" or not part.size)
    if not whole or part.min(initial=0) < 0 or part.max(initial=0) >= most or (np.diff(part) <= 0).any():
        raise WiringError(f"{what} {str(part.tolist())[:40]}; they are ascending whole numbers below {most}")
    return as_units(part, what)


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
    own, axes: where the parameter's mask is not of this `shape`, its shape, and the order in which its axes are taken,
    to be laid out as `shape`: a batch of matrices (experts, heads), or a use of W.T beside one of W.
    pattern: of `shape`, the weights that take part in this use, where a known mask (a triangle) closes others.
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
    own: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None
    pattern: BitRows | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise WiringError(f"a layer is called {self.name!r}; a name is text")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "reads", as_units(self.reads, f"layer '{self.name}'"))
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
        if (self.own is None) != (self.axes is None):
            raise WiringError(f"layer '{self.name}' has an own shape {self.own} and axes {self.axes}: both, or neither")
        if self.own is not None and self.axes is not None:
            object.__setattr__(self, "own", tuple(int(n) for n in self.own))
            object.__setattr__(self, "axes", tuple(int(n) for n in self.axes))
            if sorted(self.axes) != list(range(len(self.own))) or math.prod(self.own) != math.prod(self.shape):
                raise WiringError(
                    f"layer '{self.name}' {self.shape} takes the axes {self.axes} of a mask of shape {self.own}"
                )
        if self.pattern is not None and self.pattern.shape != self.shape:
            raise WiringError(f"layer '{self.name}' {self.shape} has a pattern of shape {self.pattern.shape}")
        for side, most in (("rows", self.shape[0]), ("columns", self.shape[1])):
            if getattr(self, side) is not None:
                object.__setattr__(self, side, _part(getattr(self, side), most, f"layer '{self.name}' uses {side}"))
        if self.columns is not None:
            outside = np.ones(self.shape[1], np.bool_)
            outside[self.columns] = False
            object.__setattr__(self, "reads", as_units(np.where(np.tile(outside, self.groups), -1, self.reads), ""))

    @property
    def operands(self) -> tuple[np.ndarray]:
        """What it reads, as of a join: one array."""
        return (self.reads,)

    @property
    def outputs(self) -> int:
        """How many units it makes."""
        return self.shape[0]

    @property
    def stop(self) -> int:
        """One more than the last unit it makes."""
        return self.start + self.shape[0]

    @property
    def kernel_size(self) -> int:
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

    def fed(self, live: np.ndarray) -> np.ndarray:
        """bool (in,), of what it reads -> (out,): outputs that a weight joins to one of these, if all are kept."""
        if self.pattern is not None:
            met = np.any(self._joined & live.reshape(self.groups, 1, -1), axis=2, keepdims=True)
            return met.reshape(-1) & self.part[0]
        return live.reshape(self.groups, -1).any(axis=1).repeat(self.shape[0] // self.groups) & self.part[0]

    def wanted(self, outputs: np.ndarray) -> np.ndarray:
        """bool (out,) -> (in,), of what it reads: inputs that a weight joins to one of these, if all are kept."""
        outputs = (outputs & self.part[0]).reshape(self.groups, -1)
        if self.pattern is not None:
            return np.asarray((self._joined & outputs[:, :, None]).any(axis=1).reshape(-1))
        return outputs.any(axis=1).repeat(self.shape[1])

    @property
    def _joined(self) -> np.ndarray:
        """bool (groups, out / groups, in / groups): pairs that the pattern joins."""
        assert self.pattern is not None
        pairs = self.pattern.unpack().reshape(self.groups, self.shape[0] // self.groups, self.shape[1], -1)
        return np.asarray(pairs.any(axis=3))

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """The shape of its parameter's mask: `shape`, unless `own` says otherwise."""
        return self.own or self.shape

    def laid_out(self, mask: BitRows) -> BitRows:
        """The bit rows of this use, of `shape`, of its parameter's mask."""
        if self.own is None or self.axes is None:
            return mask
        if self.axes == tuple(range(len(self.own))) and (width := math.prod(self.shape[1:])) % 64 == 0:
            return BitRows(self.shape, mask.words.reshape(self.shape[0], width // 64))
        return BitRows.of_mask(mask.unpack().transpose(self.axes).reshape(self.shape))

    def as_mask(self, rows: BitRows) -> BitRows:
        """The mask, of `mask_shape`, that `laid_out` turns into these rows."""
        if self.own is None or self.axes is None:
            return rows
        taken = rows.unpack().reshape([self.own[axis] for axis in self.axes])
        return BitRows.of_mask(np.ascontiguousarray(taken.transpose(np.argsort(self.axes))))

    @property
    def used(self) -> int:
        """Number of weights that take part in this use."""
        if self.pattern is not None:
            return self.pattern.kept()
        rows = self.shape[0] if self.rows is None else len(self.rows)
        columns = self.shape[1] if self.columns is None else len(self.columns)
        return rows * columns * self.kernel_size


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
        object.__setattr__(self, "operands", tuple(as_units(operand, name) for operand in self.operands))
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
