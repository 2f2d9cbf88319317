"""Interchangeable units: what a mask may decide, read off the wiring.

A residual addition ties unit k of all its branches; a depthwise convolution ties its input k to its output k. Such a
set of tied units is a *tie*: keeping some of them alive without the others is waste. Ties that run through the same
tensors form a *pool* (the identity class of a residual stage, the hidden units of a layer): their units are
interchangeable, so that a balanced mask only chooses how many of them are active.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from topo.wiring import Join, Layer, Wiring
from topo.wiring.tied_units import tied_units


class InterchangeableUnits:
    """tie: int32 (units + 2,), the tie of each unit, -1 for what is none. pool: int32 (ties,).

    members[s]: the ties of pool s. terminal[s]: it holds an input or an output of the network.
    """

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        first = tied_units(wiring, repeated=False)
        self.tie = np.full(wiring.n_units + 2, -1, np.int32)
        self.tie[:-2] = np.unique(first, return_inverse=True)[1]
        count = int(self.tie.max()) + 1
        self.pool = _pools(wiring, self.tie, count)
        order = np.argsort(self.pool, kind="stable")
        self.members = np.split(order, np.flatnonzero(np.diff(self.pool[order])) + 1)
        self.terminal = np.zeros(len(self.members), bool)
        for units in (wiring.inputs, wiring.outputs, *_sources(wiring)):
            self.terminal[self.pool[self.tie[units]]] = True

    @property
    def sizes(self) -> np.ndarray:
        return np.array([len(ties) for ties in self.members])

    def of(self, units: np.ndarray) -> np.ndarray:
        """Pool of each unit; -1 where there is no unit."""
        ties = self.tie[units]
        return np.where(ties >= 0, self.pool[ties], -1)

    def places(self, units: np.ndarray) -> np.ndarray:
        """float64 (pools,): how many of `units` one tie of each pool stands for, on average."""
        pools = self.of(units)
        return np.bincount(pools[pools >= 0], minlength=len(self.members)) / self.sizes

    @cached_property
    def needs(self) -> dict[int, tuple[bool, np.ndarray]]:
        """Step -> (its inputs must be covered, bool (out,): outputs that must be), for every layer.

        Shortcut layers need not read all they could. An output need not be made where it only goes into an addition
        that another branch feeds: by identity, or by an earlier layer that is not a shortcut.
        """
        wiring = self.wiring
        readers, maker = np.zeros(wiring.n_units, np.int64), np.full(wiring.n_units, -1, np.int64)
        for index, step in enumerate(wiring.steps):
            maker[step.start : step.stop] = index
            for read in step.operands:
                readers[np.unique(read[read >= 0])] += 1
        readers[np.unique(wiring.outputs)] += 1
        layer_made = np.zeros(wiring.n_units, bool)
        for layer in wiring.layers:
            layer_made[layer.start : layer.stop] = True
        need = np.ones(wiring.n_units, bool)
        for step in wiring.steps:
            if not (isinstance(step, Join) and step.kind == "add"):
                continue
            given = np.stack([operand >= 0 for operand in step.operands])
            units = np.stack(step.operands)
            branch = given & layer_made[units] & (readers[units] == 1)
            short = branch & np.isin(maker[units], list(wiring.shortcuts))
            rank = np.where(~given, 3, np.where(short, 2, np.where(branch, 1, 0)))
            for k in range(len(units)):
                first = np.argmin(rank, axis=0) == k  # the one operand of each entry that carries it
                spared = units[k][branch[k] & ~first]
                need[spared] = False
        return {
            index: (index not in wiring.shortcuts, need[step.start : step.stop])
            for index, step in enumerate(wiring.steps)
            if isinstance(step, Layer)
        }

    def turns(self, rng: np.random.Generator) -> np.ndarray:
        """int64 (ties,): a random order in each pool, evenly over the groups of grouped convolutions."""
        turns = np.zeros(len(self.pool), np.int64)
        for ties in self.members:
            keys = self._strata[ties]
            drawn = rng.permutation(len(ties))
            drawn = drawn[np.argsort(keys[drawn], kind="stable")]
            starts = np.searchsorted(keys[drawn], keys[drawn])
            order = np.argsort(np.arange(len(ties)) - starts, kind="stable")  # the first of all groups, then second
            turns[ties[drawn[order]]] = np.arange(len(ties))
        return turns

    def first(self, number: np.ndarray, turns: np.ndarray) -> np.ndarray:
        """bool (units + 2,): units of the first number[s] ties of each pool; what is not a unit is none."""
        chosen = turns < number[self.pool]
        flags = np.zeros(len(self.tie), bool)
        known = self.tie >= 0
        flags[known] = chosen[self.tie[known]]
        return flags

    @cached_property
    def _strata(self) -> np.ndarray:
        """Tie -> group of a grouped convolution that it belongs to; 0 without one."""
        strata = np.zeros(len(self.pool), np.int64)
        for layer in self.wiring.layers:
            if 1 < layer.groups < len(layer.reads):
                for units in (layer.reads, np.arange(layer.start, layer.stop)):
                    known = units >= 0
                    group = np.arange(len(units)) * layer.groups // len(units)
                    strata[self.tie[units[known]]] = group[known]
        return strata


def _pools(wiring: Wiring, tie: np.ndarray, count: int) -> np.ndarray:
    """Ties that run through the same tensors get the same number: each tensor splits the classes found so far."""
    label = np.zeros(count, np.int64)
    tensors = [wiring.inputs, *(np.arange(step.start, step.stop) for step in wiring.steps)]
    following = 1
    for units in tensors:
        mine = np.unique(tie[units])
        classes, position = np.unique(label[mine], return_inverse=True)
        label[mine] = following + position
        following += len(classes)
    # in the order in which pools first appear
    _, first, numbers = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers].astype(np.int32)


def _sources(wiring: Wiring) -> list[np.ndarray]:
    return [np.arange(layer.start, layer.stop) for layer in wiring.layers if layer.kind == "embedding"]
