"""Accuracy of masked nets on the digits: which masks still learn at 10 % to 0.5 % of the weights.

    python benchmarks/train_digits.py [--seeds 5] [--epochs 15] [--only erk,synflow] [--no-imp] [--write]

digits_conv (56,224 weights), recipe `quick`, final-epoch test accuracy on 355 images. For each seed the net, the mask
and the order of the images are drawn anew; the same seed means the same initial weights for every method, so that
differences from random ERK masks are taken seed by seed. Intervals are 95 %, Student's t over the seeds. A few minutes
on one core; `--write` puts the table into benchmarks/README.md.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import topo
from topo import models
from topo.data import Dataset, batches, load
from topo.masks import MaskSet
from topo.networks import build
from topo.train.recipe import Recipe, recipes

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- digits: written by benchmarks/train_digits.py -->", "<!-- end of digits -->"
NET, DENSITIES = "digits_conv", (0.1, 0.03, 0.02, 0.01, 0.005)
# 97.5 % points of Student's t with 1, 2, ... degrees of freedom.
T = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

Maker = Callable[[object, float, int], MaskSet]


def from_shapes(method: str, **options: str) -> Maker:
    return lambda model, density, seed: topo.generate(method, NET, density=density, rng=seed, **options)


def from_weights(method: str, data: Dataset | None = None) -> Maker:
    def make(model, density: float, seed: int) -> MaskSet:
        from topo.pruners import prune

        given = {} if data is None else {"batches": list(batches(data, 100, seed, per_class=10))}
        return prune(method, model, density=density, input_shape=(1, 8, 8), rng=seed, **given)

    return make


def methods(data: Dataset) -> dict[str, Maker]:
    return {
        "erk": from_shapes("erk"),
        "uniform": from_shapes("uniform"),
        "magnitude": from_weights("magnitude"),
        "snip": from_weights("snip", data),
        "synflow": from_weights("synflow"),
        "npb": from_shapes("npb"),
        "balance, water, 8": from_shapes("balance", budgets="water", degree_floor=8),
        "balance, mode paths": from_shapes("balance", mode="paths"),
    }


def interval(values: list[float]) -> str:
    """Mean and half width of the 95 % interval, in percent."""
    if len(values) < 2:
        return f"{100 * values[0]:.1f}"
    half = T[min(len(values) - 1, len(T) - 1)] * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{100 * np.mean(values):.1f} ± {100 * half:.1f}"


def run(options: argparse.Namespace, data: Dataset, recipe: Recipe) -> str:
    seeds, wiring = range(options.seeds), topo.trace(models.build(NET).eval(), (1, 8, 8))
    dense = [topo.train(build(NET, seed), data, recipe=recipe, rng=seed).final_accuracy for seed in seeds]
    lines = ["| masks | density | accuracy % | less random ERK % | effective weights | effective units |"]
    full = topo.MaskSet({name: np.ones(shape, np.bool_) for name, shape in wiring.shapes.items()})
    units = topo.analyze(full, wiring, metrics="effective_units").network["effective_units"]
    lines += ["|---|---:|---:|---:|---:|---:|", f"| dense | 1 | {interval(dense)} | | {full.size:,} | {units:.0f} |"]
    for density in DENSITIES:
        reference: list[float] = []
        for name, make in methods(data).items():
            if options.only and name not in {"erk", *options.only.split(",")}:
                continue
            found, weights, units = [], [], []
            for seed in seeds:
                model = build(NET, seed)
                masks = make(model, density, seed)
                report = topo.analyze(masks, wiring, metrics="effective_params,effective_units").network
                weights.append(float(report["effective_params"]))
                units.append(float(report["effective_units"]))
                found.append(topo.train(model, data, masks=masks, recipe=recipe, rng=seed).final_accuracy)
            reference = reference or found
            gain = "" if name == "erk" else interval([a - b for a, b in zip(found, reference)])
            effective = f"{np.mean(weights):,.0f} | {np.mean(units):.0f}"
            lines.append(f"| {name} | {density:g} | {interval(found)} | {gain} | {effective} |")
    if not options.no_imp:
        levels = [topo.imp(build(NET, seed), data, density=0.1, recipe=recipe, rng=seed).levels for seed in seeds]
        last = [level[-1].final_accuracy for level in levels]
        less = interval([a - b for a, b in zip(last, dense)])
        lines.append(f"| imp, 20 % a level | 0.1 | {interval(last)} | less dense: {less} | | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--only", help="methods, with commas; erk is always there")
    parser.add_argument("--no-imp", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    options = parser.parse_args()
    began = time.perf_counter()
    found = run(options, load("digits"), recipes["quick"].for_epochs(options.epochs))
    text = f"{options.seeds} seeds, {options.epochs} epochs each, {time.perf_counter() - began:.0f} s.\n\n{found}"
    print(text)
    if options.write:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
