"""Masks laid on a wiring, and what is counted on the graph that they make: reach, paths, spectra of single layers."""

from topo.graph.graph import (
    Block,
    LayeredGraph,
    WiredGraph,
    build_graph,
    columns_to_inputs,
    dense_rows,
    laid_out,
    used_bits,
)
from topo.graph.memo import shared

__all__ = [
    "Block",
    "LayeredGraph",
    "WiredGraph",
    "build_graph",
    "columns_to_inputs",
    "dense_rows",
    "laid_out",
    "shared",
    "used_bits",
]
