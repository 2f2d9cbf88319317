"""Units that live and die together, and the streams they form: what a mask may decide, read off the wiring.

A residual addition ties unit k of all its branches; a depthwise convolution ties its input k to its output k. Units
that are tied form a *strand*: keeping some of them alive without the others is waste. Strands that run through the
same tensors form a *stream* (the identity class of a residual stage, the hidden units of a layer): they are
exchangeable, so that a balanced mask only chooses how many of them are active.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from topo.wiring import Join, Layer, Wiring


class Streams:
    """strand: int32 (units + 2,), the strand of each unit, -1 for what is none. stream: int32 (strands,).

    members[s]: the strands of stream s. terminal[s]: it holds an input or an output of the network.
    """

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.strand = _strands(wiring)
        count = int(self.strand.max()) + 1
        self.stream = _by_tensors(wiring, self.strand, count)
        order = np.argsort(self.stream, kind="stable")
        self.members = np.split(order, np.flatnonzero(np.diff(self.stream[order])) + 1)
        self.terminal = np.zeros(len(self.members), bool)
        for units in (wiring.inputs, wiring.outputs, *_sources(wiring)):
            self.terminal[self.stream[self.strand[units]]] = True

    @property
    def sizes(self) -> np.ndarray:
        return np.array([len(strands) for strands in self.members])

    def of(self, units: np.ndarray) -> np.ndarray:
        """Stream of each unit; -1 where there is no unit."""
        strands = self.strand[units]
        return np.where(strands >= 0, self.stream[strands], -1)

    def places(self, units: np.ndarray) -> np.ndarray:
        """float64 (streams,): how many of `units` one strand of each stream stands for, on average."""
        streams = self.of(units)
        return np.bincount(streams[streams >= 0], minlength=len(self.members)) / self.sizes

    @cached_property
    def needs(self) -> dict[int, tuple[bool, np.ndarray]]:
        """Step -> (its inputs must be covered, bool (out,): outputs that must be), for every layer.

        Shortcut layers need not read all they could. An output need not be made where it only goes into an addition
        that another branch feeds: by identity, or by an earlier layer that is no shortcut.
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
        """int64 (strands,): a random order in each stream, evenly over the groups of grouped convolutions."""
        turns = np.zeros(len(self.stream), np.int64)
        for strands in self.members:
            keys = self._strata[strands]
            drawn = rng.permutation(len(strands))
            drawn = drawn[np.argsort(keys[drawn], kind="stable")]
            starts = np.searchsorted(keys[drawn], keys[drawn])
            order = np.argsort(np.arange(len(strands)) - starts, kind="stable")  # the first of all groups, then second
            turns[strands[drawn[order]]] = np.arange(len(strands))
        return turns

    def first(self, many: np.ndarray, turns: np.ndarray) -> np.ndarray:
        """bool (units + 2,): units of the first many[s] strands of each stream; what is no unit is none."""
        chosen = turns < many[self.stream]
        flags = np.zeros(len(self.strand), bool)
        known = self.strand >= 0
        flags[known] = chosen[self.strand[known]]
        return flags

    @cached_property
    def _strata(self) -> np.ndarray:
        """Strand -> group of a grouped convolution that it belongs to; 0 without one."""
        strata = np.zeros(len(self.stream), np.int64)
        for layer in self.wiring.layers:
            if 1 < layer.groups < len(layer.reads):
                for units in (layer.reads, np.arange(layer.start, layer.stop)):
                    known = units >= 0
                    group = np.arange(len(units)) * layer.groups // len(units)
                    strata[self.strand[units[known]]] = group[known]
        return strata


def _strands(wiring: Wiring) -> np.ndarray:
    """Connected components of the ties between units."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends: list[tuple[np.ndarray, np.ndarray]] = []
    uses: dict[str, Layer] = {}
    for step in wiring.steps:
        made = np.arange(step.start, step.stop)
        if isinstance(step, Layer):
            if step.groups > 1 and step.shape[1] == 1:
                ends.append((np.repeat(step.reads, step.shape[0] // step.groups), made))
            if step.name in uses:  # one mask for both uses
                ends += [
                    (uses[step.name].reads, step.reads),
                    (np.arange(uses[step.name].start, uses[step.name].stop), made),
                ]
            uses.setdefault(step.name, step)
        elif step.kind == "score":
            ends.append((step.operands[0], step.operands[1]))
        else:  # a gate whose operand repeats, a score for a whole head, ties nothing
            ends += [(operand, made) for operand in step.operands if len(np.unique(operand)) == len(operand)]
    first = np.concatenate([np.zeros(0, np.int64), *(a for a, _ in ends)])
    second = np.concatenate([np.zeros(0, np.int64), *(b for _, b in ends)])
    real = (first >= 0) & (second >= 0)
    n = wiring.n_units
    links = coo_matrix((np.ones(int(real.sum()), np.int8), (first[real], second[real])), shape=(n, n))
    strand = np.full(n + 2, -1, np.int32)
    strand[:n] = connected_components(links, directed=False)[1]
    return strand


def _by_tensors(wiring: Wiring, strand: np.ndarray, count: int) -> np.ndarray:
    """Strands that run through the same tensors get the same number: each tensor splits the classes found so far."""
    label = np.zeros(count, np.int64)
    tensors = [wiring.inputs, *(np.arange(step.start, step.stop) for step in wiring.steps)]
    following = 1
    for units in tensors:
        mine = np.unique(strand[units])
        classes, position = np.unique(label[mine], return_inverse=True)
        label[mine] = following + position
        following += len(classes)
    # in the order in which streams first appear
    _, first, numbers = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers].astype(np.int32)


def _sources(wiring: Wiring) -> list[np.ndarray]:
    return [np.arange(layer.start, layer.stop) for layer in wiring.layers if layer.kind == "embedding"]
