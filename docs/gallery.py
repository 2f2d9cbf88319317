"""Draw the gallery, docs/gallery/*.png and its page, from the mask in notebooks/ and from masks and runs made here.

python docs/gallery.py [KIND ...]        about a minute; digits are trained on, everything is seeded
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image

import topo
from topo import plots
from topo._support.atomic import replacing, write_text
from topo.networks import build, find_wiring
from topo.optimize import frontier

HERE = Path(__file__).parent / "gallery"
MASK = Path(__file__).parents[1] / "notebooks" / "masks" / "synflow_resnet20_d0.02.safetensors"
DPI, COLOURS, MOST_BYTES = 130, 128, 60_000
MLP = "mlp:64-100-100-10"


class Material:
    """What is drawn: made once."""

    def __init__(self) -> None:
        self.resnet20, self.lenet = find_wiring("resnet20"), find_wiring("lenet300")
        self.synflow = topo.read_masks(MASK)
        self.erk = topo.generate("erk", self.resnet20, density=0.02)
        self.biregular = topo.generate("biregular", self.resnet20, density=0.02)
        self.lenets = {
            method: topo.generate(method, self.lenet, density=0.05) for method in ("uniform", "biregular", "block")
        }

    @cached_property
    def runs(self) -> list[dict[str, Any]]:
        return digits_runs()

    @cached_property
    def reports(self) -> list[topo.Report]:
        """ERK and uniform masks of ResNet-20, four densities, three seeds."""
        every = [(m, d, s) for m in ("erk", "uniform") for d in (0.01, 0.02, 0.05, 0.1) for s in range(3)]
        return [
            topo.analyze(topo.generate(m, self.resnet20, density=d, rng=s), self.resnet20, metrics="paths",
                         mask_name=f"{m} {100 * d:g} % s{s}")
            for m, d, s in every
        ]  # fmt: skip

    def report(self, masks: Any, metrics: str) -> topo.Report:
        return topo.analyze(masks, self.resnet20, metrics=metrics)


def digits_runs() -> list[dict[str, Any]]:
    """Accuracies of a small MLP on digits: a row for each method, density and seed."""
    wiring, rows = find_wiring(MLP), []
    for density in (0.2, 0.1, 0.05, 0.03, 0.02):
        for method in ("uniform", "erk", "biregular", "block"):
            for seed in range(3):
                masks = topo.generate(method, wiring, density=density, rng=seed)
                network = topo.analyze(masks, wiring, metrics="mean_log_density,effective_density").network
                run = topo.train(MLP, "digits", masks=masks, epochs=10, rng=seed, device="cpu", threads=1)
                row = {"method": method, "density": density, "sparsity": 1 - density, "seed": seed}
                rows.append({**row, "accuracy": run.final_accuracy, **network})
    run = topo.train(MLP, "digits", epochs=10, device="cpu", threads=1)
    return [*rows, {"method": "dense", "density": 1.0, "sparsity": 0.0, "seed": 0, "accuracy": run.final_accuracy}]


def courses() -> list[topo.train.Run]:
    """Runs of two methods at 2 %, three seeds each."""
    wiring = find_wiring(MLP)
    every = [(method, seed) for method in ("uniform", "erk") for seed in range(3)]
    masks = [topo.generate(method, wiring, density=0.02, rng=seed) for method, seed in every]
    return [
        topo.train(MLP, "digits", masks=held, epochs=10, rng=seed, device="cpu", threads=1)
        for held, (_, seed) in zip(masks, every)
    ]


# Kind -> (the command, the call), as for the data that are named below the picture.
SYNFLOW = "notebooks/masks/synflow_resnet20_d0.02.safetensors"
CALLS = {
    "layered_graph": (f"{SYNFLOW} --model resnet20", 'layered_graph(masks, wiring="resnet20")'),
    "nodes_paths": ("all.json", "nodes_paths({method: reports, ...})"),
    "density_profile": (f"SynFlow={SYNFLOW} ERK=erk.safetensors --model resnet20", "density_profile({label: report})"),
    "layer_profile": (
        f"{SYNFLOW} --model resnet20 -O metric=ramanujan_gap -O null=shuffle:20",
        'layer_profile(masks, "ramanujan_gap", null="shuffle:20", wiring="resnet20")',
    ),
    "ramanujan_profile": (f"{SYNFLOW} --model resnet20", "ramanujan_profile(report)"),
    "spectrum": (f"{SYNFLOW} -O layer=blocks.8.conv2", 'spectrum(masks, layer="blocks.8.conv2")'),
    "degree_distribution": (
        "uniform.npz biregular.npz block.npz -O layer=fc1 -O relative=no",
        'degree_distribution({label: masks}, layer="fc1", relative=False)',
    ),
    "mask_matrix": (f"{SYNFLOW} -O layer=blocks.0.conv1", 'mask_matrix(masks, layer="blocks.0.conv1")'),
    "path_flow": ("uniform.npz --model lenet300", 'path_flow(masks, wiring="lenet300")'),
    "mask_overlap": (f"SynFlow={SYNFLOW} ERK=erk.npz biregular=biregular.npz", "mask_overlap({label: masks})"),
    "mask_dynamics": (
        "0.npz 1.npz 2.npz 3.npz 4.npz 5.npz --model digits_conv -O metric=log10_effective_paths",
        'mask_dynamics(masks, metric="log10_effective_paths", wiring="digits_conv")',
    ),
    "accuracy_sparsity": ("RESULTS", "accuracy_sparsity(rows)"),
    "metric_accuracy": ("RESULTS -O metric=effective_density", 'metric_accuracy(rows, metric="effective_density")'),
    "metric_sparsity": ("all.json -O metric=effective_nodes", 'metric_sparsity(reports, metric="effective_nodes")'),
    "metric_heatmap": (
        "all.json -O metric=effective_density -O group=auto",
        'metric_heatmap(reports, metric="effective_density", group="auto")',
    ),
    "null_forest": ("report.json", "null_forest(report)"),
    "dead_units": (f"{SYNFLOW} --model resnet20", 'dead_units(masks, wiring="resnet20")'),
    "training_curves": ("runs/*", "training_curves(runs)"),
    "ranking": ("RESULTS", "ranking(rows)"),
    "frontier": ("frontier.json", "frontier(front)"),
}


def course() -> dict[str, topo.MaskSet]:
    """Masks of SynFlow at falling densities, each scored anew."""
    densities = (0.5, 0.25, 0.12, 0.06, 0.03, 0.015)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("digits_conv")
    masks = [topo.generate("synflow", model, density=d, input_shape=(1, 8, 8)) for d in densities]
    return {str(step): found for step, found in enumerate(masks)}


def figures(m: Material) -> dict[str, tuple[Callable[[], tuple[Any, dict[str, Any]]], str]]:
    """Kind -> (what it is drawn of, and with which options; what is seen)."""
    both = {"SynFlow": m.synflow, "ERK": m.erk, "biregular": m.biregular}
    return {
        "layered_graph": (lambda: (m.synflow, {"wiring": m.resnet20}), "SynFlow's ResNet-20 at 2 %: what is alive"),
        "nodes_paths": (
            lambda: (
                {
                    method: [
                        m.report(topo.generate(method, m.resnet20, density=d), "paths") for d in (0.01, 0.02, 0.05, 0.1)
                    ]
                    for method in ("uniform", "erk", "block", "npb", "balance")
                }
                | {"SynFlow": [m.report(m.synflow, "paths")]},
                {},
            ),
            "ResNet-20: random masks, npb and balance at four densities, and SynFlow at 2 %",
        ),
        "density_profile": (
            lambda: ({k: m.report(v, "paths") for k, v in both.items() if k != "biregular"}, {}),
            "where two methods spend 2 % of ResNet-20",
        ),
        "layer_profile": (
            lambda: (m.synflow, {"metric": "ramanujan_gap", "null": "shuffle:20", "wiring": m.resnet20}),
            "a metric of each layer against twenty masks with the same layer densities, in one call",
        ),
        "ramanujan_profile": (
            lambda: (m.report(m.synflow, "kept,ramanujan_gap,imdb"), {}),
            "which layers are as good expanders as Ramanujan graphs",
        ),
        "spectrum": (
            lambda: (m.synflow, {"layer": "blocks.8.conv2"}),
            "all singular values of a layer, and those of twenty shuffled layers",
        ),
        "degree_distribution": (
            lambda: (m.lenets, {"layer": "fc1", "relative": False}),
            "fan-ins of LeNet-300-100's first layer, three methods at 5 % in all",
        ),
        "mask_matrix": (
            lambda: (m.synflow, {"layer": "blocks.0.conv1"}),
            "one layer of SynFlow's mask, sorted by degree",
        ),
        "path_flow": (
            lambda: (topo.generate("uniform", m.lenet, density=0.03), {"wiring": m.lenet}),
            "which units carry the paths of LeNet-300-100 at 3 %",
        ),
        "mask_overlap": (lambda: (both, {}), "what three masks of one density share"),
        "mask_dynamics": (
            lambda: (course(), {"wiring": find_wiring("digits_conv"), "metric": "log10_effective_paths"}),
            "SynFlow's masks of a small network at six falling densities",
        ),
        "accuracy_sparsity": (lambda: (m.runs, {}), "a small MLP on digits, ten epochs, three seeds"),
        "metric_accuracy": (
            lambda: ([row for row in m.runs if row["method"] != "dense"], {"metric": "effective_density"}),
            "the same runs, means over seeds: does a metric say more than densities?",
        ),
        "metric_sparsity": (
            lambda: (m.reports, {"metric": "effective_nodes"}),
            "effective nodes of ResNet-20, means of three seeds and their 95 % interval",
        ),
        "metric_heatmap": (
            lambda: (m.reports, {"metric": "effective_density", "group": "auto"}),
            "effective densities of ResNet-20's layers, two methods at four densities",
        ),
        "null_forest": (
            lambda: (
                topo.analyze(m.lenets["block"], m.lenet, metrics="paths", nulls={"same_layers": 40, "same_rows": 40}),
                {},
            ),
            "LeNet-300-100's block mask at 5 % against masks with the same layer densities, and the same fan-ins",
        ),
        "dead_units": (
            lambda: (m.report(m.synflow, "paths"), {}),
            "units of ResNet-20 that SynFlow's mask at 2 % leaves without an edge, or off all paths",
        ),
        "training_curves": (lambda: (courses(), {}), "a small MLP on digits, two methods at 2 %, three seeds"),
        "ranking": (
            lambda: ([row for row in m.runs if row["method"] != "dense"], {}),
            "the methods of the same runs, ranked within each density and seed",
        ),
        "frontier": (
            lambda: (frontier(m.lenet, total=8000, points=9), {}),
            "LeNet-300-100 with 8,000 parameters: nodes against paths",
        ),
    }


def draw(kind: str, data: Any, options: dict[str, Any]) -> None:
    """One picture, in few colours so that it stays small."""
    with plots.paper("neurips"):
        figure, call = plots.figure(), plots.plots[kind]
        place = {"fig": figure} if "fig" in inspect.signature(call).parameters else {"ax": figure.add_subplot()}
        call(data, **place, **options)
        path = HERE / f"{kind}.png"
        plots.save(figure, path, dpi=DPI)
    with Image.open(path) as image, replacing(path) as temporary:
        image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            temporary, "PNG", optimize=True
        )
    if path.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{path} has {path.stat().st_size:,} bytes; it should have at most {MOST_BYTES:,}")


def main() -> None:
    matplotlib.use("agg")
    np.seterr(all="raise", under="ignore")
    HERE.mkdir(exist_ok=True)
    shown = figures(Material())
    missing = set(plots.plots) - set(shown)
    if missing:
        raise SystemExit(f"the gallery lacks: {', '.join(sorted(missing))}")
    lines = [
        "# Figures",
        "",
        "Drawn by `python docs/gallery.py`, which makes the data; beside each, its data and calls.",
        "",
    ]
    for kind in sys.argv[1:]:
        if kind not in shown:
            raise SystemExit(f"'{kind}' is not a figure; there are: {', '.join(shown)}")
    for kind, (make, caption) in shown.items():
        if kind in sys.argv[1:] or len(sys.argv) == 1:
            draw(kind, *make())
        elif not (HERE / f"{kind}.png").is_file():
            continue
        what = (plots.plots[kind].__doc__ or "").strip().partition("\n")[0]
        given, call = CALLS[kind]
        lines += [f"## {kind}", "", what, "", f"![{caption}]({kind}.png)", ""]
        lines += [f"* Data: {caption}", f"* Command: `topo plot {kind} {given} -o {kind}.pdf`",
                  f"* Python: `topo.plots.{call}`", ""]  # fmt: skip
    write_text(HERE / "README.md", "\n".join(lines))


if __name__ == "__main__":
    main()
