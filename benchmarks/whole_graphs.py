"""Graph numbers of whole networks against igraph (C) and networkx (Python), on the same graph, which all are given.

    pip install igraph; python benchmarks/whole_graphs.py [--write]

Processor seconds, after a first call; the numbers are asserted to be equal. Where a library is not installed its
column stays empty.
"""

from __future__ import annotations

import os

os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")})

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import networkx as nx
import numpy as np
from processor_seconds import least
from run import HERE, machine, rewrite

import topo
from topo.graph import build_graph
from topo.graph.whole import WholeGraph, whole_graph
from topo.kernels import science, whole

MARKS = ("<!-- whole graphs: written by benchmarks/whole_graphs.py -->", "<!-- end of whole graphs -->")


def edges_of(graph: WholeGraph) -> np.ndarray:
    return np.unique(np.stack([graph.begins, graph.outgoing[1]], 1), axis=0)


def betweenness(graph: WholeGraph) -> np.ndarray:
    found = np.empty(graph.n)
    science.betweenness(*graph.both, found)
    return found


def coreness(graph: WholeGraph) -> np.ndarray:
    found = np.empty(graph.n, np.int32)
    whole.coreness(*graph.both, found)
    return found


def tasks(graph: WholeGraph, igraph: Any, network: nx.Graph) -> dict[str, tuple[Callable, Callable, Callable]]:
    """Name -> ours, igraph's, networkx's; each gives a number."""
    return {
        "connected components": (
            lambda: int(whole.components(*graph.both, np.empty(graph.n, np.int32))[0]),
            lambda: len(igraph.connected_components()),
            lambda: nx.number_connected_components(network),
        ),
        "cut edges and cut nodes": (
            lambda: sum(map(int, whole.cuts(*graph.both))),
            lambda: len(igraph.bridges()) + len(igraph.articulation_points()),
            lambda: sum(1 for _ in nx.bridges(network)) + sum(1 for _ in nx.articulation_points(network)),
        ),
        "mean coreness": (
            lambda: float(coreness(graph).mean()),
            lambda: float(np.mean(igraph.coreness())),
            lambda: float(np.mean(list(nx.core_number(network).values()))),
        ),
        "betweenness of all units": (
            lambda: float(betweenness(graph).sum()),
            lambda: float(np.sum(igraph.betweenness())),
            lambda: float(sum(nx.betweenness_centrality(network, normalized=False).values())),
        ),
    }


def lines(name: str, density: float) -> list[str]:
    wiring = topo.trace(topo.models.build(name))
    graph = whole_graph(build_graph(topo.generate("erk", wiring, density=density, rng=0), wiring))
    pairs = edges_of(graph)
    network = nx.Graph(pairs.tolist())
    network.add_nodes_from(range(graph.n))
    igraph = None
    if find_spec("igraph"):
        import igraph as peer

        igraph = peer.Graph(graph.n, pairs.tolist())
    found = []
    for task, (ours, of_igraph, of_networkx) in tasks(graph, igraph, network).items():
        calls = [ours, of_networkx, *([of_igraph] if igraph else [])]
        numbers = [call() for call in calls]
        assert np.allclose(numbers, numbers[0], rtol=1e-9), (task, numbers)
        mine, slow, *fast = least(*calls, repeats=1)
        peer_cells = f"{fast[0]:.5f} | {fast[0] / mine:.1f}x" if fast else "not installed | "
        what = f"{name} at {1 - density:.0%} ({len(pairs):,} edges): {task}"
        found.append(f"| {what} | {mine:.5f} | {peer_cells} | {slow:.4f} | {slow / mine:.0f}x |")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/README.md")
    options = parser.parse_args()
    made = [
        machine(),
        "",
        "| task | ours, s | igraph, s | ratio | networkx, s | ratio |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    made += lines("resnet20", 0.02)
    print("\n".join(made))
    if options.write:
        rewrite(HERE / "README.md", MARKS, "\n".join(made))


if __name__ == "__main__":
    main()
