"""Twins of SCIENCE, by networkx."""

from __future__ import annotations

import math
from itertools import combinations

import networkx as nx

from naive.degrees import edges
from naive.net import Net
from naive.whole import _paths, _undirected, graph_of


def layer_bipartite_clustering(net: Net, name: str):
    graph = nx.Graph((("left", left), ("right", right)) for left, right in edges(net, name))
    ways = sum((graph.degree(u) - 1) * (graph.degree(v) - 1) for u, v in graph.edges)
    return nx.bipartite.robins_alexander_clustering(graph) if ways else math.nan


def _lengths(net: Net) -> list[int]:
    ways = dict(nx.all_pairs_shortest_path_length(_undirected(net)))
    return [ways[u][v] for u, v in combinations(ways, 2) if v in ways[u]]


def path_length(net: Net):
    lengths = _lengths(net)
    return sum(lengths) / len(lengths) if lengths else math.nan


def global_efficiency(net: Net):
    return nx.global_efficiency(_undirected(net))


def active_neuron_rate(net: Net):
    return len({unit for units, _ in _paths(graph_of(net)) for unit in units}) / len(graph_of(net))
