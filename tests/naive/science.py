"""Twins of SCIENCE, by networkx. What is drawn at random (networks of the same degrees, edges that are taken out) and
which communities are found is asked of the code itself, in the numbering of its units."""

from __future__ import annotations

import math
from itertools import combinations

import networkx as nx
import numpy as np

from naive.degrees import edges
from naive.net import Net
from naive.whole import _paths, _undirected, graph_of
from topo.graph import build_graph
from topo.graph.references import lattice, rewired
from topo.graph.whole import WholeGraph, numbers, whole_graph
from topo.metrics.science import community_labels


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


def _whole(net: Net) -> WholeGraph:
    return whole_graph(build_graph(net.masks, net.wiring, net.view))


def _world(graph: nx.Graph) -> tuple[float, float]:
    ways = dict(nx.all_pairs_shortest_path_length(graph))
    lengths = [ways[u][v] for u, v in combinations(ways, 2) if v in ways[u]]
    return nx.bipartite.robins_alexander_clustering(graph), sum(lengths) / len(lengths)


def _as_networkx(whole: WholeGraph) -> nx.Graph:
    graph = nx.Graph(zip(whole.begins.tolist(), whole.outgoing[1].tolist()))
    graph.add_nodes_from(range(whole.n))
    return graph


def _worlds(net: Net) -> tuple[float, float, float, float, float]:
    rng = np.random.default_rng(0)
    random = [_world(_as_networkx(rewired(_whole(net), rng))) for _ in range(5)]
    even = _world(_as_networkx(lattice(_whole(net), rng)))[0]
    return *_world(_undirected(net)), *np.mean(random, axis=0), even


def small_world_sigma(net: Net):
    if not graph_of(net).edges:
        return math.nan
    closed, length, at_random, lengths, _ = _worlds(net)
    return closed / at_random / (length / lengths) if at_random else math.nan


def small_world_omega(net: Net):
    if not graph_of(net).edges:
        return math.nan
    closed, length, _, lengths, even = _worlds(net)
    return lengths / length - closed / even if even else math.nan


def rich_club(net: Net):
    graph = _undirected(net)
    degrees = sorted((degree for _, degree in graph.degree if degree), reverse=True)
    if not degrees:
        return math.nan
    least = degrees[max(math.ceil(len(degrees) / 10), 2) - 1]
    return nx.rich_club_coefficient(graph, normalized=False)[least - 1]


def betweenness_share(net: Net):
    between = sorted(nx.betweenness_centrality(_undirected(net), normalized=False).values(), reverse=True)
    return sum(between[: math.ceil(len(between) / 10)]) / sum(between) if any(between) else math.nan


def modularity(net: Net):
    graph, seen = graph_of(net), build_graph(net.masks, net.wiring, net.view)
    if not graph.edges:
        return math.nan
    labels = dict(zip(numbers(seen).units.tolist(), community_labels(seen).tolist()))
    total = 0.0
    for made_by in {made_by for _, _, made_by in graph.edges(data="made_by")}:
        layer = nx.DiGraph((u, v) for u, v, by in graph.edges(data="made_by") if by == made_by)
        sets = [{u for u in layer if labels[u] == label} for label in {labels[u] for u in layer}]
        total += layer.number_of_edges() * nx.community.modularity(layer, sets)
    return total / graph.number_of_edges()


def structural_consistency(net: Net):
    graph, whole = graph_of(net), _whole(net)
    units = numbers(build_graph(net.masks, net.wiring, net.view)).units
    of_layers = np.flatnonzero(whole.of_layers[whole.made_by])
    if not len(of_layers):
        return math.nan
    could = {}
    for u, v, by in graph.edges(data="made_by"):
        if len(by) == 2:
            could.setdefault(by, (set(), set()))[0].add(u)
            could[by][1].add(v)
    pairs = {(u, v) for left, right in could.values() for u in left for v in right}
    rng, shares = np.random.default_rng(0), []
    for _ in range(5):
        taken = rng.choice(of_layers, max(len(of_layers) // 10, 1), replace=False)
        lost = {(int(units[whole.begins[e]]), int(units[whole.outgoing[1][e]])) for e in taken}
        rest = nx.Graph(_undirected(net))
        rest.remove_edges_from(lost)
        gone = nx.Graph(lost)
        gone.add_nodes_from(rest)
        order = list(rest)
        adjacency, perturbed = nx.to_numpy_array(rest, order), nx.to_numpy_array(gone, order)
        values, vectors = np.linalg.eigh(adjacency)
        score, first = np.zeros_like(adjacency), 0
        for last in range(1, len(values) + 1):
            if last == len(values) or values[last] - values[last - 1] > 1e-8 * max(abs(values)):
                space = vectors[:, first:last] @ vectors[:, first:last].T
                score += values[first:last].mean() * space + space @ perturbed @ space
                first = last
        place = {u: k for k, u in enumerate(order)}
        ranked = [(round(score[place[u], place[v]], 7), (u, v) in lost) for u, v in pairs if not rest.has_edge(u, v)]
        if len(ranked) <= len(lost):
            return math.nan
        bound = sorted((s for s, _ in ranked), reverse=True)[len(lost) - 1]
        equal = [was for s, was in ranked if s == bound]
        above = [was for s, was in ranked if s > bound]
        shares.append((sum(above) + (len(lost) - len(above)) * sum(equal) / len(equal)) / len(lost))
    return float(np.mean(shares))
