"""Blocks: masks made of whole blocks are masks of the network whose units are blocks of units.

With blocks of b, b consecutive channels become one unit, a layer of shape (out, in, kernel_size) becomes (out / b, in /
b, kernel_size), and each of its weights stands for a b x b block at one kernel position (b weights in a depthwise
convolution). Every method then solves that smaller network, and everything effective in it is effective in the large
one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from topo.errors import TopoError
from topo.masks import MaskSet
from topo.optimize.problem import Balanced, Problem
from topo.wiring import CONSTANT, NOTHING, Join, Layer, Wiring


def quotient(problem: Problem, block: str | int, rule: str = "water") -> tuple[Problem, Callable[[Balanced], Balanced]]:
    """(the problem on the network of blocks, what expands its solution).

    block: "4" or "4x4". Tensors whose channels do not divide, or that some layer reads out of step (3 input channels,
    10 classes, a flattened map), keep their single units: layers at them have blocks of b x 1 or 1 x b. Budgets are
    split by `rule` first, then rounded to blocks with the exact total.

    Raises TopoError for blocks that are not square, that fit no layer, for a budget that is not a whole number of
    blocks, and together with N:M.
    """
    side = _side(block)
    if problem.n_m is not None:
        raise TopoError("blocks and N:M exclude each other: a block is kept whole")
    plan = _Plan(problem.wiring, side)
    if not any(area > 1 for area in plan.areas.values()):
        raise TopoError(f"no layer of this network is made of blocks of {side} channels")
    budgets = _blocks(problem, plan, problem.split(rule), exact=problem.budgets is not None)
    fan_in = {name: -(-problem.fan_in(name) // plan.sides[name][1]) for name in problem.names}
    small = Problem(
        plan.wiring,
        budgets=budgets,
        terms=problem.terms,
        min_fan_in=fan_in,
        dense=problem.dense,
        whole_problem=problem,
    )

    def expand(found: Balanced) -> Balanced:
        masks = MaskSet({name: plan.expand(name, found.masks[name]) for name in found.masks})
        partial = [name for name in problem.names if min(plan.sides[name]) == 1 < side]
        note = f"blocks of {side} x {side}; layers at a side that {side} does not divide have thinner ones: "
        notes = (*found.notes, note + ", ".join(partial)) if partial else found.notes
        return replace(found, masks=masks, problem=problem, notes=notes)

    return small, expand


def _side(block: str | int) -> int:
    sides = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", str(block).strip())
    if not sides or int(sides[1]) < 1 or (sides[2] and int(sides[2]) != int(sides[1])):
        raise TopoError(f"block is '{block}'; blocks are square, written 4 or 4x4")
    return int(sides[1])


def _blocks(problem: Problem, plan: _Plan, budgets: Mapping[str, int], *, exact: bool) -> dict[str, int]:
    """Blocks of each layer: as near to the budgets as can be, with exactly the same total."""
    found = {}
    for name, budget in budgets.items():
        found[name], left = divmod(budget, plan.areas[name])
        if left and exact:
            raise TopoError(
                f"'{name}' has a budget of {budget}; with these blocks it is a multiple of {plan.areas[name]}"
            )
    missing = sum(budgets.values()) - sum(found[name] * plan.areas[name] for name in found)
    for area in sorted(set(plan.areas.values()), reverse=True):
        names = [name for name in found if plan.areas[name] == area and name not in problem.whole]
        names.sort(key=lambda name: found[name] * plan.areas[name] - budgets[name])
        while missing >= area:
            room = [name for name in names if found[name] * area < problem.capacity[name]]
            if not room:
                break
            for name in room[: missing // area]:
                found[name] += 1
                missing -= area
    if missing:
        total = sum(budgets.values())
        near = total - missing or min(area for name, area in plan.areas.items() if name not in problem.whole)
        told = f"the budget is {problem.told(total)}, no whole number of blocks"
        raise TopoError(f"{told}; {problem.told(near)} would be")
    if problem.macs is not None:
        spent = sum(problem.costs[name] * found[name] * plan.areas[name] for name in found)
        if spent > problem.macs:
            raise TopoError(f"whole blocks take {2 * spent} FLOPs; the limit is {2 * problem.macs:.0f}")
    return found


class _Plan:
    """Which tensors are merged, and the wiring of blocks. sides[name]: (outputs, inputs) a block. areas: weights."""

    def __init__(self, wiring: Wiring, side: int) -> None:
        self.side, self.old = side, wiring
        self.starts = starts = [int(wiring.inputs.min()), *(step.start for step in wiring.steps)]
        self.merged = self._merged(wiring)
        number, following = np.full(wiring.n_units + 2, NOTHING, np.int64), 0
        number[CONSTANT] = CONSTANT
        for tensor, size in enumerate(wiring.groups.sizes):
            units = wiring.inputs if tensor == 0 else np.arange(starts[tensor], starts[tensor] + size)
            step = side if self.merged[tensor] else 1
            number[units] = following + np.arange(size) // step
            following += size // step
        self.sides: dict[str, tuple[int, int]] = {}
        self.areas: dict[str, int] = {}
        steps: list[Layer | Join] = []
        for index, old in enumerate(wiring.steps):
            out = side if self.merged[index + 1] else 1
            start = int(number[old.start])
            if isinstance(old, Join):
                operands = tuple(number[operand][::out] for operand in old.operands)
                steps.append(Join(old.kind, operands, start, old.width))
                continue
            depthwise = self._depthwise(old)
            into = side if self._whole(old.reads) else 1
            shape = (old.shape[0] // out, old.shape[1] if depthwise else old.shape[1] // into, *old.shape[2:])
            groups = old.groups // into if depthwise else old.groups
            reads = number[old.reads][::into]
            steps.append(replace(old, shape=shape, reads=reads, start=start, groups=groups, rows=None, columns=None))
            self.sides[old.name] = (out, 1 if depthwise else into)
            self.areas[old.name] = out if depthwise else out * into
        outputs = number[wiring.outputs][:: side if self._whole(wiring.outputs) else 1]
        self.wiring = Wiring(np.unique(number[wiring.inputs]), tuple(steps), outputs)

    @staticmethod
    def _depthwise(layer: Layer) -> bool:
        return layer.groups > 1 and layer.shape[1] == 1

    def _tensors(self, units: np.ndarray) -> list[int]:
        return [tensor for tensor, _, _ in self.old.groups.parts(units)]

    def _whole(self, units: np.ndarray) -> bool:
        return all(self.merged[tensor] for tensor in self._tensors(units))

    def _merged(self, wiring: Wiring) -> list[bool]:
        """Tensors whose units go in whole blocks through every layer and join that they meet."""
        side = self.side
        self.merged = merged = [size % side == 0 for size in wiring.groups.sizes]
        references: list[tuple[list[np.ndarray], list[int], bool]] = [([wiring.outputs], [], True)]
        for index, step in enumerate(wiring.steps):
            if isinstance(step, Join):
                references.append((list(step.operands), [index + 1], step.width == 1))
            elif self._depthwise(step):
                references.append(([step.reads], [index + 1], step.groups == step.outputs))
            else:
                fits = step.shape[1] % side == 0 or step.groups == 1
                references.append(([step.reads], [], fits))
                if step.groups > 1:
                    references.append(([], [index + 1], step.shape[0] // step.groups % side == 0))
        while True:
            before = list(merged)
            for arrays, made, fits in references:
                tensors = [tensor for array in arrays for tensor in self._tensors(array)] + made
                if not (fits and all(merged[t] for t in tensors) and all(self._in_step(array) for array in arrays)):
                    for tensor in tensors:
                        merged[tensor] = False
            if merged == before:
                return merged

    def _in_step(self, units: np.ndarray) -> bool:
        """Whether an array names whole blocks: b consecutive units of one tensor from a multiple of b on, or none."""
        if len(units) % self.side:
            return False
        blocks = units.reshape(-1, self.side)
        nobody = np.asarray(blocks < 0)
        if nobody.any():
            return False
        first = np.zeros(self.old.n_units, bool)
        for start, size in zip(self.starts, self.old.groups.sizes):
            first[start : start + size : self.side] = True
        return bool(first[blocks[:, 0]].all() and (np.diff(blocks, axis=1) == 1).all())

    def expand(self, name: str, mask: np.ndarray) -> np.ndarray:
        """The mask of a layer of blocks as the mask of the layer."""
        out, into = self.sides[name]
        return np.repeat(np.repeat(mask, out, axis=0), into, axis=1)
