"""The unrolled view: units are the places of feature maps, and nothing is built but maps.

Reach is decided by booleans, counts are floats with a power of two for each tensor, and exact counts are put together
from residues modulo primes below 2**31 (the Chinese remainder theorem), as many as the floating count says.
What a layer reads is laid in strips where a weight meets one run of places; half full it is multiplied as matrices.
Window members of a pool are added, as autograd of ones does with sum pools; norms, activations and biases are left out.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from topo.errors import WiringError
from topo.graph.graph import Block, WiredGraph, dense_rows
from topo.graph.memo import shared
from topo.masks import BitRows
from topo.wiring import CONSTANT
from topo.wiring.maps import MapLayer, Maps, MapStep

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


_NONE = -(1 << 40)  # the exponent of a tensor of zeros: below every other
_SPARE = 8  # zeros behind the numbers, for units -1 and -2, and for vectors that reach over the end
_ONE = np.ones(1)  # the factor of every tensor
_FAR = 300  # numbers of a tensor are scaled where the largest is 2**300 away from 1


@dataclass(frozen=True, eq=False)
class MapNumbers:
    """A float64 for each unit, mantissa * 2**exponent, with an exponent for each tensor: see `Maps.tensors`."""

    maps: Maps
    mantissa: np.ndarray
    exponent: np.ndarray
    bound: np.ndarray

    @classmethod
    def ones(cls, maps: Maps, units: np.ndarray) -> MapNumbers:
        """1 at these units, 0 at others."""
        found = cls(maps, np.zeros(maps.n_units + _SPARE), *(np.full(len(maps.steps) + 1, n) for n in (_NONE, 0.0)))
        found.mantissa[units] = 1.0
        found.exponent[np.flatnonzero(np.bincount(maps.tensors[units]))] = 0
        return found

    def take(self, units: np.ndarray) -> tuple[np.ndarray, int]:
        """The numbers of units as values * 2**exponent, one for all; of -1 and -2, 0."""
        some = units >= 0
        exponents = np.where(some, self.exponent[self.maps.tensors[units]], _NONE)
        top = int(exponents.max(initial=_NONE))
        if top == _NONE:
            return np.zeros(units.shape), 0
        return np.ldexp(np.where(some, self.mantissa[units], 0.0), np.maximum(exponents - top, -2000)), top

    def common(self, tensors: np.ndarray) -> tuple[np.ndarray, int]:
        """Factors that bring these tensors to one exponent, and that; _NONE if all are 0. See `_factors`."""
        top = int(self.exponent[tensors].max(initial=_NONE))
        return self._factors(tensors, top, self.exponent[tensors] - top), top

    def receive(self, tensors: np.ndarray, exponent: int, bound: float) -> np.ndarray:
        """Factors for adding numbers up to 2**bound * 2**exponent to tensors; an exponent below it is raised to it."""
        for tensor in tensors[self.exponent[tensors] < exponent]:
            if self.exponent[tensor] == _NONE:  # there is nothing to scale
                self.exponent[tensor] = exponent
            else:
                self._scale(tensor, int(self.exponent[tensor]) - exponent)
        self.bound[tensors] = np.maximum(self.bound[tensors], bound) + 1
        return self._factors(tensors, exponent, exponent - self.exponent[tensors])

    def _factors(self, tensors: np.ndarray, exponent: int, more: np.ndarray) -> np.ndarray:
        """2**more (tensors of the network,), or one for all of them."""
        if not more.any() or exponent == _NONE:
            return _ONE
        factor = np.zeros(len(self.exponent))
        factor[tensors] = np.ldexp(1.0, np.maximum(more, -2000))
        return factor

    def settle(self, tensor: int, exponent: int, bound: float) -> None:
        """The exponent of a tensor that was made, of numbers up to 2**bound: they are scaled if far from 1.

        Numbers are looked at only where they could be.
        """
        self.exponent[tensor], self.bound[tensor] = exponent, bound
        if bound < _FAR and not exponent:
            return
        largest = float(self.mantissa[self.maps.segment(tensor)].max(initial=0.0))
        self.bound[tensor] = more = math.frexp(largest)[1]
        if not largest:
            self.exponent[tensor] = _NONE
        elif abs(more) > _FAR:
            self._scale(tensor, -more)

    def _scale(self, tensor: int, by: int) -> None:
        self.mantissa[self.maps.segment(tensor)] *= math.ldexp(1.0, max(by, -1074))
        self.exponent[tensor] -= by
        self.bound[tensor] += by


@dataclass(frozen=True, eq=False)
class Unrolled:
    """A mask set on maps. rows: the bit rows of each parameter, dense where it has no mask."""

    maps: Maps
    rows: dict[str, BitRows]
    _rooms: threading.local = field(default_factory=threading.local)

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

    def _strips(self, step: MapLayer, numbers: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """What a layer reads, strip after strip, and a few numbers more: copied, unless it stands so."""
        from topo.kernels import maps as kernels

        size = len(step.reads) * len(step.strips.cells)
        if step.whole >= 0 and factor is _ONE:
            return numbers[step.whole : step.whole + size + _SPARE]
        x = self._room(0, size + _SPARE)
        kernels.fill_strips(numbers, self.maps.tensors, factor, *step.laid, x[:size])
        x[size:] = 0.0
        return x

    def _lanes(self, step: MapLayer, given: np.ndarray) -> np.ndarray:
        """Numbers of the places that a layer makes, on the lanes of its runs."""
        from topo.kernels import maps as kernels

        width = -(-step.strips.length // 8) * 8
        if width == step.positions:
            return given.reshape(-1, width)
        b = self._room(1, step.shape[0] * width).reshape(-1, width)
        kernels.lay_lanes(given, step.strips.lanes, step.strips.row, b)
        return b

    def _room(self, number: int, size: int) -> np.ndarray:
        """The same memory for each layer of a pass, of a thread: new pages cost as much as the sums."""
        rooms = self._rooms.__dict__
        if len(rooms.get(str(number), ())) < size:
            rooms[str(number)] = np.empty(size)
        return rooms[str(number)][:size]

    def _weights(self, step: MapLayer) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
        """What kernels take of a layer's weights: bit rows, which are alive, where each reads, groups, their strips."""
        apart = step.shape[1] * len(step.strips.cells)
        return self.words(step), step.alive, step.at, step.groups, apart

    def _make(self, step: MapStep, numbers: np.ndarray, factor: np.ndarray) -> None:
        """Sums at the units that a step makes, of factor times what it reads."""
        from topo.kernels import maps as kernels

        made = numbers[step.start : step.stop]
        if isinstance(step, MapLayer):
            x, n = self._strips(step, numbers, factor), step.strips.length
            same = n == step.positions
            y = (made if same else self._room(1, step.shape[0] * n)).reshape(-1, n)
            if _is_dense(self.rows[step.name], step):
                _dense_pull(self.rows[step.name], step, x, y)
            else:
                kernels.pull(*self._weights(step), x, n, y)
            if not same:
                kernels.take_lanes(y, step.strips.lanes, step.strips.row, made)
        elif step.kind != "score":
            for operand in step.operands if step.kind == "add" else step.operands[:1]:
                kernels.add_units(numbers, self.maps.tensors, factor, operand, made)
            if step.kind == "gate":
                made[~self.live[0][step.start : step.stop]] = 0.0

    @cached_property
    def forward(self) -> MapNumbers:
        """Paths from the inputs to each unit."""
        counts = MapNumbers.ones(self.maps, self.maps.inputs)
        for number, step in enumerate(self.maps.steps, 1):
            sources = self.maps.sources[number]
            factor, top = counts.common(sources)
            if top != _NONE:
                self._make(step, counts.mantissa, factor)
                many = step.columns if isinstance(step, MapLayer) else len(step.operands)
                counts.settle(number, top, float(counts.bound[sources].max()) + math.log2(many))
        return counts

    @property
    def backward(self) -> MapNumbers:
        """Paths from each unit to the outputs."""
        return self._swept[0]

    def edge_paths(self, step: MapLayer) -> tuple[np.ndarray, int]:
        """Paths through each kept weight of a use of a layer, row by row: values * 2**exponent."""
        nowhere = np.zeros(self.rows[step.name].kept()), 0
        return self._swept[1].get(int(self.maps.tensors[step.start]), nowhere)

    @cached_property
    def _swept(self) -> tuple[MapNumbers, dict[int, tuple[np.ndarray, int]]]:
        """`backward`, and what `edge_paths` tells of each layer, by the number of what it makes."""
        from topo.kernels import maps as kernels

        maps, through = self.maps, {}
        counts = MapNumbers.ones(maps, maps.outputs)
        for number in range(len(maps.steps), 0, -1):
            step = maps.steps[number - 1]
            if counts.exponent[number] != _NONE:
                counts.settle(number, int(counts.exponent[number]), float(counts.bound[number]))
            if (top := int(counts.exponent[number])) == _NONE or not len(maps.sources[number]):
                continue
            many = step.shape[0] * len(step.taps) if isinstance(step, MapLayer) else len(step.operands)
            bound = float(counts.bound[number]) + math.log2(many)
            factor, given = counts.receive(maps.sources[number], top, bound), counts.mantissa[step.start : step.stop]
            if isinstance(step, MapLayer):
                sums, exponent = self._push(step, number, given, factor, counts.mantissa)
                through[number] = sums, exponent + top
                continue
            if step.kind == "gate":
                given = np.where(self.live[0][step.start : step.stop], given, 0.0)
            for operand in step.operands if step.kind == "add" else step.operands[:1]:
                kernels.add_to_units(given, maps.tensors, factor, operand, counts.mantissa)
        if counts.exponent[0] != _NONE:
            counts.settle(0, int(counts.exponent[0]), float(counts.bound[0]))
        return counts, through

    def _push(
        self, step: MapLayer, number: int, given: np.ndarray, factor: np.ndarray, numbers: np.ndarray
    ) -> tuple[np.ndarray, int]:
        """Add factor * what comes back through a layer to numbers. Paths of its weights, for given of exponent 0."""
        from topo.kernels import maps as kernels

        of_reads, exponent = self.forward.common(self.maps.sources[number])
        x, b = self._strips(step, self.forward.mantissa, of_reads), self._lanes(step, given)
        in_place = step.whole >= 0 and factor is _ONE
        z = numbers[step.whole : step.whole + len(x)] if in_place else self._room(2, len(x))
        if not in_place:
            z[:] = 0.0
        if _is_dense(self.rows[step.name], step):
            sums = _dense_push(self.rows[step.name], step, b, x[:-_SPARE], z[:-_SPARE])
        else:
            counts = np.bitwise_count(self.words(step)).sum(axis=1, dtype=np.int64)
            ends = np.cumsum(counts)
            sums = np.empty(int(ends[-1]))
            kernels.push(*self._weights(step), ends - counts, b, x, z, sums)
        if not in_place:
            kernels.add_strips(z[:-_SPARE], self.maps.tensors, factor, *step.laid, numbers)
        return sums, max(exponent, 0)

    @cached_property
    def total(self) -> tuple[float, int]:
        """All paths, mantissa and exponent; (0.0, 0) if there is none."""
        values, exponent = self.forward.take(self.maps.outputs)
        mantissa, more = math.frexp(float(values.sum()))
        return (mantissa, exponent + more) if mantissa else (0.0, 0)

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
        """All paths modulo a prime below 2**31; sums below 2**53 are exact in float64."""
        counts, factor = np.zeros(self.maps.n_units + _SPARE), _ONE
        counts[self.maps.inputs] = 1
        for step in self.maps.steps:
            self._make(step, counts, factor)
            made = counts[step.start : step.stop]
            made -= np.floor(made / prime) * prime
            made[made < 0] += prime
            made[made >= prime] -= prime
        return sum(map(int, counts[self.maps.outputs])) % prime

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


def _is_dense(rows: BitRows, step: MapLayer) -> bool:
    """Whether a layer is multiplied as matrices, one for each tap: half full, of wide groups and runs worth it."""
    return step.shape[1] >= 16 and step.strips.length >= 16 and 2 * rows.kept() > rows.size


def _taps(rows: BitRows, step: MapLayer) -> Iterator[tuple[slice, slice, int, np.ndarray, int]]:
    """(its outputs, its inputs, tap, matrix (out, in) of 0 and 1, where its runs begin) of each group and tap."""
    kept = rows.unpack().reshape(step.groups, -1, step.shape[1], len(step.taps))
    out, each = kept.shape[1:3]
    for group in range(step.groups):
        for tap in np.flatnonzero((step.taps >= 0).any(axis=1)):
            outputs, inputs = (slice(group * size, (group + 1) * size) for size in (out, each))
            yield outputs, inputs, int(tap), kept[group, :, :, tap].astype(np.float64), int(step.strips.shifts[tap])


def _dense_pull(rows: BitRows, step: MapLayer, x: np.ndarray, y: np.ndarray) -> None:
    x, n = x[:-_SPARE].reshape(len(step.reads), -1), step.strips.length
    y[:] = 0
    for outputs, inputs, _, matrix, shift in _taps(rows, step):
        y[outputs] += matrix @ x[inputs, shift : shift + n]


def _dense_push(rows: BitRows, step: MapLayer, b: np.ndarray, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    x, z, n = x.reshape(len(step.reads), -1), z.reshape(len(step.reads), -1), step.strips.length
    sums = np.zeros((*step.shape[:2], len(step.taps)))
    for outputs, inputs, tap, matrix, shift in _taps(rows, step):
        z[inputs, shift : shift + n] += matrix.T @ b[outputs, :n]
        sums[outputs, :, tap] = b[outputs, :n] @ x[inputs, shift : shift + n].T
    return sums[rows.unpack().reshape(sums.shape)]


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
