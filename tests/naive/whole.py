"""Twins of GRAPH: the network as a networkx graph, each number as networkx or a plain loop says it."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from functools import cache

import networkx as nx
import numpy as np

from naive.net import Net
from naive.weighted import WeightedNet
from topo.wiring import Layer


class Graph(nx.DiGraph):
    """inputs, outputs: lists of nodes. An edge has `many`, how many paths follow it, and `made_by`, (step, group) of a
    layer, (step,) of a join. strength: sum of |w|."""


@cache
def graph_of(net: Net) -> Graph:
    steps = [step for step in net.wiring.steps if step not in net.sources]
    made = [int(u) for u in net.wiring.inputs] + [u for s in net.wiring.steps for u in range(s.start, s.stop)]
    dead = {s.start + o for s in steps if isinstance(s, Layer) and s.rows is not None for o in range(s.shape[0])}
    dead -= {s.start + int(o) for s in steps if isinstance(s, Layer) and s.rows is not None for o in s.rows}
    readers = Counter(int(u) for step in steps for operand in step.operands for u in operand if u >= 0)
    words = {int(u) for s in net.sources for u in s.reads} - set(readers) - net.ends
    stands = {u: u for u in made if u not in dead | words}
    for step in reversed(steps):
        if not isinstance(step, Layer) and step.kind == "add":
            for operand in step.operands:
                for k, u in enumerate(map(int, operand)):
                    if u in stands and readers[u] == 1 and u not in net.ends | net.starts:
                        stands[u] = stands[step.start + k]
    graph = Graph()
    graph.add_nodes_from(u for u in made if stands.get(u) == u)
    graph.strength, graph.weights = 0, Counter()
    for step in steps:
        place = net.wiring.steps.index(step)
        if isinstance(step, Layer):
            per_group = step.shape[0] // step.groups
            edges = [(u, v, 1, (place, (v - step.start) // per_group)) for _, u, v in net.edges(step)]
            if isinstance(net, WeightedNet):
                for p, u, v in net.parameters(step):
                    if u in stands:
                        weight = abs(Fraction(float(net.weights[p[0]][p[1:]])))
                        graph.strength += weight
                        graph.weights[stands[u], stands[v]] += weight
        else:
            edges = []
            for number, operand in enumerate(step.operands):
                for k, u in enumerate(map(int, operand)):
                    v = step.start + k // step.width
                    follows = step.kind == "add" or (step.kind == "gate" and number == 0 and v in net.forward)
                    if u in stands and stands[u] != stands[v]:
                        edges.append((u, v, int(follows), (place,)))
                        graph.strength += 1
                        graph.weights[stands[u], stands[v]] += 1
        for u, v, many, made_by in edges:
            if u in stands:
                u, v = stands[u], stands[v]
                if graph.has_edge(u, v):
                    graph[u][v]["many"] += many
                else:
                    graph.add_edge(u, v, many=many, made_by=made_by)
    graph.inputs = [u for u in graph if u in net.starts]
    graph.outputs = [u for u in graph if u in net.ends]
    return graph


def _undirected(net: Net) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(graph_of(net))
    graph.add_edges_from(graph_of(net).edges)
    return graph


def _sinks(graph: Graph) -> list[int]:
    return [u for u in graph if not graph.out_degree(u) and graph.in_degree(u) and u not in graph.outputs]


def _sources(graph: Graph) -> list[int]:
    return [u for u in graph if not graph.in_degree(u) and graph.out_degree(u) and u not in graph.inputs]


def sinks(net: Net):
    return len(_sinks(graph_of(net)))


def sources(net: Net):
    return len(_sources(graph_of(net)))


def disconnected(net: Net):
    return nx.number_of_isolates(graph_of(net))


def removable_in(net: Net):
    return sum(graph_of(net).out_degree(u) for u in _sources(graph_of(net)))


def removable_out(net: Net):
    return sum(graph_of(net).in_degree(u) for u in _sinks(graph_of(net)))


def _mean_ball(net: Net, radius: int):
    graph = graph_of(net)
    return sum(len(nx.ego_graph(graph, u, radius)) for u in graph) / len(graph)


def one_hop(net: Net):
    return _mean_ball(net, 1)


def two_hop(net: Net):
    return _mean_ball(net, 2)


def two_paths(net: Net):
    return sum(math.comb(degree, 2) for _, degree in _undirected(net).degree)


def mean_strength(net: Net):
    if not isinstance(net, WeightedNet):
        return math.nan
    return float(2 * graph_of(net).strength / len(graph_of(net)))


def _weighted_matrix(net: Net):
    graph = graph_of(net)
    flat = nx.Graph()
    flat.add_nodes_from(graph)
    flat.add_weighted_edges_from((u, v, float(weight)) for (u, v), weight in graph.weights.items())
    return flat


def weighted_graph_spectral_gap(net: Net):
    if not isinstance(net, WeightedNet) or not graph_of(net).size():
        return math.nan
    values = np.linalg.eigvalsh(nx.to_numpy_array(_weighted_matrix(net)))
    return float(values[-1] - values[-2])


def weighted_laplacian_radius(net: Net):
    if not isinstance(net, WeightedNet) or not graph_of(net).size():
        return math.nan
    return float(np.linalg.eigvalsh(nx.laplacian_matrix(_weighted_matrix(net)).toarray())[-1])


def mean_coreness(net: Net):
    return sum(nx.core_number(_undirected(net)).values()) / len(graph_of(net))


def connected_components(net: Net):
    return nx.number_weakly_connected_components(graph_of(net))


def largest_component(net: Net):
    return max(map(len, nx.weakly_connected_components(graph_of(net))))


def cut_edges(net: Net):
    return len(list(nx.bridges(_undirected(net))))


def cut_nodes(net: Net):
    return len(list(nx.articulation_points(_undirected(net))))


def _top(matrix: np.ndarray, count: int) -> np.ndarray:
    return np.sort(np.linalg.eigvalsh(matrix))[::-1][:count]


def laplacian_radius(net: Net):
    graph = _undirected(net)
    return _top(nx.laplacian_matrix(graph).toarray().astype(float), 1)[0] if graph.edges else math.nan


def graph_spectral_gap(net: Net):
    graph = _undirected(net)
    return -np.diff(_top(nx.to_numpy_array(graph), 2))[0] if graph.edges else math.nan


def _paths(graph: Graph) -> list[tuple[tuple[int, ...], int]]:
    """(units, how many) of every way from an input to an output."""
    found = []

    def walk(trail: tuple[int, ...], many: int) -> None:
        if trail[-1] in graph.outputs:
            found.append((trail, many))
        for after, edge in graph[trail[-1]].items():
            if edge["many"]:
                walk((*trail, after), many * edge["many"])

    for start in graph.inputs:
        walk((start,), 1)
    return found


def _core(found: list[tuple[tuple[int, ...], int]], order: list) -> int:
    total = left = sum(many for _, many in found)
    size = 0
    while 10 * left > total:
        on = Counter()
        for units, many in found:
            for unit in units:
                on[unit] += many
        taken = max(order, key=lambda unit: on[unit])
        found = [(units, many) for units, many in found if taken not in units]
        left, size = sum(many for _, many in found), size + 1
    return size


@cache
def _both_cores(net: Net) -> tuple[int, int]:
    graph = graph_of(net)
    found = _paths(graph)
    flat = [((("in", units[0]), ("out", units[-1])), many) for units, many in found]
    ends = [("in", u) for u in graph.inputs] + [("out", u) for u in graph.outputs]
    return _core(found, list(graph)), _core(flat, ends)


def tau_core(net: Net):
    return _both_cores(net)[0] or math.nan


def tau_core_share(net: Net):
    return tau_core(net) / len(graph_of(net))


def h_score(net: Net):
    core, flat = _both_cores(net)
    return 1 - core / flat if core else math.nan


def _normalised(number, by_units: bool):
    def normalised(net: Net):
        by = len(graph_of(net)) if by_units else graph_of(net).number_of_edges()
        return number(net) / by if by else math.nan

    return normalised


sinks_normalised = _normalised(sinks, True)
sources_normalised = _normalised(sources, True)
disconnected_normalised = _normalised(disconnected, True)
largest_component_normalised = _normalised(largest_component, True)
removable_in_normalised = _normalised(removable_in, False)
removable_out_normalised = _normalised(removable_out, False)
one_hop_normalised = _normalised(one_hop, False)
two_hop_normalised = _normalised(two_hop, False)
two_paths_normalised = _normalised(two_paths, False)
mean_strength_normalised = _normalised(mean_strength, False)
mean_coreness_normalised = _normalised(mean_coreness, False)
cut_edges_normalised = _normalised(cut_edges, False)
cut_nodes_normalised = _normalised(cut_nodes, False)
