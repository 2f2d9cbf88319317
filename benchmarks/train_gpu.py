"""Images per second of masked training, against dense training and a plain DataLoader loop in the same process.

    python benchmarks/train_gpu.py [--device auto] [--quick] [--workers 4] [--write]

Synthetic uint8 images at CIFAR shapes; the goals are for a GPU: masked >= 0.95 of dense, >= 5x the plain loop, which
does as the released repositories do: one image at a time cropped, mirrored and normalised by worker processes, float32,
the loss read after every step; `--many` masks at once >= 6x of topo, dense, counted in images of all nets; masks that
move within 5 % of masks that do not, moves included. `--quick` has tiny sizes, to see on any machine that it runs;
`--write` puts the table into benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

import topo
from topo import models
from topo.data import Dataset
from topo.masks import MaskSet
from topo.train.dynamic import Dynamics
from topo.train.fit import Fit
from topo.train.many import Together
from topo.train.masking import fitted, tensor_of
from topo.train.ranks import ranks
from topo.train.recipe import Recipe
from topo.train.source import Images as Source

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- training: written by benchmarks/train_gpu.py -->", "<!-- end of training -->"
NETS = ("resnet20", "resnet18:stem=cifar")


def synthetic(count: int) -> Dataset:
    """Random images in ten classes; a test part of two, so that an epoch is training and nothing else."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(count) % 10
    moments = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
    return Dataset("synthetic", images, labels, images[:2], labels[:2], tuple("0123456789"), *moments)


def random_masks(model: nn.Module, density: float = 0.1) -> MaskSet:
    rng = np.random.default_rng(0)
    return MaskSet({name: rng.random(shape) < density for name, shape in models.prunable(model).items()})


class Ours:
    """Epochs of topo's loop; dense, masked after the step, or masked in the forward pass."""

    def __init__(self, net: str, data: Dataset, recipe: Recipe, here, masking: str = "none") -> None:
        torch.manual_seed(0)
        model = models.build(net)
        masks, laid, held = random_masks(model), {}, {}
        if masking in ("fused", "moving"):
            held = fitted(model, masks)
            laid = {name: tensor_of(masks[name], held[name], here.device) for name in masks}
        elif masking == "parametrized":
            topo.apply_masks(model, masks)
        self.fit = Fit(model.to(here.device), Source(data, recipe, here), recipe, laid, here, seed=0)
        if masking == "moving":
            how = {"every": recipe.update_every, "alpha": recipe.alpha, "end": 1e9, "seed": 0}
            self.fit.moving = Dynamics("rigl", model, masks, held, laid, **how)

    def epoch(self) -> float:
        """Seconds."""
        self.fit.run_epoch(None)
        return self.fit.history[-1]["seconds"]


class Many:
    """Epochs of train_many's loop: several random masks of one network side by side."""

    def __init__(self, net: str, data: Dataset, recipe: Recipe, here, count: int) -> None:
        masks = [random_masks(models.build(net))] * count
        self.nets, self.count = Together(net, masks, Source(data, recipe, here), recipe, here, range(count), None), 0

    def epoch(self) -> float:
        """Seconds a net."""
        self.nets.run_epoch(self.count, None)
        self.count += 1
        return self.nets.history[0][-1]["seconds"]


class Images(TorchDataset):
    """One image at a time, as torchvision's transforms give them."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.mean, self.std = (torch.tensor(side)[:, None, None] for side in (data.mean, data.std))

    def __len__(self) -> int:
        return len(self.data.train_images)

    def __getitem__(self, index: int):
        image = np.pad(self.data.train_images[index], ((0, 0), (4, 4), (4, 4)))
        top, left, mirror = torch.randint(9, ()).item(), torch.randint(9, ()).item(), torch.rand(()).item() < 0.5
        image = image[:, top : top + 32, left : left + 32]
        image = torch.from_numpy((image[:, :, ::-1] if mirror else image).copy()).float().div(255)
        return (image - self.mean) / self.std, int(self.data.train_labels[index])


class Plain:
    """The plain loop, dense."""

    def __init__(self, net: str, data: Dataset, recipe: Recipe, here, workers: int) -> None:
        torch.manual_seed(0)
        self.device, self.model = here.device, models.build(net).to(here.device)
        pin = here.device.type == "cuda"
        self.loader = DataLoader(Images(data), recipe.batch, shuffle=True, num_workers=workers, pin_memory=pin)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, 0.9, weight_decay=1e-4)
        self.losses: list[float] = []

    def epoch(self) -> float:
        began = time.perf_counter()
        for images, labels in self.loader:
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(images.to(self.device)), labels.to(self.device))
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())
        return time.perf_counter() - began


def measured(net: str, data: Dataset, recipe: Recipe, here, options) -> list[tuple[str, float, float]]:
    """(way, images per second, seconds of its first epoch): the best of several epochs, taken in turns."""
    ways = {
        "plain DataLoader loop, dense": lambda: Plain(net, data, recipe, here, options.workers),
        "topo, dense": lambda: Ours(net, data, recipe, here),
        "topo, masked (fused, as topo.train does)": lambda: Ours(net, data, recipe, here, "fused"),
        "topo, masked (parametrized, as apply_masks does)": lambda: Ours(net, data, recipe, here, "parametrized"),
        "topo, masks that move (rigl, every 100 steps)": lambda: Ours(net, data, recipe, here, "moving"),
        f"topo, {options.many} masks at once (train_many)": lambda: Many(net, data, recipe, here, options.many),
    }
    if here.device.type == "cuda":
        for mode in ("default", "reduce-overhead"):
            compiled = recipe.changed(compile=mode)
            ways[f"topo, dense, compile={mode}"] = lambda r=compiled: Ours(net, data, r, here)
            ways[f"topo, masked (fused), compile={mode}"] = lambda r=compiled: Ours(net, data, r, here, "fused")
    made, first, best = {}, {}, {}
    for way, make in ways.items():
        try:
            made[way] = make()
            first[way] = made[way].epoch()
        except RuntimeError as error:  # a compiler that is not there
            print(f"{net}, {way}: left out, {str(error).strip().splitlines()[0]}")
            made.pop(way, None)
    for _ in range(options.repeats):
        for way, runner in made.items():
            best[way] = min(best.get(way, float("inf")), runner.epoch())
    return [(way, len(data.train_images) / best[way], first[way]) for way in made]


def table(found: dict[str, list[tuple[str, float, float]]]) -> str:
    lines = [
        "| net | way | images/s | of topo, dense | of the plain loop | first epoch |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for net, rows in found.items():
        speeds = {way: speed for way, speed, _ in rows}
        dense, plain = speeds["topo, dense"], speeds["plain DataLoader loop, dense"]
        for way, speed, first in rows:
            mode = way.partition("compile=")[2]
            like = speeds.get(f"topo, dense, compile={mode}", dense) if mode else dense
            lines.append(
                f"| {net} | {way} | {speed:,.0f} | {speed / like:.2f} | {speed / plain:.1f}x | {first:.1f} s |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=4, help="of the plain loop")
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each way, the best counts")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--nets", default=",".join(NETS), help="the networks, with commas between")
    parser.add_argument("--many", type=int, default=32, help="masks that train at once")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    options = parser.parse_args()
    batch = 128
    if options.quick:
        options.images, options.workers, options.repeats, options.many, batch = 128, 0, 1, 2, 32
    recipe = Recipe(epochs=1_000, batch=batch, schedule="constant", lr=0.01, compile="off")
    with ranks(options.device) as here:
        found = {
            net: measured(net, synthetic(options.images), recipe, here, options) for net in options.nets.split(",")
        }
        gpu = here.device.type == "cuda"
        name = torch.cuda.get_device_name(here.device) if gpu else f"CPU, {len(os.sched_getaffinity(0))} cores"
    lines = [
        f"{name}; torch {torch.__version__}; {options.images:,} images of 3x32x32, batches of {batch}, density 0.1, "
        f"{options.workers} workers in the plain loop.",
        "",
        table(found),
    ]
    if not gpu:
        lines[:0] = ["No GPU was available: these figures only show that the script runs. The goals are for a GPU.", ""]
    text = "\n".join(lines)
    print(text)
    if options.write:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
