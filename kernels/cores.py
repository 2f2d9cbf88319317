"""Core and periphery: how many units of each stream form a dense core, so that the network has most paths.

The network at large: nodes are the parts of tensors that belong to one stream, and every unit of a node is core or
periphery. A step reads nodes in_node[in_ptr[e] : in_ptr[e + 1]], each unit in_mult times, and makes out_node[...]:
    kind 0, a layer   core x core kernels hold kernel_size[e] units; other units that need cover have one, as row or
    column kind 1, a join    every made node is the sum of the nodes that it reads, position by position
    kind 2, depthwise a core channel holds kernel_size[e] units, another one
"""

from __future__ import annotations

import numba as nb
import numpy as np

_BIG = 1e100  # counts are held as number * _BIG ** power


@nb.njit(cache=True, nogil=True)
def paths_and_units(net, k, a, core, rim, power, units):
    """net: see `best_cores`; k, a (streams,): core and active units -> (log of the paths, units in all).

    core, rim, power (nodes,): paths to a core unit, and on average to another, are core or rim * _BIG ** power.
    """
    kind, in_ptr, in_node, in_mult, out_ptr, out_node, out_need, row_need, kernel_size, groups, stream, starts, ends = (
        net
    )
    core[:], rim[:], power[:] = 0.0, 0.0, 0
    for v in starts:
        core[v], rim[v] = 1.0, 1.0
    total = 0.0
    for e in range(kind.size):
        first, last = in_ptr[e], in_ptr[e + 1]
        p = 0
        for t in range(first, last):
            p = max(p, power[in_node[t]])
        if kind[e] == 1:
            for t in range(first, last):
                u, v = in_node[t], out_node[out_ptr[e] + t - first]
                scale = _BIG ** (power[u] - p)
                core[v] += core[u] * scale
                rim[v] += rim[u] * scale
                power[v] = p
            continue
        if kind[e] == 2:
            u, v = in_node[first], out_node[out_ptr[e]]
            s = stream[u]
            units[e] = (k[s] * kernel_size[e] + a[s] - k[s]) * in_mult[first]
            core[v], rim[v], power[v] = core[u] * kernel_size[e], rim[u], power[u]
        else:
            flow, side, rows, rest = 0.0, 0.0, 0.0, 0.0  # of the core; periphery
            for t in range(first, last):
                u, many = in_node[t], in_mult[t]
                s, scale = stream[u], _BIG ** (power[u] - p)
                side += k[s] * many
                flow += k[s] * many * core[u] * scale
                if row_need[e]:
                    rows += a[s] - k[s]
                    rest += (a[s] - k[s]) * rim[u] * scale
            wide, columns = 0.0, 0.0
            for t in range(out_ptr[e], out_ptr[e + 1]):
                s = stream[out_node[t]]
                wide += k[s]
                if out_need[t]:
                    columns += a[s] - k[s]
            paired = min(rows, columns)
            units[e] = side * wide * kernel_size[e] / groups[e] + rows + columns - paired
            mean_core = flow / side if side > 0 else 0.0
            mean_rest = rest / rows if rows > 0 else 0.0
            for t in range(out_ptr[e], out_ptr[e + 1]):
                v = out_node[t]
                power[v] = p
                core[v] = flow * kernel_size[e] / groups[e]
                if wide > 0:
                    core[v] += (rows - paired) * mean_rest / wide
                if columns > 0 and out_need[t]:
                    rim[v] = (paired * mean_rest + (columns - paired) * mean_core) / columns
        total += units[e]
        for t in range(out_ptr[e], out_ptr[e + 1]):
            v = out_node[t]
            if core[v] > _BIG:
                core[v] /= _BIG
                rim[v] /= _BIG
                power[v] += 1
    p = 0
    for v in ends:
        p = max(p, power[v])
    paths = 0.0
    for v in ends:
        s = stream[v]
        paths += (k[s] * core[v] + (a[s] - k[s]) * rim[v]) * _BIG ** (power[v] - p)
    return (np.log(paths) + p * np.log(_BIG) if paths > 0 else -np.inf), total


@nb.njit(cache=True, nogil=True)
def _climb(net, k, a, limit, log_paths, total, core, rim, power, units):
    """Grow one core by one or two units, whichever step gives most log paths for its units, while they fit."""
    while True:
        best, chosen, step, best_log, best_total = 0.0, -1, 0, 0.0, 0.0
        for c in range(k.size):
            for more in (1, 2):
                if k[c] + more > a[c]:
                    continue
                k[c] += more
                value, cost = paths_and_units(net, k, a, core, rim, power, units)
                k[c] -= more
                if cost <= limit and value > log_paths + 1e-12:
                    rate = (value - log_paths) / max(cost - total, 1e-9)
                    if chosen < 0 or rate > best:
                        best, chosen, step, best_log, best_total = rate, c, more, value, cost
        if chosen < 0:
            return log_paths, total
        k[chosen] += step
        log_paths, total = best_log, best_total


@nb.njit(cache=True, nogil=True)
def best_cores(net, k, a, limit, exchanges, units):
    """k, a (streams,) int64 cores and active units, limit on the units in all -> log paths; k, units (steps,) filled.

    net: the tuple (kind, in_ptr, in_node, in_mult, out_ptr, out_node, out_need, row_need, kernel_size, groups, stream
    of each node, nodes where paths start, nodes where they end). Cores start at k and grow greedily; then one gives up
    a unit, another takes one, and growth goes on, as long as that helps. -inf if not even the start fits.
    """
    nodes = net[10].size
    core, rim, power = np.empty(nodes), np.empty(nodes), np.empty(nodes, np.int64)
    value, total = paths_and_units(net, k, a, core, rim, power, units)
    if total > limit:
        return -np.inf
    value, total = _climb(net, k, a, limit, value, total, core, rim, power, units)
    trial = k.copy()
    improved = True
    while improved and exchanges > 0:
        improved = False
        for c in range(k.size):
            if k[c] <= 1:
                continue
            best_log, best_total, best = -np.inf, 0.0, -1
            for d in range(k.size):
                trial[d] = k[d]
            trial[c] -= 1
            for d in range(k.size):
                if d == c or trial[d] >= a[d]:
                    continue
                trial[d] += 1
                log_paths, cost = paths_and_units(net, trial, a, core, rim, power, units)
                trial[d] -= 1
                if cost <= limit and log_paths > best_log:
                    best_log, best_total, best = log_paths, cost, d
            if best < 0:
                continue
            trial[best] += 1
            log_paths, cost = _climb(net, trial, a, limit, best_log, best_total, core, rim, power, units)
            if log_paths > value + 1e-9:
                for d in range(k.size):
                    k[d] = trial[d]
                value, total = log_paths, cost
                improved = True
        exchanges -= 1
    paths_and_units(net, k, a, core, rim, power, units)
    return value
