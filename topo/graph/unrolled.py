"""The unrolled view: units are the places of feature maps, and nothing is built but maps.

Reach is decided by booleans, counts are floats with a power of two for each unit and tensor, and exact counts are put
together from residues modulo primes below 2**31 (the Chinese remainder theorem), as many as the floating count says.
Window members of a pool are added, as autograd of ones does with sum pools; norms, activations and biases are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from topo.errors import WiringError
from topo.graph.graph import Block, WiredGraph, dense_rows
from topo.graph.memo import shared
from topo.masks import BitRows
from topo.wiring import CONSTANT
from topo.wiring.maps import MapLayer, Maps

_NO_MAPS = (
    "the unrolled view needs the sizes of feature maps, which this wiring does not know: give the model, by name, as "
    "file.py:factory or to topo.trace (a saved wiring has none)"
)


def maps_of(graph: WiredGraph) -> Maps:
    """The places behind the units of a graph; WiringError where they are not known."""
    own = graph.own or graph.wiring
    flat = Maps.of_flat(graph.wiring.inputs, graph.wiring.steps, graph.wiring.outputs)
    if flat is not None:
        return flat
    if own.maps is None:
        raise WiringError(_NO_MAPS)
    return own.maps()


Edges = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # from, to, paths, made by


@dataclass(frozen=True, eq=False)
class MapNumbers:
    """A float64 for each unit, mantissa * 2**exponent. unit -1 and -2 are 0."""

    mantissa: np.ndarray
    exponent: np.ndarray

    @classmethod
    def zeros(cls, n: int) -> MapNumbers:
        return cls(np.zeros(n + 2), np.zeros(n + 2, np.int32))

    def take(self, units: np.ndarray) -> tuple[np.ndarray, int]:
        """The numbers of units as values * 2**exponent, one for all."""
        mantissa, exponent = self.mantissa[units], self.exponent[units]
        some = mantissa != 0
        if not some.any():
            return mantissa, 0
        top = int(exponent[some].max())
        if (exponent[some] != top).any():
            mantissa = np.ldexp(mantissa, np.maximum(exponent - top, -2000))
        return mantissa, top

    def add(self, units: np.ndarray, values: np.ndarray, exponent: int) -> None:
        """Add values * 2**exponent at units, of which one may stand several times; below 0 is none."""
        units, values = units.reshape(-1), values.reshape(-1)
        units, values = units[units >= 0], values[units >= 0]
        if not len(units):
            return
        low, high = int(units.min()), int(units.max()) + 1
        sums = np.bincount(units - low, values, high - low)
        here = slice(low, high)
        before, at = self.mantissa[here], self.exponent[here]
        top = np.where(before == 0, exponent, np.where(sums == 0, at, np.maximum(at, exponent)))
        total = np.ldexp(before, np.maximum(at - top, -2000)) + np.ldexp(sums, np.maximum(exponent - top, -2000))
        more = math.frexp(float(total.max()))[1] if total.any() else 0
        if abs(more) > 400:
            total, top = np.ldexp(total, -more), top + more
        self.mantissa[here], self.exponent[here] = total, top


@dataclass(frozen=True, eq=False)
class Unrolled:
    """A mask set on maps. rows: the bit rows of each parameter, dense where it has no mask."""

    maps: Maps
    rows: dict[str, BitRows]

    def words(self, step: MapLayer) -> np.ndarray:
        """Bit rows of a layer."""
        return self.rows[step.name].words

    # -- reach

    @cached_property
    def live(self) -> tuple[np.ndarray, np.ndarray]:
        """bool (units + 2,) each: what an input or a constant reaches, and what reaches an output."""
        from topo.kernels import maps as kernels

        maps, n = self.maps, self.maps.n_units
        ahead, behind = np.zeros(n + 2, np.bool_), np.zeros(n + 2, np.bool_)
        ahead[CONSTANT] = ahead[maps.inputs] = behind[maps.outputs] = True
        for step in maps.steps:
            if isinstance(step, MapLayer):
                made = np.empty((step.shape[0], -(-step.positions // 64)), np.uint64)
                kernels.pull_live(self.words(step), step.groups, step.columns, _packed(ahead[step.meets]), made)
                ahead[step.start : step.stop] = _unpacked(made, step.positions).reshape(-1)
            elif step.kind == "add":
                for operand in step.operands:
                    ahead[step.start : step.stop] |= ahead[operand]
            else:
                both = np.logical_and.reduce([ahead[operand] for operand in step.operands])
                ahead[step.start : step.stop] = both.reshape(-1, step.width).any(axis=1)
        for step in reversed(maps.steps):
            given = behind[step.start : step.stop]
            if isinstance(step, MapLayer):
                wanted = np.empty((len(step.meets), -(-step.positions // 64)), np.uint64)
                of_rows = _packed(given.reshape(step.shape[0], -1))
                kernels.push_live(self.words(step), step.groups, step.columns, of_rows, wanted)
                behind[step.meets[_unpacked(wanted, step.positions)]] = True
            else:
                given = np.repeat(given, step.width)
                for number, operand in enumerate(step.operands):
                    leads = given
                    if step.kind != "add":
                        others = [ahead[other] for at, other in enumerate(step.operands) if at != number]
                        leads = given & np.logical_and.reduce(others)
                    behind[operand[leads]] = True
            behind[CONSTANT:] = False
        return ahead, behind

    @cached_property
    def effective(self) -> dict[str, np.ndarray]:
        """Parameter -> bit rows of its effective weights: those with a place where both ends are live."""
        from topo.kernels import maps as kernels

        ahead, behind = self.live
        found = {name: np.zeros_like(rows.words) for name, rows in self.rows.items()}
        for step in self.layers:
            here = np.empty_like(found[step.name])
            of_rows = _packed(behind[step.start : step.stop].reshape(step.shape[0], -1))
            given = _packed(ahead[step.meets])
            kernels.meeting(self.words(step), step.groups, step.columns, given, of_rows, here)
            found[step.name] |= here
        return found

    @property
    def layers(self) -> Iterator[MapLayer]:
        """The layers in running order."""
        return (step for step in self.maps.steps if isinstance(step, MapLayer))

    # -- counts

    @cached_property
    def forward(self) -> MapNumbers:
        """Paths from the inputs to each unit."""
        from topo.kernels import maps as kernels

        counts, ahead = MapNumbers.zeros(self.maps.n_units), self.live[0]
        counts.mantissa[self.maps.inputs] = 1.0
        for step in self.maps.steps:
            made = np.arange(step.start, step.stop)
            if isinstance(step, MapLayer):
                given, exponent = counts.take(step.meets)
                found = np.empty((step.shape[0], step.positions))
                kernels.pull(self.words(step), step.groups, step.columns, given, found)
                counts.add(made, found, exponent)
            elif step.kind == "add":
                given, exponent = counts.take(np.stack(step.operands))
                counts.add(made, given.sum(axis=0), exponent)
            elif step.kind == "gate":
                given, exponent = counts.take(step.operands[0])
                counts.add(made, np.where(ahead[made], given, 0.0), exponent)
        return counts

    @cached_property
    def backward(self) -> MapNumbers:
        """Paths from each unit to the outputs."""
        from topo.kernels import maps as kernels

        counts, ahead = MapNumbers.zeros(self.maps.n_units), self.live[0]
        counts.mantissa[self.maps.outputs] = 1.0
        for step in reversed(self.maps.steps):
            made = np.arange(step.start, step.stop)
            given, exponent = counts.take(made)
            if isinstance(step, MapLayer):
                found = np.empty((len(step.meets), step.positions))
                of_rows = given.reshape(step.shape[0], -1)
                kernels.push(self.words(step), step.groups, step.columns, of_rows, found)
                counts.add(step.meets, found, exponent)
            elif step.kind == "add":
                for operand in step.operands:
                    counts.add(operand, given, exponent)
            elif step.kind == "gate":
                counts.add(step.operands[0], np.where(ahead[made], given, 0.0), exponent)
        return counts

    @cached_property
    def total(self) -> tuple[float, int]:
        """All paths, mantissa and exponent; (0.0, 0) if there is none."""
        values, exponent = self.forward.take(self.maps.outputs)
        mantissa, more = math.frexp(float(values.sum()))
        return (mantissa, exponent + more) if mantissa else (0.0, 0)

    def edge_paths(self, step: MapLayer) -> tuple[np.ndarray, int]:
        """Paths through each kept weight of a use of a layer, row by row: values * 2**exponent."""
        from topo.kernels import maps as kernels

        given, one = self.forward.take(step.meets)
        taken, other = self.backward.take(np.arange(step.start, step.stop))
        sums = np.empty(self.rows[step.name].kept())
        of_rows = taken.reshape(step.shape[0], -1)
        kernels.edge_sums(self.words(step), step.groups, step.columns, given, of_rows, sums)
        return sums, one + other

    @cached_property
    def exact(self) -> int:
        """All paths, an exact integer."""
        mantissa, exponent = self.total
        if not mantissa:
            return 0
        found, modulus = 0, 1
        for prime in _primes():
            found += modulus * ((self._residue(prime) - found) * pow(modulus, -1, prime) % prime)
            modulus *= prime
            if modulus.bit_length() > exponent + 2:
                return found
        raise AssertionError("there are always more primes")

    def _residue(self, prime: int) -> int:
        from topo.kernels import maps as kernels

        counts, ahead = np.zeros(self.maps.n_units + 2, np.uint64), self.live[0]
        counts[self.maps.inputs] = 1
        for step in self.maps.steps:
            made = slice(step.start, step.stop)
            if isinstance(step, MapLayer):
                found = np.empty((step.shape[0], step.positions), np.uint64)
                kernels.pull(self.words(step), step.groups, step.columns, counts[step.meets], found)
                counts[made] = found.reshape(-1) % np.uint64(prime)
            elif step.kind == "add":
                for operand in step.operands:
                    counts[made] += counts[operand]
                counts[made] %= np.uint64(prime)
            elif step.kind == "gate":
                counts[made] = np.where(ahead[made], counts[step.operands[0]], np.uint64(0))
        return int(sum(counts[self.maps.outputs].tolist()) % prime)

    @cached_property
    def read(self) -> np.ndarray:
        """bool (units,): those that a layer reads, through pools, or that the network gives: its tensors' places."""
        found = np.zeros(self.maps.n_units + 2, np.bool_)
        found[self.maps.outputs] = True
        for index in range(len(self.maps.steps) - 1, -1, -1):
            step = self.maps.steps[index]
            if isinstance(step, MapLayer):
                found[step.reads] = True
            elif index in self.maps.pools:
                here = found[step.start : step.stop].copy()
                for operand in step.operands:
                    found[operand[here]] = True
                found[step.start : step.stop] = False
        return found[: self.maps.n_units]


def _packed(flags: np.ndarray) -> np.ndarray:
    """bool (rows, places) -> uint64 (rows, words)."""
    found = np.zeros((len(flags), 8 * -(-flags.shape[1] // 64)), np.uint8)
    bits = np.packbits(flags, axis=1, bitorder="little")
    found[:, : bits.shape[1]] = bits
    return found.view(np.uint64)


def _unpacked(words: np.ndarray, places: int) -> np.ndarray:
    return np.unpackbits(words.view(np.uint8), axis=1, count=places, bitorder="little").view(np.bool_)


def _primes() -> Iterator[int]:
    """Primes below 2**31, falling."""
    for number in range((1 << 31) - 1, 2, -2):
        if all(number % divisor for divisor in range(3, math.isqrt(number) + 1, 2)):
            yield number


@shared
def unrolled(graph: WiredGraph) -> Unrolled:
    """The masks of a graph on the places of its maps; WiringError where these are not known, or differ in shape."""
    maps, rows = maps_of(graph), {}
    blocks: dict[str, Block] = {block.name: block for block in graph.blocks}
    for step in maps.steps:
        if isinstance(step, MapLayer) and step.name not in rows:
            block = blocks.get(step.name)
            found = block.rows if block is not None else dense_rows(step.shape)
            if found.shape != step.shape:
                raise WiringError(f"layer '{step.name}' has a mask of shape {found.shape}; its maps take {step.shape}")
            rows[step.name] = found
    return Unrolled(maps, rows)


def effective_reads(found: Unrolled, step: MapLayer) -> int:
    """Distinct places that one use of a layer reads with a weight on a path."""
    from topo.kernels import maps as kernels

    ahead, behind = found.live
    wanted = np.empty((len(step.meets), -(-step.positions // 64)), np.uint64)
    of_rows = _packed(behind[step.start : step.stop].reshape(step.shape[0], -1))
    kernels.push_live(found.words(step), step.groups, step.columns, of_rows, wanted)
    met = step.meets[_unpacked(wanted, step.positions)]
    return len(np.unique(met[(met >= 0) & ahead[met]]))


# -- the edges, for numbers of the whole graph


@dataclass(frozen=True, eq=False)
class MapEdges:
    """What is needed to list edges. members: units that stand for what a pool holds, ptr and list; a unit of no
    pool is its own. number: int32 (units,), the place in the graph of each unit that is one, else -1."""

    ptr: np.ndarray
    members: np.ndarray
    number: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """int64 (units + 2,): members of each unit that are units of the graph; 0 of nothing and constants."""
        sums = np.concatenate([[0], np.cumsum(self.number[self.members] >= 0)])
        return np.append(sums[self.ptr[1:]] - sums[self.ptr[:-1]], [0, 0])


def map_edges(found: Unrolled) -> MapEdges:
    """Sums are one with what leads only into them, as in the channel view; pools are their members, but for outputs.

    The members of a unit are numbered by the units that stand for them.
    """
    maps, n = found.maps, found.maps.n_units
    readers = np.zeros(n, np.int64)
    stands = np.full(n, -1, np.int64)
    stands[maps.inputs] = maps.inputs
    for step in maps.steps:
        stands[step.start : step.stop] = np.arange(step.start, step.stop)
        for operand in step.operands:
            readers += np.bincount(operand[operand >= 0], minlength=n)
    readers[maps.outputs] += 2
    readers[maps.inputs] += 2  # an input and an output are units of their own
    pooled = [step for index, step in enumerate(maps.steps) if index in maps.pools]
    inner = np.zeros(n, np.bool_)
    for step in pooled:
        inner[step.start : step.stop] = True
    inner[maps.outputs] = False
    for index in range(len(maps.steps) - 1, -1, -1):
        step = maps.steps[index]
        if isinstance(step, MapLayer) or step.kind != "add" or index in maps.pools:
            continue
        made = np.arange(step.start, step.stop)
        for operand in step.operands:
            here = (operand >= 0) & (readers[operand] == 1) & ~inner[operand]
            stands[operand[here]] = stands[made[here]]
    own = np.flatnonzero((stands == np.arange(n)) & ~inner)
    number = np.full(n, -1, np.int32)
    number[own] = np.arange(len(own))
    number = np.where((stands >= 0) & ~inner, number[stands], -1).astype(np.int32)
    sizes, lists = np.ones(n, np.int64), [np.arange(n, dtype=np.int32)]
    owners = [np.arange(n, dtype=np.int32)]
    if pooled:
        plain = np.flatnonzero(~inner).astype(np.int32)
        owners, lists = [plain], [plain]
        known_ptr, known = np.zeros(n + 1, np.int64), np.zeros(0, np.int32)
        for step in pooled:
            made = np.arange(step.start, step.stop, dtype=np.int32)
            kept = inner[made]
            for operand in step.operands:
                here = kept & (operand >= 0)
                owner, member = made[here], operand[here]
                deep = inner[member]
                owners.append(owner[~deep])
                lists.append(member[~deep])
                if deep.any():
                    counts = known_ptr[member[deep] + 1] - known_ptr[member[deep]]
                    owners.append(np.repeat(owner[deep], counts))
                    lists.append(known[_ranges(known_ptr[member[deep]], counts)])
            all_owners, all_lists = np.concatenate(owners), np.concatenate(lists)
            order = np.argsort(all_owners, kind="stable")
            known = all_lists[order]
            known_ptr = np.concatenate([[0], np.cumsum(np.bincount(all_owners, minlength=n))])
            owners, lists = [all_owners[order]], [known]
        sizes = np.diff(known_ptr)
    return MapEdges(np.concatenate([[0], np.cumsum(sizes)]), np.concatenate(lists), number)


def _ranges(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """first[0], ..., first[0] + counts[0] - 1, first[1], ..."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first - (ends - counts), counts)


def joined_by_columns(found: Unrolled, step: MapLayer, members: np.ndarray) -> np.ndarray:
    """int64 (groups, columns): how many pairs each weight of a group joins, over all places. members: see `sizes`."""
    return members[step.meets].sum(axis=1).reshape(step.groups, step.columns)


def count_edges(found: Unrolled, listed: MapEdges) -> int:
    """How many edges a list would have (those that two pools or taps share count twice), before it is made."""
    members, total = listed.sizes, 0
    for index, step in enumerate(found.maps.steps):
        if isinstance(step, MapLayer):
            kept = found.rows[step.name].unpack().reshape(step.groups, -1, step.columns)
            by_column = kept.sum(axis=1, dtype=np.int64)
            total += int((by_column * joined_by_columns(found, step, members)).sum())
        elif index not in found.maps.pools or (listed.number[step.start : step.stop] >= 0).any():
            total += sum(int(members[operand].sum()) for operand in step.operands)
    return total


def list_edges(found: Unrolled, listed: MapEdges, first: np.ndarray) -> Iterator[Edges]:
    """(from, to, paths, made by) of each step, places in the graph. first: the number of each step's first maker."""
    from topo.kernels import maps as kernels

    ahead = found.live[0]
    for step, number in zip(found.maps.steps, first):
        if isinstance(step, MapLayer):
            kept = found.rows[step.name].unpack().reshape(step.groups, -1, step.columns).sum(axis=1, dtype=np.int64)
            joined = (step.meets >= 0).sum(axis=1).reshape(step.groups, step.columns)
            size = int((kept * joined).sum())
            begin, end = np.empty(size, np.int32), np.empty(size, np.int32)
            kernels.edges(found.words(step), step.groups, step.columns, step.meets, step.start, begin, end)
            group = (end - np.int32(step.start)) // np.int32(step.positions * (step.shape[0] // step.groups))
            yield _listed(listed, begin, end, np.ones(size), np.int32(number) + group)
            continue
        made = (step.start + np.arange(len(step.operands[0])) // step.width).astype(np.int32)
        for place, operand in enumerate(step.operands):
            fed = (operand >= 0) & (listed.number[made] >= 0)
            follows = step.kind == "add" or (step.kind == "gate" and place == 0)
            many = np.where(ahead[made[fed]], float(follows), 0.0)
            yield _listed(listed, operand[fed], made[fed], many, np.full(len(many), number, np.int32))


def _listed(listed: MapEdges, begin: np.ndarray, end: np.ndarray, many: np.ndarray, made_by: np.ndarray) -> Edges:
    """Edges between units of the graph: from each member of what they leave; none within one unit."""
    counts = listed.ptr[begin + 1] - listed.ptr[begin]
    if (counts != 1).any():
        places = _ranges(listed.ptr[begin], counts)
        begin = listed.members[places]
        end, many, made_by = np.repeat(end, counts), np.repeat(many, counts), np.repeat(made_by, counts)
    begin, end = listed.number[begin], listed.number[end]
    real = (begin >= 0) & (begin != end)
    return begin[real], end[real], many[real], made_by[real]
