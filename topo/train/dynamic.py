"""Masks that move while a network trains: in each layer the smallest weights go, and as many grow elsewhere.

A rule of growth is a function `(layer) -> scores` under `@dynamic(NAME, ...)`: of the positions that hold no weight
those of the highest scores grow. Everything else is written once: when masks move, how many weights, ties, momentum,
constant fan-in. A rule sees every layer as a matrix, a row an output unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, floor, pi
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from topo._support.doors import called, check_flags, check_function, check_text, summary
from topo._support.registry import Registry
from topo._support.seeds import as_rng
from topo.errors import TopoError, TrainingError
from topo.kernels.links import three_link_scores
from topo.masks import MaskSet
from topo.models.modules.holders import holder
from topo.models.modules.stored import Storage
from topo.train.feed import mixed

dynamics = Registry("dynamic method", group="topo.dynamics")


@dataclass(frozen=True)
class Layer:
    """What a rule of growth sees of a layer.

    mask: (units, inputs), the weights that stay. gradient: of the loss, by every weight, kept or not. groups: blocks of
    rows that read different inputs (groups of a convolution, experts). draw: a generator on the CPU, seeded by run and
    step.
    """

    mask: Tensor
    gradient: Tensor
    groups: int
    draw: torch.Generator

    def noise(self) -> Tensor:
        """A number from U(0, 1) for every weight, the same on every device."""
        return torch.rand(self.mask.shape, generator=self.draw).to(self.mask.device)


@dataclass(frozen=True)
class Dynamic:
    """A registered rule of growth. even: whether every output unit keeps as many weights as before."""

    name: str
    score: Callable[[Layer], Tensor]
    source: str
    even: bool = False

    @property
    def description(self) -> str:
        """First line of the docstring."""
        return (summary(self.score) or self.name).rstrip(".")


def dynamic(name: str, *, source: str, even: bool = False) -> Callable[[Callable], Callable]:
    """Decorator: enter a rule of growth under `name`; arguments as in `Dynamic`.

    TopoError for a function that cannot be called as (layer), or says nothing of itself.
    """

    def enter(function: Callable) -> Callable:
        plugin = f"dynamic method '{name}'"
        check_text(plugin, source=source)
        check_flags(plugin, even=even)
        check_function(plugin, function, "layer")
        dynamics.add(name)(Dynamic(name, function, source, even))
        return function

    return enter


@dynamic("set", source="Mocanu et al. 2018, algorithm 2; the schedule of Evci et al. 2020")
def at_random(layer: Layer) -> Tensor:
    """Weights grow at random."""
    return layer.noise()


@dynamic("rigl", source="Evci et al. 2020, section 3")
def by_gradient(layer: Layer) -> Tensor:
    """Weights grow where the loss's gradient is largest."""
    return layer.gradient.abs()


@dynamic("rigl_constant", source="after Lasby et al. 2024 (SRigL), section 3, without the removal of units", even=True)
def evenly_by_gradient(layer: Layer) -> Tensor:
    """As rigl, and every output unit keeps the same number of inputs."""
    return layer.gradient.abs()


@dynamic("cht", source="Zhang et al. 2024 (CHT), section 3; Muscoloni et al. 2020 for the score; drawn as in CHTs")
def by_links(layer: Layer) -> Tensor:
    """Weights grow by lot, with odds by the number of paths of three links between their ends (CH3-L3)."""
    scores = torch.cat([link_scores(part) for part in layer.mask.chunk(layer.groups)])
    # Largest of log(score) + Gumbel noise: drawn without replacement, with odds by the score.
    return scores.clamp(min=1e-30).log() - (-layer.noise().clamp(min=1e-7).log()).log()


def link_scores(mask: Tensor) -> Tensor:
    """CH3-L3 of every pair (u, v) of a unit and an input that are not linked; what stands at links has no meaning.

    sum over the paths u - z1 - z2 - v of 1 / sqrt((1 + e(z1)) (1 + e(z2))), e the links of z1 (z2) that lead neither to
    u nor v nor to another node on such a path. As many additions as there are such paths, on the processor.
    """
    links = mask.float()
    inputs, units = links.sum(0), links.sum(1)
    # Of z1's links one leads to u, and as many on such a path as z1 and v have units in common.
    first = (inputs[:, None] - links.T @ links).clamp(min=1).rsqrt().cpu().numpy()
    second = (units[:, None] - links @ links.T).clamp(min=1).rsqrt().cpu().numpy()
    kept = mask.cpu().numpy()
    by_unit, by_input = csr_array(kept), csr_array(kept.T)
    scores = np.empty(kept.shape, np.float32)
    three_link_scores(by_unit.indptr, by_unit.indices, by_input.indptr, by_input.indices, first, second, scores)
    return torch.from_numpy(scores).to(mask.device)


class Dynamics:
    """The moving masks of a run.

    At every step t = every, 2 every, ... below `until` of all steps, f = alpha / 2 (1 + cos(pi t / T_end)), and of each
    layer's n weights the floor(f n) smallest go. As many grow where no weight was (where a layer has too few such
    places, some that went come back). New weights are 0, and so is momentum of all that do not stay.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        masks: MaskSet,
        held: Mapping[str, Storage],
        laid: Mapping[str, Tensor],
        *,
        every: int,
        alpha: float,
        end: float,
        seed: int,
    ) -> None:
        """laid: the masks as bool tensors in the parameters' layout, which are changed in place. end: T_end, in steps.

        TrainingError for a weight that cannot be dropped: computed by a parametrization, frozen, or masked twice.
        """
        self.rule: Dynamic = dynamics[name]
        self.every, self.alpha, self.end, self.seed = every, alpha, end, seed
        self.start, self.held, self.laid = masks, held, laid
        self.places: dict[str, nn.Parameter] = {}
        self.turns: dict[str, Tensor | None] = {}
        self.groups: dict[str, int] = {}
        seen: dict[int, str] = {}
        for mask in masks:
            if mask not in laid:
                raise TrainingError(f"'{mask}' is computed by a parametrization; sparse = '{name}' moves plain weights")
            place = holder(model, mask)
            parameter = model.get_parameter(place.name)
            if not parameter.requires_grad:
                raise TrainingError(f"'{mask}' is frozen and has no gradient; sparse = '{name}' cannot move its mask")
            if (twin := seen.setdefault(id(parameter), mask)) != mask:
                raise TrainingError(f"'{twin}' and '{mask}' are one weight; sparse = '{name}' needs one mask for it")
            self.places[mask] = parameter
            how = held[mask]
            self.groups[mask] = how.shape[0] if how.stacked else getattr(place.module, "groups", 1)
            order = how.mask(np.arange(parameter.numel()).reshape(how.shape)).reshape(-1) if how.turned else None
            self.turns[mask] = None if order is None else torch.from_numpy(order.copy()).to(parameter.device)

    def share(self, step: int) -> float:
        """f at step t = 1, 2, ...: alpha / 2 (1 + cos(pi t / T_end)), and 0 from T_end on."""
        return self.alpha / 2 * (1 + cos(pi * step / self.end)) if step < self.end else 0.0

    def due(self, step: int) -> bool:
        """Whether masks move in place of this step of the optimizer."""
        return self.alpha > 0 and step % self.every == 0 and step < self.end

    @torch.no_grad()
    def move(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Move every mask by the gradients of now; the weights that stay, by name, as bool tensors."""
        draw = torch.Generator().manual_seed(mixed(self.seed, 2, step))
        stays = {}
        for name, parameter in self.places.items():
            mask, turn = self.laid[name], self.turns[name]
            rows = self.held[name].mask_shape[0]
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            before, weight, slope = (_rows(each, turn, rows) for each in (mask, parameter, gradient))
            count = floor(self.share(step) * int(before.sum()))
            gone = highest(-weight.abs(), count, before, draw)
            layer = Layer(before & ~gone, slope, self.groups[name], draw)
            scores = torch.nan_to_num(self._scores(name, layer), nan=-torch.inf, posinf=torch.finfo(torch.float32).max)
            grown = _grown(scores, before, gone, draw, self.rule.even)
            stays[name] = _laid(before & ~gone, turn, mask.shape)
            mask.copy_(_laid(layer.mask | grown, turn, mask.shape))
            parameter.mul_(stays[name])
            for value in optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.mul_(stays[name])
        return stays

    def _scores(self, name: str, layer: Layer) -> Tensor:
        """What the rule gives; TopoError, with its name and the mask's, unless it is a number for every weight."""
        plugin, shape = f"dynamic method '{self.rule.name}'", tuple(layer.mask.shape)
        found = called(plugin, f" for '{name}'", self.rule.score, layer)
        if not isinstance(found, Tensor) or found.is_complex():
            what = type(found).__name__ if not isinstance(found, Tensor) else found.dtype
            raise TopoError(f"{plugin} gives {what} for '{name}'; it gives a real tensor, a score for every weight")
        if found.shape != layer.mask.shape:
            raise TopoError(f"{plugin} gives scores of shape {tuple(found.shape)} for '{name}', whose shape is {shape}")
        return found

    def masks(self) -> MaskSet:
        """The masks of now."""
        rows = {name: self.held[name].mask(self.laid[name].cpu().numpy()) for name in self.start}
        found = MaskSet(rows, provenance=self.start.provenance)
        return found.with_provenance(sparse=self.rule.name, start=self.start.content_hash)

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {name: self.laid[name].cpu() for name in self.places}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Masks of a checkpoint."""
        for name in self.places:
            self.laid[name].copy_(state[name])


def highest(scores: Tensor, count: int, among: Tensor, draw: torch.Generator) -> Tensor:
    """Flags of exactly `count` of the highest scores among the flagged places; of equal ones the generator draws.

    >>> scores, among = torch.tensor([3.0, 1.0, 9.0, 2.0]), torch.tensor([True, True, False, True])
    >>> highest(scores, 2, among, torch.Generator()).tolist()
    [True, False, False, True]
    """
    chosen = torch.zeros_like(among)
    if count < 1:
        return chosen
    places = among.reshape(-1).nonzero().flatten()
    values = scores.reshape(-1)[places].float()
    edge = values.topk(count, sorted=False).values.min()
    above, equal = values > edge, (values == edge).nonzero().flatten()
    missing = count - int(above.sum())
    if missing < len(equal):
        equal = equal[torch.randperm(len(equal), generator=draw)[:missing].to(equal.device)]
    chosen.view(-1)[places[above]] = True
    chosen.view(-1)[places[equal]] = True
    return chosen


def _grown(scores: Tensor, before: Tensor, gone: Tensor, draw: torch.Generator, even: bool) -> Tensor:
    """As many as are gone, in the layer or (even) in each unit; places that were empty before come first."""
    if not even:
        count = int(gone.sum())
        empty = min(count, int((~before).sum()))
        return highest(scores, empty, ~before, draw) | highest(scores, count - empty, gone, draw)
    shuffled = torch.randperm(before.shape[1], generator=draw).to(scores.device)  # of equal ones none comes first
    tiers = (before.int() + (before & ~gone).int())[:, shuffled]
    order = scores[:, shuffled].argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, tiers.gather(1, order).argsort(dim=1, stable=True))
    wanted = torch.arange(before.shape[1], device=scores.device) < gone.sum(1, keepdim=True)
    return torch.zeros_like(before).scatter_(1, shuffled[order], wanted)


def _rows(tensor: Tensor, turn: Tensor | None, rows: int) -> Tensor:
    """A tensor laid out as a parameter, as a matrix with a row an output unit."""
    flat = tensor.detach().reshape(-1)
    return (flat if turn is None else flat[turn]).reshape(rows, -1)


def _laid(matrix: Tensor, turn: Tensor | None, shape: torch.Size) -> Tensor:
    """The way back."""
    if turn is None:
        return matrix.reshape(shape)
    flat = torch.empty_like(matrix.reshape(-1))
    flat[turn] = matrix.reshape(-1)
    return flat.reshape(shape)


def evened(masks: MaskSet, seed: int) -> tuple[MaskSet, int]:
    """Masks with the same number in each layer, shared by its output units to within one; and how many weights moved.

    What a unit has too much goes by lot, what it lacks comes by lot; where counts do not divide, the units that had
    most keep one more.
    """
    rng, rows, moved = as_rng(mixed(seed, 3)), dict[str, Any](), 0
    for name in masks:
        mask = masks[name].copy()
        flat, fans = mask.reshape(len(mask), -1), mask.reshape(len(mask), -1).sum(1)
        least, more = divmod(int(fans.sum()), len(flat))
        due = np.full(len(flat), least)
        due[np.argsort(-fans, kind="stable")[:more]] += 1
        for unit in np.flatnonzero(fans != due):
            gap = int(due[unit] - fans[unit])
            flat[unit, rng.choice(np.flatnonzero(flat[unit] == (gap < 0)), abs(gap), replace=False)] = gap > 0
            moved += max(gap, 0)
        rows[name] = mask
    return MaskSet(rows, provenance=masks.provenance), moved
