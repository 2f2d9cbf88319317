"""LayeredGraph: masks on a wiring, ready for kernels; types are made once here, so each kernel compiles once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, overload

import numpy as np

from topo._support.screen import folding, printable, screen
from topo.errors import TopoError, WiringError
from topo.graph import views
from topo.layout import output_first
from topo.masks import BitRows, MaskSet, as_mask_set, as_numpy
from topo.wiring import Join, Layer, Wiring

_LARGEST_DENSE = 1 << 36  # 8 GiB of bits
MOST_EDGES = 100_000_000  # of an edge list: 1.6 GB with what is made of it
_COPIED = 1 << 14  # layers of up to so many words are copied together


@dataclass(frozen=True, eq=False)
class Block:
    """One use of one layer: its bit rows (a row per output unit) and the units that it joins.

    layer: None for a graph without wiring (`use` is for those that have it). masked: False where the mask set has no
    mask for this layer and all weights count as kept; such a block takes part in paths but not in parameter counts.
    source: an embedding that is not masked, whose outputs are where paths start. view, layer_view: how it is seen in
    the network, and by itself.
    """

    name: str
    rows: BitRows
    view: str = "channel"
    layer_view: str = "kernel"
    layer: Layer | None = None
    masked: bool = True
    source: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in / groups, *kernel)."""
        return self.rows.shape

    @property
    def size(self) -> int:
        """Number of parameters, kept or not."""
        return self.rows.size

    @property
    def use(self) -> Layer:
        """The layer, of a graph that has a wiring; WiringError in one that has none."""
        if self.layer is None:
            raise WiringError(f"who feeds '{self.name}' is not known: the graph has no wiring")
        return self.layer

    @property
    def groups(self) -> int:
        """Groups of the convolution; 1 without wiring."""
        return self.layer.groups if self.layer else 1

    @property
    def kernel_size(self) -> int:
        """Weights per kernel: height * width, 1 of a linear layer."""
        return self.size // (self.shape[0] * self.shape[1])

    @cached_property
    def kept(self) -> int:
        """Number of kept parameters."""
        return self.rows.kept()

    @cached_property
    def reads(self) -> np.ndarray:
        """int32 (in,): the unit behind each input channel; without wiring, the channel itself."""
        return self.layer.reads if self.layer else np.arange(self.shape[1], dtype=np.int32)

    @cached_property
    def edges(self) -> views.Edges:
        """The edges in the graph's view, with multiplicities; TopoError in the unrolled view, which lists none."""
        if self.view == "unrolled":
            raise TopoError("the unrolled view lists no edges layer by layer; take view channel or unit here")
        return views.NETWORK_VIEWS[self.view](self.rows, self.reads, self.groups)

    @cached_property
    def layer_edges(self) -> views.Edges:
        """The edges of the layer by itself, in its layer view, with multiplicities."""
        return views.of_layer(self.layer_view, self.rows, self.groups)

    @cached_property
    def used_inputs(self) -> np.ndarray:
        """bool (in,): input channels with at least one kept weight."""
        columns = np.empty((self.groups, self.rows.words.shape[1]), np.uint64)
        blocks = self.rows.words.reshape(self.groups, -1, self.rows.words.shape[1])
        np.bitwise_or.reduce(blocks, axis=1, out=columns)
        return columns_to_inputs(columns, self.shape[1], self.kernel_size)

    @cached_property
    def used_outputs(self) -> np.ndarray:
        """bool (out,): output units with at least one kept weight."""
        return np.asarray(self.rows.words.any(axis=1))


def _joined(words: list[np.ndarray]) -> np.ndarray:
    joined = np.concatenate(words, axis=None) if words else np.zeros(0, np.uint64)
    joined.flags.writeable = False
    return joined


def columns_to_inputs(words: np.ndarray, per_group: int, kernel_size: int) -> np.ndarray:
    """uint64 (groups, w) -> bool (in,): input channels with at least one flagged weight column."""
    columns = np.unpackbits(words.view(np.uint8), axis=1, count=per_group * kernel_size, bitorder="little")
    return np.asarray(columns.reshape(-1, kernel_size).any(axis=1))


@dataclass(frozen=True, eq=False, repr=False)
class LayeredGraph:
    """The graph of a mask set: in one view as a network, and in one view layer by layer.

    blocks: one for each parameter, in network order, with the reads of its first use. steps: the wiring's steps with a
    Block for each layer (a parameter used twice stands twice, each time with the bits of the part that is used); empty
    without wiring, and then only metrics of single layers are defined.
    weights: parameter -> array of its mask's shape, for weighted metrics. threads: how many threads work on it.
    own: the wiring as it was given, whose masks have their parameters' own shapes; `wiring` and `masks` are plain.
    max_edges: how many edges of places of maps may be listed.
    memo: results that several metrics share.
    """

    masks: MaskSet
    wiring: Wiring | None
    view: str
    layer_view: str
    blocks: tuple[Block, ...]
    steps: tuple[Block | Join, ...] = ()
    weights: Mapping[str, np.ndarray] | None = None
    threads: int | None = 1
    memo: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)
    own: Wiring | None = None
    max_edges: int = MOST_EDGES

    def __repr__(self) -> str:
        return screen(*self._table())

    def _repr_html_(self) -> str:
        return folding(*self._table(), "layer")

    def _table(self) -> tuple[str, list[str], list[list[str]]]:
        """What a screen shows: a line, a header, and a row for each layer."""
        of = f"of {self.wiring.model or 'a network'}" if self.wiring else "without wiring"
        first = f"{type(self).__name__}({of}, view {self.view}: {len(self.blocks)} layers, {len(self.steps)} steps)"
        lines = [
            [printable(block.name), "x".join(map(str, block.shape)), f"{block.kept:,}",
             f"{block.kept / block.size:.4f}" if block.masked else "dense"]
            for block in self.blocks
        ]  # fmt: skip
        return first, ["layer", "shape", "kept", "density"], lines

    @cached_property
    def masked_blocks(self) -> tuple[Block, ...]:
        """The blocks that have a mask, in network order."""
        return tuple(block for block in self.blocks if block.masked)


@dataclass(frozen=True, eq=False, repr=False)
class WiredGraph(LayeredGraph):
    """A graph whose masks lie on a wiring: what paths, reach and nodes are counted on."""

    wiring: Wiring

    @cached_property
    def uses(self) -> tuple[tuple[int, Block], ...]:
        """(step, block) of each use of a layer, sources left out."""
        return tuple((i, step) for i, step in enumerate(self.steps) if isinstance(step, Block) and not step.source)

    @cached_property
    def table(self) -> np.ndarray:
        """The wiring's table of steps (topo.wiring.table.Table), with the sources of this graph."""
        sources = [index for index, step in enumerate(self.steps) if isinstance(step, Block) and step.source]
        return self.wiring.table.with_sources(sources)

    @cached_property
    def runs(self) -> tuple[tuple[int, int, np.ndarray], ...]:
        """(first, last, words) of steps in a row: what one call of a kernel takes.

        words: uint64, the bit rows of their layers. Small layers are copied one behind the other, for a call of each
        would cost more than its work; a large layer stands alone, as it is.
        """
        found, first = [], 0
        small: list[np.ndarray] = []
        sizes = self.wiring.table.sizes
        for index, block in self.uses:
            words = block.rows.words
            if words.size != sizes[index]:
                raise WiringError(
                    f"layer '{block.name}' {block.shape} has {words.size} words; its rows take {sizes[index]}"
                )
            if words.size > _COPIED:
                if index > first:
                    found.append((first, index, _joined(small)))
                found.append((index, index + 1, words.reshape(-1)))
                first, small = index + 1, []
            else:
                small.append(words)
        if len(self.steps) > first:
            found.append((first, len(self.steps), _joined(small)))
        return tuple(found)


@overload
def build_graph(
    masks: MaskSet,
    wiring: Wiring,
    view: str | None = None,
    *,
    weights: Mapping[str, Any] | None = None,
    threads: int | None = 1,
    max_edges: int | None = None,
) -> WiredGraph: ...
@overload
def build_graph(
    masks: MaskSet,
    wiring: Wiring | None = None,
    view: str | None = None,
    *,
    weights: Mapping[str, Any] | None = None,
    threads: int | None = 1,
    max_edges: int | None = None,
) -> LayeredGraph: ...
def build_graph(
    masks: MaskSet,
    wiring: Wiring | None = None,
    view: str | None = None,
    *,
    weights: Mapping[str, Any] | None = None,
    threads: int | None = 1,
    max_edges: int | None = None,
) -> LayeredGraph:
    """Lay masks on a wiring.

    Layers of the wiring without a mask count as dense, embeddings without a mask as sources. Without a wiring the graph
    holds single layers only. view: see `topo.graph.views`; None is channel for the network and kernel for single
    layers. weights: parameter -> array of its mask's shape, for weighted metrics. threads: how many work on it, None
    for all cores. max_edges: most edges of the unrolled view that are listed, for the group `graph` (100 million by
    default).

    >>> masks = topo.MaskSet({"a": np.array([[1, 1], [1, 0]]), "b": np.array([[1, 1]])})
    >>> graph = topo.build_graph(masks, topo.chain(masks))
    >>> [(block.name, block.kept, block.size) for block in graph.blocks]
    [('a', 3, 4), ('b', 2, 2)]

    Raises WiringError, naming the first layer that differs with both shapes, if they do not fit; TopoError for an
    unknown view and for weights that do not have the shape of their mask.
    """
    masks = as_mask_set(masks)
    network_view, layer_view = views.requested(view)
    most = MOST_EDGES if max_edges is None else max_edges
    arrays = None if weights is None else _checked_weights(masks, wiring, weights)
    if wiring is None:
        blocks = tuple(Block(name, masks.rows(name), network_view, layer_view) for name in masks)
        return LayeredGraph(
            masks, None, network_view, layer_view, blocks, weights=arrays, threads=threads, max_edges=most
        )
    wiring.check(masks)
    masks = wiring.used(masks)
    own, wiring, masks = wiring, wiring.plain, wiring.plain_masks(masks)
    dense: dict[tuple[int, ...], BitRows] = {}

    def block(layer: Layer) -> Block:
        if layer.name in masks:
            return Block(layer.name, layer.laid_out(masks.rows(layer.name)), network_view, layer_view, layer)
        source = layer.kind == "embedding"
        shape = (layer.shape[0], 1) if source else layer.shape
        if shape not in dense:
            dense[shape] = dense_rows(shape)
        return Block(layer.name, dense[shape], network_view, layer_view, layer, False, source)

    whole: dict[str, Block] = {}
    steps: list[Block | Join] = []
    for step in wiring.steps:
        if isinstance(step, Layer):
            entire = block(step)
            first = wiring.layer(step.name)
            whole.setdefault(step.name, entire if first is step else block(first))
            part = used_bits(entire.rows, step)
            steps.append(entire if part is entire.rows else replace(entire, rows=part))
        else:
            steps.append(step)
    blocks = tuple(whole.values())
    return WiredGraph(
        masks, wiring, network_view, layer_view, blocks, tuple(steps), arrays, threads, own=own, max_edges=most
    )


def used_bits(rows: BitRows, layer: Layer) -> BitRows:
    """The rows without the parameters that take no part in a use of the layer."""
    if layer.pattern is not None:
        rows = BitRows(rows.shape, rows.words & layer.pattern.words)
    if layer.rows is None and layer.columns is None:
        return rows
    columns = BitRows.of_mask(np.repeat(layer.part[1], layer.kernel_size)[None]).words
    return BitRows(rows.shape, np.where(layer.part[0][:, None], rows.words & columns, np.uint64(0)))


def _checked_weights(masks: MaskSet, wiring: Wiring | None, weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays laid out as masks. A tensor of an input-first layer (name -> groups) is its parameter, and turned."""
    shapes = masks.shapes if wiring is None else {**wiring.shapes, **masks.shapes}
    input_first = masks.provenance.get("input_first", {}) if wiring is None else wiring.input_first
    arrays = {name: as_numpy(values) for name, values in weights.items() if name in shapes}
    for name, array in arrays.items():
        if name in input_first and hasattr(weights[name], "detach") and array.ndim > 1:
            array = arrays[name] = np.ascontiguousarray(output_first(array, input_first[name]))
        if array.shape != shapes[name]:
            raise TopoError(f"weights '{name}' have shape {array.shape} but their mask has {shapes[name]}")
        if wiring is not None and wiring.plain is not wiring and name in wiring.shapes:
            arrays[name] = laid_out(array, wiring.layer(name), wiring.plain.layer(name))
    return arrays


def laid_out(array: np.ndarray, layer: Layer, plain: Layer | None = None) -> np.ndarray:
    """An array of a parameter's mask's shape as a use of it is laid out. plain: only where that is laid out so."""
    if layer.axes is None or (plain is not None and plain.axes is not None):
        return array
    return np.ascontiguousarray(array.transpose(layer.axes).reshape(layer.shape))


def dense_rows(shape: tuple[int, ...]) -> BitRows:
    """Bit rows of a mask that keeps all; WiringError for one beyond memory, since a wiring may be a stranger's."""
    if math.prod(shape) > _LARGEST_DENSE:
        raise WiringError(f"a layer of shape {shape} without a mask: up to {_LARGEST_DENSE:,} dense weights are held")
    columns = int(np.prod(shape[1:], dtype=np.int64))
    words = np.full((shape[0], -(-columns // 64)), np.iinfo(np.uint64).max, np.uint64)
    if columns % 64:
        words[:, -1] = np.uint64((1 << (columns % 64)) - 1)
    return BitRows(shape, words)
