"""Twins of ReLUs that never fire and of pairs without a path: weights counted one by one, walks unit by unit."""

from __future__ import annotations

import math
from collections import Counter

from naive.net import Net


def expected_dead_relu_share(net: Net):
    effective = net.forward & net.backward
    shares = []
    for layer in net.layers:
        fan_in = Counter(v for _, u, v in net.parameters(layer) if u in effective)
        hidden = [unit for unit in range(layer.start, layer.stop) if unit in effective and unit not in net.ends]
        shares += [0.5 ** fan_in[unit] for unit in hidden]
    return sum(shares) / len(shares) if shares else math.nan


def pairs_joined(net: Net):
    effective = net.forward & net.backward
    starts, ends = net.starts & effective, net.ends & effective
    joined = 0
    for start in starts:
        seen, waiting = {start}, [start]
        while waiting:
            for _, unit in net.arcs.get(waiting.pop(), ()):
                if unit not in seen and unit in effective:
                    seen.add(unit)
                    waiting.append(unit)
        joined += len(seen & ends)
    return joined / (len(starts) * len(ends)) if starts and ends else math.nan
