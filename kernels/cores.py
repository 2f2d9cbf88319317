"""Core and periphery: how many units of each stream form a dense core, so that the network has most paths.

The network at large: nodes are the parts of tensors that belong to one stream, and every unit of a node is core or
periphery. A step reads nodes in_node[in_ptr[e] : in_ptr[e + 1]], each unit in_mult times, and makes out_node[...]:
    kind 0, a layer   core x core kernels hold kernel_size[e] units; other units that need cover have one, as row or
    column kind 1, a join    every made node is the sum of the nodes that it reads, position by position
    kind 2, depthwise a core channel holds kernel_size[e] units, another one
    kind 3, kept whole every unit reads every unit, core or not
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
            everything = 0.0
            for t in range(first, last):
                u, many = in_node[t], in_mult[t]
                s, scale = stream[u], _BIG ** (power[u] - p)
                side += k[s] * many
                flow += k[s] * many * core[u] * scale
                everything += many * (k[s] * core[u] + (a[s] - k[s]) * rim[u]) * scale
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
            if kind[e] == 3:
                all_in, all_out = 0.0, 0.0
                for t in range(first, last):
                    all_in += a[stream[in_node[t]]] * in_mult[t]
                for t in range(out_ptr[e], out_ptr[e + 1]):
                    v = out_node[t]
                    all_out += a[stream[v]]
                    core[v] = everything * kernel_size[e] / groups[e]
                    rim[v] = core[v]
                    power[v] = p
                units[e] = all_in * all_out * kernel_size[e] / groups[e]
            mean_core = flow / side if side > 0 else 0.0
            mean_rest = rest / rows if rows > 0 else 0.0
            for t in range(out_ptr[e], out_ptr[e + 1] if kind[e] == 0 else out_ptr[e]):
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
def _value(net, limits, k, a, core, rim, power, units):
    """(log paths, units in all, their price), log paths -inf where a limit is passed."""
    total, spend, price, most = limits
    value, held = paths_and_units(net, k, a, core, rim, power, units)
    spent, fits = 0.0, held <= total
    for e in range(units.size):
        spent += price[e] * units[e]
        fits = fits and units[e] <= most[e]
    return (value if fits and spent <= spend else -np.inf), held, spent


@nb.njit(cache=True, nogil=True)
def log_paths(net, limits, k, a, units):
    """Log paths of cores k of active units a, and units (steps,) filled; -inf where they pass a limit: `best_cores`."""
    nodes = net[10].size
    return _value(net, limits, k, a, np.empty(nodes), np.empty(nodes), np.empty(nodes, np.int64), units)[0]


@nb.njit(cache=True, nogil=True)
def _climb(net, limits, k, a, step, weight, at, core, rim, power, units):
    """Grow one core by one or two steps, whichever gives most log paths for its share of the limits, while they fit."""
    value, held, spent = at
    while True:
        best, chosen, more = 0.0, -1, 0
        best_at = at
        for c in range(k.size):
            for turn in range(1, 3):
                grown = min(turn * step[c], a[c] - k[c])
                if grown <= 0 or (turn == 2 and grown <= step[c]):
                    continue
                k[c] += grown
                found = _value(net, limits, k, a, core, rim, power, units)
                k[c] -= grown
                if found[0] > value + 1e-12:
                    share = (found[1] - held) / limits[0] + weight * (found[2] - spent) / limits[1]
                    rate = (found[0] - value) / max(share, 1e-12)
                    if chosen < 0 or rate > best:
                        best, chosen, more, best_at = rate, c, grown, found
        if chosen < 0:
            return value, held, spent
        k[chosen] += more
        value, held, spent = best_at


@nb.njit(cache=True, nogil=True)
def best_cores(net, limits, k, a, step, weight, exchanges, units):
    """k, a, step (streams,) int64: cores, active units, growth at a time -> log paths; k, units (steps,) are filled.

    net: the tuple (kind, in_ptr, in_node, in_mult, out_ptr, out_node, out_need, row_need, kernel_size, groups, stream
    of each node, nodes where paths start, nodes where they end). limits: (units in all, price of all, price (steps,) of
    a unit, most (steps,) units of a step). Cores start at k and grow greedily, by log paths for a share of the units
    and `weight` times the share of the price; then one gives up 1, 2 or 4 steps, another takes one, and growth goes on,
    as long as that helps, at most `exchanges` times. -inf if not even the start fits.
    """
    nodes = net[10].size
    core, rim, power = np.empty(nodes), np.empty(nodes), np.empty(nodes, np.int64)
    at = _value(net, limits, k, a, core, rim, power, units)
    if at[0] == -np.inf:
        return -np.inf
    at = _climb(net, limits, k, a, step, weight, at, core, rim, power, units)
    trial = k.copy()
    improved = True
    while improved and exchanges > 0:
        improved = False
        for c in range(k.size):
            for times in (1, 2, 4):
                if k[c] <= times * step[c]:
                    continue
                best, best_at = -1, (-np.inf, 0.0, 0.0)
                for d in range(k.size):
                    trial[d] = k[d]
                trial[c] -= times * step[c]
                for d in range(k.size):
                    grown = min(step[d], a[d] - trial[d])
                    if d == c or grown <= 0:
                        continue
                    trial[d] += grown
                    found = _value(net, limits, trial, a, core, rim, power, units)
                    trial[d] -= grown
                    if found[0] > best_at[0]:
                        best, best_at = d, found
                if best < 0:
                    continue
                trial[best] += min(step[best], a[best] - trial[best])
                found = _climb(net, limits, trial, a, step, weight, best_at, core, rim, power, units)
                if found[0] > at[0] + 1e-9:
                    for d in range(k.size):
                        k[d] = trial[d]
                    at, improved = found, True
        exchanges -= 1
    _value(net, limits, k, a, core, rim, power, units)
    return at[0]
