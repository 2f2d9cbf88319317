"""Nodes, paths, width and FLOPs of masks of equal parameters, against `npb`: the tables of benchmarks/README.md.

python benchmarks/nodes_paths_flops.py resnet18:stem=tiny vgg19 [--density .1 .02 .01 .005]

FLOPs are shares of dense. A row dominates `npb` where nodes, paths and FLOPs are all at least as good. Seconds are
processor time of one mask.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import topo
from topo.masks import MaskSet
from topo.networks import find_wiring
from topo.wiring import Wiring

COUNTED = ("effective_nodes", "log10_effective_paths", "path_entropy_width", "flops_kept", "flops_dense")
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "npb": ("npb", {}),
    "balance, mode=paths, flops=npb": ("balance", {"mode": "paths", "flops": "npb"}),
    "balance, flops=npb": ("balance", {"flops": "npb"}),
    "balance": ("balance", {}),
}


def counted(masks: MaskSet, wiring: Wiring) -> tuple[int, float, float, float]:
    """Nodes, log10 paths, width and FLOPs as a share of dense."""
    found = topo.analyze(masks, wiring, metrics=COUNTED).network
    nodes, paths, width, kept, dense = (found[name] for name in COUNTED)
    return int(nodes), float(paths), float(width), kept / dense


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="+")
    parser.add_argument("--density", type=float, nargs="+", default=[0.1, 0.02, 0.01, 0.005])
    given = parser.parse_args()
    for network in given.network:
        wiring = find_wiring(network)
        whole = counted(topo.generate("uniform", wiring, density=1.0), wiring)[0]
        print(f"\n| {network} | masks | nodes of {whole:,} | log10 paths | width | FLOPs | dominates npb | seconds |")
        print("| ---: | --- | ---: | ---: | ---: | ---: | --- | ---: |", flush=True)
        for density in given.density:
            rival: tuple[int, float, float, float] | None = None
            for name, (method, options) in METHODS.items():
                began = time.process_time()
                try:
                    masks = topo.generate(method, wiring, density=density, rng=0, **options)
                except topo.TopoError as error:
                    print(f"| {100 * (1 - density):g} % | {name} | {error} | | | | | |", flush=True)
                    continue
                took = time.process_time() - began
                nodes, paths, width, flops = found = counted(masks, wiring)
                rival = rival or found
                better = nodes >= rival[0] and paths >= rival[1] and flops <= rival[3] and found is not rival
                print(
                    f"| {100 * (1 - density):g} % | {name} | {nodes:,} | {paths:.2f} | {width:,.0f} | {flops:.4f} "
                    f"| {'' if found is rival else 'yes' if better else 'no'} | {took:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
