"""SIZE group: bytes of the weights in the formats that hold sparse ones, and the densities at which those pay.

Values are float32, 4 bytes each. A format that takes more bytes than the dense one saves nothing; that it takes fewer
says nothing of time, which `topo shrink --time` measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from topo.graph import Block, LayeredGraph
from topo.metrics import metric
from topo.metrics.structure import block_occupancy, n_m_compliance
from topo.report import Value

VALUE, INDEX, SHORT = 4, 4, 2  # bytes of a value, of an int32 and of an int16
_SIDE = 4  # of a block


def _layer(unit: str = "bytes", *, ordered: bool = False) -> Callable[[Callable], Callable]:
    return metric(group="size", scope="layer", unit=unit, wired=False, view="layer", ordered=ordered)


def _network(unit: str = "bytes", *, ordered: bool = False) -> Callable[[Callable], Callable]:
    return metric(group="size", scope="network", unit=unit, wired=False, ordered=ordered)


def _total(graph: LayeredGraph, layer: Callable[[LayeredGraph, Block], Value | int]) -> Value:
    """The sum over the layers; undefined where a layer is."""
    total = 0
    for block in graph.masked_blocks:
        found = layer(graph, block)
        value = found if isinstance(found, Value) else Value(found)
        if value.number != value.number:
            return Value(math.nan, f"'{block.name}': {value.note}")
        total += int(value.number)
    return Value(total)


def _rows(block: Block) -> int:
    return block.shape[0]


@_layer()
def layer_bytes_dense(graph: LayeredGraph, block: Block) -> int:
    """4 x weights, kept or not."""
    return VALUE * block.size


@_layer()
def layer_bytes_bitmask(graph: LayeredGraph, block: Block) -> int:
    """4 x kept weights, and a bit for every weight."""
    return VALUE * block.kept + -(-block.size // 8)


@_layer()
def layer_bytes_csr(graph: LayeredGraph, block: Block) -> int:
    """CSR of (out, in * kernel positions): 4 x kept values, 4 x kept int32 columns, 4 x (out + 1) row starts."""
    return (VALUE + INDEX) * block.kept + INDEX * (_rows(block) + 1)


@_layer()
def layer_bytes_csr_int16(graph: LayeredGraph, block: Block) -> Value:
    """CSR with int16 columns (up to 65,536 of them): 6 x kept weights, 4 x (out + 1) row starts."""
    if block.rows.columns > 1 << 16:
        return Value(math.nan, f"{block.rows.columns:,} columns do not fit into 16 bits")
    return Value((VALUE + SHORT) * block.kept + INDEX * (_rows(block) + 1))


@_layer(ordered=True)
def layer_bytes_2_4(graph: LayeredGraph, block: Block) -> Value:
    """2:4: of every 4 consecutive inputs 2 values and 4 bits of places; undefined for a mask that is not 2:4."""
    compliant = n_m_compliance(block.rows, 2, 4)
    if compliant < 1:
        return Value(math.nan, f"the mask is not 2:4 ({compliant:.1%} of its groups are)")
    groups = _groups(block)
    return Value(2 * VALUE * groups + -(-groups // 2))


@_layer(ordered=True)
def layer_bytes_block(graph: LayeredGraph, block: Block) -> int:
    """Blocks of 4 x 4 that hold a kept weight, whole, each with an int32 column; 4 x (rows of blocks + 1) starts."""
    high, wide = -(-_rows(block) // _SIDE), -(-block.rows.columns // _SIDE)
    blocks = round(block_occupancy(block.rows, _SIDE, _SIDE) * high * wide)
    return (_SIDE * _SIDE * VALUE + INDEX) * blocks + INDEX * (high + 1)


@_layer("fraction")
def layer_break_even_bitmask(graph: LayeredGraph, block: Block) -> float:
    """Density below which a bitmask takes fewer bytes than the dense layer."""
    return (VALUE * block.size - -(-block.size // 8)) / (VALUE * block.size)


@_layer("fraction")
def layer_break_even_csr(graph: LayeredGraph, block: Block) -> float:
    """Density below which CSR with int32 columns takes fewer bytes than the dense layer; 0 where it never does."""
    return _break_even(block, VALUE + INDEX)


@_layer("fraction")
def layer_break_even_csr_int16(graph: LayeredGraph, block: Block) -> Value:
    """Density below which CSR with int16 columns takes fewer bytes than the dense layer; 0 where it never does."""
    if block.rows.columns > 1 << 16:
        return Value(math.nan, f"{block.rows.columns:,} columns do not fit into 16 bits")
    return Value(_break_even(block, VALUE + SHORT))


@_layer("fraction")
def layer_break_even_2_4(graph: LayeredGraph, block: Block) -> float:
    """Bytes of a 2:4 layer over those of the dense one: what 2:4 takes at any density, of at most 1/2."""
    groups = _groups(block)
    return (2 * VALUE * groups + -(-groups // 2)) / (VALUE * block.size)


def _groups(block: Block) -> int:
    return _rows(block) * -(-block.shape[1] // 4) * block.kernel_size


def _break_even(block: Block, each: int) -> float:
    return max(0.0, (VALUE * block.size - INDEX * (_rows(block) + 1)) / (each * block.size))


@_network()
def bytes_dense(graph: LayeredGraph) -> Value:
    """The layers' `bytes_dense` added."""
    return _total(graph, layer_bytes_dense)


@_network()
def bytes_bitmask(graph: LayeredGraph) -> Value:
    """The layers' `bytes_bitmask` added."""
    return _total(graph, layer_bytes_bitmask)


@_network()
def bytes_csr(graph: LayeredGraph) -> Value:
    """The layers' `bytes_csr` added."""
    return _total(graph, layer_bytes_csr)


@_network()
def bytes_csr_int16(graph: LayeredGraph) -> Value:
    """The layers' `bytes_csr_int16` added; undefined where a layer's is."""
    return _total(graph, layer_bytes_csr_int16)


@_network(ordered=True)
def bytes_2_4(graph: LayeredGraph) -> Value:
    """The layers' `bytes_2_4` added; undefined where a mask is not 2:4."""
    return _total(graph, layer_bytes_2_4)


@_network(ordered=True)
def bytes_block(graph: LayeredGraph) -> Value:
    """The layers' `bytes_block` added."""
    return _total(graph, layer_bytes_block)


def _over_network(graph: LayeredGraph, fixed: Callable[[Block], int], each: int) -> float:
    """Density d, the same in all layers, at which fixed bytes + each * d * weights are 4 * weights."""
    size = sum(block.size for block in graph.masked_blocks)
    return max(0.0, (VALUE * size - sum(map(fixed, graph.masked_blocks))) / (each * size))


@_network("fraction")
def break_even_bitmask(graph: LayeredGraph) -> float:
    """Density, the same in all layers, below which bitmasks take fewer bytes than the dense network."""
    return _over_network(graph, lambda block: -(-block.size // 8), VALUE)


@_network("fraction")
def break_even_csr(graph: LayeredGraph) -> float:
    """Density, the same in all layers, below which CSR with int32 columns takes fewer bytes than the dense network."""
    return _over_network(graph, lambda block: INDEX * (_rows(block) + 1), VALUE + INDEX)


@_network("fraction")
def break_even_csr_int16(graph: LayeredGraph) -> Value:
    """Density, the same in all layers, below which CSR with int16 columns takes fewer bytes than the dense network."""
    large = [block.name for block in graph.masked_blocks if block.rows.columns > 1 << 16]
    if large:
        return Value(math.nan, f"the columns of '{large[0]}' do not fit into 16 bits")
    return Value(_over_network(graph, lambda block: INDEX * (_rows(block) + 1), VALUE + SHORT))


@_network("fraction")
def break_even_2_4(graph: LayeredGraph) -> float:
    """Bytes of a 2:4 network over those of the dense one: what 2:4 takes at any density, of at most 1/2."""
    taken = sum(2 * VALUE * groups + -(-groups // 2) for groups in map(_groups, graph.masked_blocks))
    return taken / (VALUE * sum(block.size for block in graph.masked_blocks))
