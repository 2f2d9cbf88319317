"""prune: a method's scores, round after round, into masks of an exact budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from topo._support.doors import called
from topo._support.seeds import as_rng
from topo.errors import TopoError
from topo.masks import MaskSet
from topo.models.modules.holders import holder
from topo.pruners import Pruner, pruners
from topo.pruners.blocks import block_of
from topo.pruners.degree_decay import degree_decay
from topo.pruners.finite import not_finite
from topo.pruners.network import Batches, Network, first_example, placed, read_batches, set_mode, working_copy
from topo.pruners.selection import Lots, layer_budgets, top, totals
from topo.quotas import beside_whole, budgets, kept_whole
from topo.stranger import told, torch_kept
from topo.trace.inputs import carried_name
from topo.wiring import Wiring

Progress = Callable[[int, int, str], Any]
Generator = np.random.Generator
_SHARED = frozenset("rounds schedule invert ties dense degree_decay mode output precision".split())
# Passes of one example through fewer parameters than this take one thread: two waited for each other ten times as long
# as one worked (ResNet-20 on two busy cores: 57 s against 5 s for a hundred rounds).
_ALONE = 4_000_000


@torch_kept()
@told("scoring the model", TopoError)
def prune(
    method: str,
    model: nn.Module,
    *,
    density: float | None = None,
    sparsity: float | None = None,
    batches: Iterable[Any] | None = None,
    quota: str | Mapping[str, int] = "global",
    rounds: int | None = None,
    input_shape: Sequence[int] | None = None,
    rng: int | Generator = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    wiring: Wiring | None = None,
    layers: str | Sequence[str] | None = None,
    **options: Any,
) -> MaskSet:
    """Masks of every linear layer and convolution of `model`, by the scores of a method; the model is left as it was.

    The layers are those of the model's wiring (`topo.pruners.parameters`), as for every method; norms and masks that
    are on a weight count into its scores.

    density or sparsity: exactly round(density * N) of the N parameters are kept. batches: an iterable of (x, y), for
    methods that need data; the loss is the mean cross-entropy over all of them. quota: "global" ranks all parameters
    together; a name of `topo.quotas`, or counts by layer, ranks each layer by itself. rounds: scores are taken anew
    after each. input_shape: of one example, for methods that send ones or walks; that of the batches by default.
    rng: seed or generator; draws of torch's own are seeded from it and leave torch's state as it was. threads: for
    torch, its own number by default, or one for single examples through small networks. progress: called as (done,
    total, what). wiring: of the model; traced by default, from input_shape or the first batch. layers: names or
    patterns of the layers to mask, in place of all. batches may hold several inputs, ((a, b), y), or named ones,
    ({"a": a}, y). options, shared by the methods, and their own:

    * schedule: "exponential", d**(t/T) is kept after round t of T, or "linear", 1 - (1 - d) t/T;
    * mode: batch norm by its running statistics, "eval"; by those of each batch, "train"; or "statistics": the running
      statistics are first set from the batches;
    * precision: "model" (its own), "float32", "float64";
    * invert: keep the lowest scores (Frankle et al. 2021, section 5);
    * output: the key of the model's output that counts, if it gives several; the logits or the first tensor otherwise;
    * dense: layers that are kept whole, by name or pattern, with commas between; the others share the rest;
    * degree_decay: divide scores by (k_out k_in)**(kappa / degree_decay) in each round, the number of weights left at
      both ends and kappa = -log10 of the density left, so that units keep their last weights (Deng et al. 2026, who
      take 5; 0 for none). It needs rounds, for the dense network has kappa = 0, and scores that are not negative;
    * ties: "few", or "random". Equal scores at the edge are drawn by lot: from the first percent of the kept on the
      provenance says so (`ties`, and a note); above half of them a TopoError, unless "random" allows it.

    Raises TopoError for an unknown method, option or value, for missing data, and for scores that are not finite,
    naming the layer where that begins.
    """
    how = pruners[method]
    values = how.read(options if rounds is None else {**options, "rounds": rounds})
    if not how.shared_ranking and quota != "global":
        raise TopoError(f"pruner '{method}' shares the budget out by itself; it takes no quota")
    seed = int(rng) if isinstance(rng, int | np.integer) else None
    own = as_rng(rng)
    ties, torch_seed = own.spawn(2)  # a method's own draws are the first of rng, whatever else is drawn
    given = read_batches(batches, method) if how.data == "batches" else ()
    example = first_example(given) if given else None
    net = working_copy(model, values["precision"], input_shape, wiring, layers, example)
    net.output = values["output"]
    data = placed(given, net)
    kept = _kept(net, density, sparsity, quota)
    net.density = density if sparsity is None else 1 - sparsity
    lots = Lots()
    with torch.random.fork_rng(sorted({w.device.index for w in net.weights.values() if w.is_cuda})):
        torch.manual_seed(int(torch_seed.integers(2**63)))
        if how.prepare:
            called(f"pruner '{method}'", " in its preparation", how.prepare, net.module, rng=own)
        called(f"pruner '{method}'", " in setting the mode", set_mode, net, values.get("mode", how.modes[0]), data)
        once = values.get("rounds", 1) == 1  # then nothing is pruned before the last scores are taken
        net.dense = {name: w.detach() if once else w.detach().clone() for name, w in net.weights.items()}
        # Of the kernels of attention only the plain one has a second derivative.
        with _threads(threads or _fitting(how, net)), sdpa_kernel(SDPBackend.MATH):
            if how.shared_ranking:
                size = sum(weight.numel() for weight in net.weights.values())
                schedule = totals(size, kept, values["rounds"], values["schedule"], net.density)
                masks = _ranked(how, net, data, schedule, quota, values, own, ties, lots, progress)
                for name, equals in net.by_lot.items():
                    lots.add_of(equals.detach().cpu().numpy(), masks[name])
                lots.check(kept, values["ties"])
            else:
                net.keep, tell = kept, progress or (lambda done, total, what: None)
                tell(0, 1, f"{kept:,} parameters")
                chosen = _checked(how, net, _called(how, net, data, own, _own_options(values)))
                if (count := sum(int(flags.sum()) for flags in chosen.values())) != kept and not how.keeps:
                    raise TopoError(f"pruner '{method}' keeps {count:,} parameters; it was asked for {kept:,}")
                tell(1, 1, "done")
                masks = {name: flags.cpu().numpy() for name, flags in chosen.items()}
    provenance: dict[str, Any] = {
        "method": method,
        "model": carried_name(model),
        "options": {
            **{name: value for name, value in values.items() if name != "state"},
            "quota": quota if isinstance(quota, str) else dict(quota),
        },
        "seed": seed,
        "input_shape": list(net.input_shape) if net.input_shape else None,
    }
    if turned := {name: held.groups for name, held in net.held.items() if held.turned}:
        provenance["input_first"] = turned
    if layers is not None:
        provenance["layers"] = [layers] if isinstance(layers, str) else list(layers)
    found = {name: net.held[name].mask(flags) for name, flags in masks.items()}
    provenance |= {"ties": lots.drawn} if lots.drawn else {}
    provenance |= {"asked": kept, "keeps": how.keeps} if how.keeps else {}
    if notes := [*lots.notes(kept), *net.notes()]:
        provenance["notes"] = notes
    return MaskSet(found, provenance=provenance)


def _fitting(how: Pruner, net: Network) -> int:
    small = how.data == "none" and sum(weight.numel() for weight in net.weights.values()) < _ALONE
    return 1 if small else torch.get_num_threads()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _kept(net: Network, density: float | None, sparsity: float | None, quota: str | Mapping[str, int]) -> int:
    """round(density * N), with the checks of `topo.quotas`; or the sum of given counts."""
    shapes = net.shapes
    if density is None and sparsity is None and not isinstance(quota, str):
        return sum(budgets("given", shapes, counts=quota).values())
    if density is None and sparsity is None:
        raise TopoError("a budget is needed: give density or sparsity")
    return sum(budgets("uniform", shapes, density=density, sparsity=sparsity).values())


def _own_options(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _SHARED}


def _ranked(
    how: Pruner,
    net: Network,
    data: Batches,
    schedule: Sequence[int],
    quota: str | Mapping[str, int],
    values: Mapping[str, Any],
    own: Generator,
    ties: Generator,
    lots: Lots,
    progress: Progress | None,
) -> dict[str, np.ndarray]:
    """The rounds, which keep so many parameters; bool masks of those kept after the last, layer by layer."""
    options, rounds, invert = _own_options(values), len(schedule), values["invert"]
    shapes = {name: tuple(weight.shape) for name, weight in net.weights.items()}
    everywhere = {name: np.arange(weight.numel()) for name, weight in net.weights.items()}
    ranked = isinstance(quota, str) and quota == "global"
    whole = _whole(values["dense"], quota, shapes, schedule[-1])
    quotas = [None] * rounds if ranked else layer_budgets(quota, net.shapes, schedule, values["dense"])
    alive = everywhere
    for done, (net.keep, shares) in enumerate(zip(schedule, quotas)):
        if progress:
            progress(done, rounds, f"{net.keep:,} parameters")
        scores = _checked(how, net, _called(how, net, data, own, options))
        if values["degree_decay"]:
            scores = _decayed(how, net, scores, alive, values["degree_decay"])
        candidates = everywhere if how.regrow else alive
        found = {name: _at(how, net, data, scores, name, places, invert) for name, places in candidates.items()}
        lots.clear()  # what an earlier round drew by lot is ranked again, or gone with its equals
        flags = _chosen(found, net.keep, shares, ties, lots, whole)
        if done + 1 == rounds and candidates is everywhere:  # all in their places
            masks = {name: flags[name].reshape(shape) for name, shape in shapes.items()}
            break
        alive = {name: places[flags[name]] for name, places in candidates.items()}
        if done + 1 < rounds:
            net.alive = None if how.regrow else alive
            for name, places in candidates.items():
                _zero(net, name, places, flags[name], how.regrow)
    else:
        masks = {name: _flags(places, shapes[name]) for name, places in alive.items()}
    if progress:
        progress(rounds, rounds, "done")
    return masks


def _whole(dense: str, quota: str | Mapping[str, int], shapes: Mapping[str, Any], total: int) -> set[str]:
    """The layers that stay whole; TopoError if the budget does not hold them, or is given layer by layer."""
    whole = kept_whole(dense, shapes)
    if whole and not isinstance(quota, str):
        raise TopoError("budgets say what each layer keeps; dense cannot be given too")
    if whole:
        beside_whole(total, {name: int(np.prod(shape)) for name, shape in shapes.items()}, whole)
    return whole


def _decayed(
    how: Pruner, net: Network, scores: Mapping[str, torch.Tensor], alive: Mapping[str, np.ndarray], scale: float
) -> dict[str, torch.Tensor]:
    """Scores divided by a power of the degrees that are left (`degree_decay`)."""
    density = sum(map(len, alive.values())) / sum(weight.numel() for weight in net.weights.values())
    found = {}
    for name, values in scores.items():
        if bool((values < 0).any()):
            raise TopoError(f"degree_decay takes scores that are not negative; those of '{how.name}' for '{name}' are")
        held = net.held[name]
        mask = held.mask(_flags(alive[name], tuple(net.weights[name].shape)))
        groups = getattr(holder(net.module, name).module, "groups", 1)
        factor = np.ascontiguousarray(held.parameter(degree_decay(mask, groups, density, scale)))
        if values.shape != factor.shape:  # of the live weights
            factor = factor.reshape(-1)[alive[name]]
        found[name] = values.double() * torch.from_numpy(factor).to(values.device)
    return found


def _called(how: Pruner, net: Network, data: Batches, own: Generator, options: Mapping[str, Any]) -> Any:
    return called(f"pruner '{how.name}'", "", how.score, net, data, rng=own, **options)


def _checked(how: Pruner, net: Network, scores: Any) -> dict[str, torch.Tensor]:
    """What a pruner gave, one tensor of its shape for each weight and for nothing else; TopoError otherwise."""
    if not isinstance(scores, Mapping):
        raise TopoError(f"pruner '{how.name}' gives {type(scores).__name__}; it gives a mapping from name to scores")
    if odd := [name for name in scores if name not in net.weights]:
        raise TopoError(
            f"pruner '{how.name}' scores '{odd[0]}', which is not a parameter to prune; "
            f"there are: {', '.join(list(net.weights)[:6])}{', ...' if len(net.weights) > 6 else ''}"
        )
    found = {}
    for name, weight in net.weights.items():
        if name not in scores:
            raise TopoError(f"pruner '{how.name}' gives no scores for '{name}' {tuple(weight.shape)}")
        values = scores[name]
        values = torch.from_numpy(values) if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" else values
        if not isinstance(values, torch.Tensor) or values.is_complex():
            raise TopoError(f"pruner '{how.name}' gives {type(values).__name__} for '{name}'; scores are real tensors")
        block = block_of(weight)
        if values.shape != weight.shape and not (block is not None and values.shape == block.inside.shape):
            raise TopoError(
                f"pruner '{how.name}' gives scores of shape {tuple(values.shape)} for '{name}', "
                f"whose shape is {tuple(weight.shape)}"
            )
        found[name] = values
    return found


def _at(
    how: Pruner, net: Network, data: Batches, scores: Mapping[str, Any], name: str, places: np.ndarray, invert: bool
) -> np.ndarray:
    """Scores of one layer at these places, float32 as they are (they compare alike) and others as float64.

    TopoError if one of the layer is not finite.
    """
    values = scores[name].detach().reshape(-1)
    if values.dtype.itemsize == 1 and values.is_floating_point():
        values = values.float()  # torch has no sums in float8
    # One sum finds every inf and nan; that it overflowed by itself is looked at only then.
    if not bool(torch.isfinite(values.sum())) and not bool((finite := torch.isfinite(values)).all()):
        bad = values[~finite]
        raise TopoError(
            f"pruner '{how.name}': {len(bad)} of {len(values)} scores of '{name}' are not finite "
            f"(the first is {float(bad[0])}); masks need finite scores{not_finite(net, data)}"
        )
    array = (values if values.dtype == torch.float32 else values.double()).cpu().numpy()
    array = array if len(places) == len(array) else array[places]
    return -array if invert else array


def _chosen(
    scores: Mapping[str, np.ndarray],
    total: int,
    quota: Mapping[str, int] | None,
    ties: np.random.Generator,
    lots: Lots,
    whole: set[str],
) -> dict[str, np.ndarray]:
    """Flags of the highest scores: `total` of all layers together, some of them whole, or quota[name] of each."""
    if quota is not None:
        return {name: top(values, quota[name], ties, lots) for name, values in scores.items()}
    ranked = {name: values for name, values in scores.items() if name not in whole}
    found = {name: np.ones(len(scores[name]), bool) for name in scores if name in whole}
    if ranked:
        left = total - sum(map(len, found.values()))
        flags = top(np.concatenate(list(ranked.values())), left, ties, lots)
        found |= zip(ranked, np.split(flags, np.cumsum([len(values) for values in ranked.values()])[:-1]))
    return {name: found[name] for name in scores}


def _zero(net: Network, name: str, places: np.ndarray, keep: np.ndarray, regrow: bool) -> None:
    """Set pruned weights to 0 in the working copy, and weights that came back to their dense values."""
    weight = net.weights[name].data.view(-1)
    if regrow:
        weight.copy_(net.dense[name].view(-1))
    weight[torch.from_numpy(places[~keep]).to(weight.device)] = 0
    if (block := block_of(net.weights[name])) is not None:
        block.narrow(net.weights[name], torch.from_numpy(keep).to(weight.device))


def _flags(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    flags = np.zeros(int(np.prod(shape)), bool)
    flags[places] = True
    return flags.reshape(shape)
