"""AutoSparse: a small network learns from pruned networks which weights survive, and scores those of others.

It sees two numbers of each weight, its value before training and the loss's gradient there, standardised layer by
layer, and answers with the share of rounds that the weight should survive.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from topo._support.atomic import replacing
from topo.containers.safetensors import steady
from topo.errors import TopoError
from topo.pruners import pruner
from topo.pruners.network import Batches, Network, Scores
from topo.pruners.search_state import SearchState

DATA, PREDICTOR = "topo-irp/1", "topo-autosparse/1"
FEATURES = "value before training, gradient of the mean loss; standardised by layer"
_WIDTHS = (2, 16, 64, 1024, 1024, 64, 1)
_TINY = 1e-7


@pruner(
    data="batches", cost="a backward pass a batch, and a small network over every weight",
    source="AutoSparse, the predictor of survival under iterative pruning; here with the small network",
    modes=("eval", "train", "statistics"),
)  # fmt: skip
def autosparse(net: Network, batches: Batches, *, rng: np.random.Generator, predictor: str = "") -> Scores:
    """What a predictor, learned from other networks, says of each weight's survival: -O predictor=FILE.

    `topo irp` writes what it learns from, `topo autosparse fit` the file. The gradient is that of the batches, in eval
    mode, where the data of `topo irp` have that of the whole training part.
    """
    if not predictor:
        raise TopoError("autosparse needs -O predictor=FILE, which `topo autosparse fit` writes")
    module = read_predictor(predictor)
    slopes = net.gradients(batches)
    found = {}
    for name, weight in net.weights.items():
        rows = standardised(weight.detach().reshape(-1).cpu(), slopes[name].reshape(-1).cpu())
        with torch.no_grad():
            said = torch.cat([module(part) for part in rows.split(65_536)])
        found[name] = said.reshape(weight.shape).to(weight.device)
    return found


def build_predictor() -> nn.Sequential:
    """MLP 2-16-64-1024-1024-64-1, batch norm and ReLU after each layer but the last."""
    parts: list[nn.Module] = []
    for before, after in pairwise(_WIDTHS[:-1]):
        parts += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(*_WIDTHS[-2:]))


def standardised(values: Tensor, slopes: Tensor) -> Tensor:
    """(weights, 2): each feature of a layer less its mean, by its standard deviation."""
    rows = torch.stack([values, slopes], 1).double()
    return ((rows - rows.mean(0)) / rows.std(0, correction=0).clamp(min=1e-30)).float()


def fit_predictor(
    layers: Sequence[tuple[Tensor, Tensor, Tensor]],
    epochs: int = 10,
    seed: int = 0,
    batch: int = 1024,
    state: str | Path = "",
) -> nn.Sequential:
    """Learn from layers (values, gradients, share of rounds survived, 0 to 1): mean square, Adam at .01, in eval mode.

    state: a file that keeps what was reached after each epoch; a fit that was killed goes on from it, bit for bit.
    TopoError where there are fewer than two weights.
    """
    rows = torch.cat([standardised(value.reshape(-1), slope.reshape(-1)) for value, slope, _ in layers])
    wanted = torch.cat([label.reshape(-1).float() for *_, label in layers])
    if len(rows) < 2:
        raise TopoError(f"there are {len(rows)} weights to learn from; a predictor needs two at least")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_predictor()
        optimizer = torch.optim.Adam(module.parameters(), 0.01)
        kept, start = SearchState(state, ["autosparse", epochs, seed, batch], [rows, wanted]), 0
        if (held := kept.read()) is not None:
            module.load_state_dict(held["module"])
            optimizer.load_state_dict(held["optimizer"])
            start = held["epoch"]
        for epoch in range(start, epochs):
            for places in torch.randperm(len(rows)).split(batch):
                if len(places) > 1:  # batch norm needs two
                    optimizer.zero_grad()
                    F.mse_loss(module(rows[places])[:, 0], wanted[places]).backward()
                    optimizer.step()
            kept.write(epoch=epoch + 1, module=module.state_dict(), optimizer=optimizer.state_dict())
    return module.eval()


def fit(
    data: Sequence[str | Path], out: str | Path, epochs: int = 10, seed: int = 0, resume: bool = False
) -> nn.Sequential:
    """Learn from files of `topo irp` and write the predictor; survival counts y are scaled by (y - min) / (max - min).

    resume: go on from OUT.state, which holds what was reached after each epoch and goes when the predictor is there.

    TopoError, one line, for a file that is none of `topo irp`'s, and for counts that are all the same.
    """
    layers = []
    for path in data:
        found = read_survival(path)
        counts = torch.cat([count.reshape(-1) for *_, count in found.values()]).double()
        least, most = float(counts.min()), float(counts.max())
        if least == most:
            raise TopoError(f"in '{path}' every weight survived {least:g} rounds: there is nothing to learn")
        layers += [(v, g, (y.double() - least + _TINY) / (most - least + _TINY)) for v, g, y in found.values()]
    left = Path(f"{out}.state")
    if not resume:
        left.unlink(missing_ok=True)
    module = fit_predictor(layers, epochs, seed, state=left)
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    with replacing(Path(out)) as temporary:
        save_file(state, temporary, {"format": PREDICTOR, "features": FEATURES})
        steady(temporary)
    left.unlink(missing_ok=True)
    return module


def read_predictor(path: str | Path) -> nn.Sequential:
    """TopoError, one line, for a file that is not a predictor, or one of other features."""
    tensors, about = _read(path, PREDICTOR, "a predictor of `topo autosparse fit`")
    if about.get("features") != FEATURES:
        raise TopoError(f"the predictor '{path}' sees other features: {about.get('features')}; it should be {FEATURES}")
    module = build_predictor()
    try:
        module.load_state_dict(tensors)
    except RuntimeError:
        raise TopoError(f"'{path}' holds other layers than a predictor's, {'-'.join(map(str, _WIDTHS))}") from None
    return module.eval()


def write_survival(path: str | Path, layers: dict[str, tuple[Tensor, Tensor, Tensor]], about: dict[str, Any]) -> None:
    """Values before training, gradients there and survival counts of every layer, as safetensors."""
    tensors = {}
    for name, parts in layers.items():
        for what, part in zip(("value", "gradient", "survived"), parts):
            tensors[f"{name}:{what}"] = part.contiguous()
    with replacing(Path(path)) as temporary:
        save_file(tensors, temporary, {"format": DATA, "about": json.dumps(about)})
        steady(temporary)


def read_survival(path: str | Path) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Layer -> (value, gradient, survived); TopoError, one line, for a file that is none of `topo irp`'s."""
    tensors, _ = _read(path, DATA, "survival counts of `topo irp`")
    names = dict.fromkeys(key.rpartition(":")[0] for key in tensors)
    found = {}
    for name in names:
        try:
            parts = tuple(tensors[f"{name}:{what}"] for what in ("value", "gradient", "survived"))
        except KeyError as error:
            raise TopoError(f"'{path}' lacks {error}, and holds other parts of that layer") from None
        if len({part.shape for part in parts}) > 1:
            raise TopoError(f"in '{path}' the parts of '{name}' differ in shape")
        found[name] = (parts[0], parts[1], parts[2])
    if not found:
        raise TopoError(f"'{path}' holds no layer")
    return found


def _read(path: str | Path, kind: str, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("format") != kind:
                raise TopoError(f"'{path}' holds no {what.removeprefix('a ')}")
            return {key: file.get_tensor(key) for key in file.keys()}, about
    except (OSError, SafetensorError) as error:
        said = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise TopoError(f"cannot read '{path}' as {what}: {said}") from None
