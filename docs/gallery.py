"""Draw the gallery, docs/gallery/*.png and its page, from the mask in notebooks/ and from masks and runs made here.

python docs/gallery.py        about a minute; digits are trained on, everything is seeded
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
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
        self.runs = digits_runs()

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
        "Drawn by `python docs/gallery.py`; each is one call, or `topo plot KIND ... -o OUT`.",
        "",
    ]
    for kind, (make, caption) in shown.items():
        draw(kind, *make())
        what = (plots.plots[kind].__doc__ or "").strip().partition("\n")[0]
        lines += [f"## {kind}", "", what, "", f"![{caption}]({kind}.png)", "", f"*{caption}*", ""]
    write_text(HERE / "README.md", "\n".join(lines))


if __name__ == "__main__":
    main()
