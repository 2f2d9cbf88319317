"""prune: calibration data sent through a model, block by block, each block pruned by what comes into its layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topo._support.doors import called
from topo.calibrated import Calibrated, methods
from topo.calibrated.blocks import Chain, find_chain, run, without_cache
from topo.calibrated.budget import Keep
from topo.calibrated.calibration import Call, calls, speaks
from topo.calibrated.matrices import Matrix, is_matrix
from topo.calibrated.measured import hill_exponent, outlier_share
from topo.calibrated.wanda import scores
from topo.errors import TopoError
from topo.masks import MaskSet
from topo.models.modules.holders import copied
from topo.n_m import parse_n_m
from topo.networks import matching
from topo.quotas import budgets, kept_whole
from topo.stranger import told, torch_kept
from topo.trace.inputs import carried_name

Progress = Callable[[int, int, str], Any]


@dataclass(frozen=True, eq=False)
class Pruned:
    """masks: of the layers that were pruned. model: with the weights that the method leaves, zeros where they are
    pruned; the model that was given, or a copy."""

    masks: MaskSet
    model: nn.Module


@torch_kept()
@told("pruning the model", TopoError)
def prune(
    method: str,
    model: nn.Module,
    calibration: Iterable[Any] | None,
    *,
    density: float | None = None,
    sparsity: float | None = None,
    quota: str | Mapping[str, int] = "uniform",
    layers: str | Sequence[str] | None = None,
    rng: int | np.random.Generator = 0,
    progress: Progress | None = None,
    in_place: bool = False,
    **options: Any,
) -> Pruned:
    """Masks and weights of a model pruned by what a calibration set sends through its layers.

    calibration: an iterable of inputs, tensors (token numbers, images), dicts of arguments, or (x, y). density or
    sparsity: exactly round(density * N) of the N weights of the layers are kept; quota: how they are shared out
    (`topo.quotas`; "owl" and "alpha" are measured here, before pruning), or counts by layer. layers: names or patterns;
    by default the linear layers and convolutions, of a model with an embedding (a language model) those of its blocks
    alone. in_place: prune the model itself, without a copy. progress: called as (done, total, what). options: the
    method's own, and

    * nm: "2:4" keeps 2 of each 4 consecutive inputs; the budget follows from it;
    * dense: layers that are kept whole, by name or pattern;
    * owl_factor, owl_span: M and lambda of OWL; alpha_span: how far AlphaPruning's sparsities are from their mean.

    Blocks are pruned one after the other, by activations that come from pruned ones; in memory are the hidden states of
    one block and what is summed over the inputs of its layers. A model that is not a chain of blocks is one block.

    Raises TopoError for missing data, layers that cannot be pruned so, and a budget that leaves a layer without weight.
    """
    how: Calibrated = methods[method]
    values = how.read(options)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise TopoError("the model is on the meta device and has no weights; give them (--weights, or hf:FOLDER's own)")
    net = model if in_place else copied(model)
    was_training = net.training
    net.eval()
    given = calls(calibration, net, method)
    with torch.no_grad(), without_cache(net):
        found = find_chain(net, given, is_matrix)
        walk = _Walk(how, net, given, *(found or (None, [])))
        chosen, left = _chosen(net, walk.chain, layers)
        walk.take({name: Matrix(name, module, how.seen == "gram") for name, module in chosen.items()})
        own = {name: value for name, value in values.items() if name not in _SHARED}
        wanted = _budgets(walk, values, quota, density, sparsity)
        masks = walk.prune(wanted, parse_n_m(values["nm"]) if values["nm"] else None, own, progress)
    net.train(was_training)
    notes = (
        []
        if walk.chain
        else ["the model is not a chain of blocks: every layer was judged by the dense network's activations"]
    )
    if left:
        named = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        size = sum(weight.numel() for weight in net.parameters() if weight.dim() > 1)
        share = 1 - sum(matrix.parameter.numel() for matrix in walk.matrices.values()) / size
        notes.append(f"not pruned, and not in the density: {named} ({share:.1%} of the weights)")
    notes += walk.notes
    provenance: dict[str, Any] = {
        "method": method,
        "model": carried_name(model),
        "options": {**values, "quota": quota if isinstance(quota, str) else dict(quota)},
        "seed": int(rng) if isinstance(rng, int | np.integer) else None,
        "calibration": {"calls": len(given), "positions": walk.positions},
    }
    if density is not None or sparsity is not None:
        provenance["asked_density"] = float(density) if density is not None else round(1 - float(sparsity or 0), 12)
    if turned := {name: 1 for name, matrix in walk.matrices.items() if matrix.turned}:
        provenance["input_first"] = turned
    if layers is not None:
        provenance["layers"] = [layers] if isinstance(layers, str) else list(layers)
    if notes:
        provenance["notes"] = notes
    return Pruned(MaskSet({name: mask.cpu().numpy() for name, mask in masks.items()}, provenance=provenance), net)


_SHARED = frozenset("nm dense owl_factor owl_span alpha_span".split())


def _chosen(
    net: nn.Module, chain: Chain | None, layers: str | Sequence[str] | None
) -> tuple[dict[str, nn.Module], list[str]]:
    """The layers to prune, by their weight's name, and the names of matrices that are not pruned."""
    inside = {id(part) for block in (chain.blocks if chain else ()) for part in block.modules()}
    every = {f"{name}.weight" if name else "weight": part for name, part in net.named_modules() if is_matrix(part)}
    seen: set[int] = set()
    once = {}
    for name, part in every.items():
        if id(part.weight) not in seen:
            seen.add(id(part.weight))
            once[name] = part
    chosen = once
    if layers is not None:
        chosen = {name: once[name] for name in matching(layers, list(once))}
    elif chain and speaks(net):
        chosen = {name: part for name, part in once.items() if id(part) in inside}
    if not chosen:
        raise TopoError(
            f"the model {type(net).__name__} has no linear layer or convolution that can be pruned by its inputs"
        )
    ids = {id(part.weight) for part in chosen.values()}
    left = [name for name, weight in net.named_parameters() if weight.dim() > 1 and id(weight) not in ids]
    return chosen, left


def _budgets(
    walk: _Walk,
    values: Mapping[str, Any],
    quota: str | Mapping[str, int],
    density: float | None,
    sparsity: float | None,
) -> dict[str, int]:
    """What each layer keeps."""
    shapes = {name: matrix.mask_shape for name, matrix in walk.matrices.items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    whole = kept_whole(values["dense"], shapes)
    if values["nm"]:
        n, m = parse_n_m(values["nm"])
        pattern = {
            name: sizes[name] if name in whole else sizes[name] // shape[1] * (shape[1] // m * n + min(n, shape[1] % m))
            for name, shape in shapes.items()
        }
        total, size = sum(pattern.values()), sum(sizes.values())
        asked = density if sparsity is None else 1 - sparsity
        if asked is not None and round(asked * size) != total:
            raise TopoError(
                f"{values['nm']} keeps {total:,} of {size:,} weights, a density of {total / size:.4g}, not {asked:g}; "
                "leave the density out"
            )
        if quota != "uniform":
            raise TopoError(f"{values['nm']} says what each layer keeps; quota cannot be given too")
        return pattern
    if not isinstance(quota, str):
        return budgets("given", shapes, counts=quota)
    if density is None and sparsity is None:
        raise TopoError("a budget is needed: give density or sparsity, or -O nm=2:4")
    more: dict[str, Any] = {}
    if quota == "owl":
        more = {"outliers": walk.outliers(values["owl_factor"]), "span": values["owl_span"]}
    elif quota == "alpha":
        more = {"exponents": walk.exponents(), "span": values["alpha_span"]}
    found = budgets(quota, shapes, density=density, sparsity=sparsity, dense=values["dense"], **more)
    if empty := [name for name, count in found.items() if count < 1]:
        raise TopoError(
            f"the budget of {sum(found.values()):,} weights leaves '{empty[0]}' {shapes[empty[0]]} without one; "
            "keep more, or take another quota (balanced)"
        )
    return found


class _Walk:
    """One pass over the model: blocks in order, then the layers that are in none, each group judged and then pruned."""

    def __init__(self, how: Calibrated, net: nn.Module, given: list[Call], chain: Chain | None, hidden: list[Tensor]):
        self.how, self.net, self.given, self.chain, self.hidden = how, net, given, chain, hidden
        self.matrices: dict[str, Matrix] = {}
        self.notes: list[str] = []
        self.positions = 0

    def take(self, matrices: dict[str, Matrix]) -> None:
        """The layers to prune, and the block that each lies in."""
        self.matrices = matrices
        self.groups: list[list[Matrix]] = []
        placed: set[str] = set()
        for block in self.chain.blocks if self.chain else ():
            inside = {id(part) for part in block.modules()}
            group = [m for m in matrices.values() if id(m.module) in inside and m.name not in placed]
            placed |= {matrix.name for matrix in group}
            self.groups.append(group)
        self.rest = [matrix for name, matrix in matrices.items() if name not in placed]

    def _watched(self, group: list[Matrix], send: Callable[[], Any]) -> None:
        """Send everything through, with the group's layers looking at what they read."""
        hooks = [
            matrix.module.register_forward_pre_hook(lambda part, args, matrix=matrix: matrix.see(args[0]))
            for matrix in group
        ]
        try:
            send()
        finally:
            for hook in hooks:
                hook.remove()

    def _through(self, number: int, hidden: list[Tensor]) -> list[Tensor]:
        assert self.chain is not None
        return [self.chain.through(number, call, x) for call, x in enumerate(hidden)]

    def _whole(self) -> None:
        for call in self.given:
            run(self.net, call)

    def outliers(self, factor: float) -> dict[str, float]:
        """The outlier share of each layer's block, by the activations of the dense network."""
        found: dict[str, float] = {}
        hidden = self.hidden

        def measure(group: list[Matrix], send: Callable[[], Any]) -> None:
            for matrix in group:
                matrix.gram = False
            self._watched(group, send)
            judged = [part for matrix in group for part in self._judged(matrix)]
            share = outlier_share(judged, factor) if judged else 0.0
            found.update({matrix.name: share for matrix in group})
            for matrix in group:
                matrix.forget()
                matrix.gram = self.how.seen == "gram"

        for number, group in enumerate(self.groups):
            made: list[Tensor] = []
            measure(group, lambda: made.extend(self._through(number, hidden)))  # noqa: B023
            hidden = made
        for matrix in self.rest:
            measure([matrix], self._whole)
        return found

    @staticmethod
    def _judged(matrix: Matrix) -> list[Tensor]:
        parts = matrix.rows().chunk(matrix.groups)
        return [scores(part, matrix.seen(number)) for number, part in enumerate(parts)]

    def exponents(self) -> dict[str, float]:
        """The mean tail exponent of each layer's block."""
        found: dict[str, float] = {}
        for group in [*self.groups, *([matrix] for matrix in self.rest)]:
            each = [min(hill_exponent(matrix.rows()), 1e6) for matrix in group]
            found |= {matrix.name: sum(each) / len(each) for matrix in group}
        return found

    def prune(
        self, wanted: Mapping[str, int], nm: tuple[int, int] | None, own: Mapping[str, Any], progress: Progress | None
    ) -> dict[str, Tensor]:
        """Masks by layer, in order; the model's weights are changed."""
        masks: dict[str, Tensor] = {}
        total = len(self.groups) + bool(self.rest)
        tell = progress or (lambda done, total, what: None)
        for number, group in enumerate(self.groups):
            tell(number, total, f"block {number}, {len(group)} layers")
            if group:
                self._watched(group, lambda: self._through(number, self.hidden))  # noqa: B023
                masks |= {matrix.name: self._pruned(matrix, wanted[matrix.name], nm, own) for matrix in group}
            self.hidden = self._through(number, self.hidden)
        if self.rest:
            tell(len(self.groups), total, f"{len(self.rest)} layers")
            self._watched(self.rest, self._whole)
            masks |= {matrix.name: self._pruned(matrix, wanted[matrix.name], nm, own) for matrix in self.rest}
        tell(total, total, "done")
        return {name: masks[name] for name in self.matrices}

    def _pruned(self, matrix: Matrix, count: int, nm: tuple[int, int] | None, own: Mapping[str, Any]) -> Tensor:
        """The mask of one layer, whose weight is set to what the method leaves."""
        self.positions = max(self.positions, matrix.count)
        if matrix.sums is None:
            self.notes.append(
                f"nothing of the calibration data came to '{matrix.name}': it was pruned by weights alone"
            )
        rows = matrix.rows()
        if count == rows.numel():
            matrix.forget()
            return torch.ones(matrix.mask_shape, dtype=torch.bool)
        parts, kept, left = rows.chunk(matrix.groups), [], []
        for number, part in enumerate(parts):
            share = count * (number + 1) // len(parts) - count * number // len(parts)
            seen = matrix.seen(number)
            if matrix.sums is None:
                seen = torch.eye(len(seen), dtype=seen.dtype) if seen.dim() == 2 else torch.ones_like(seen)
            elif not bool(torch.isfinite(seen).all()):
                raise TopoError(
                    f"what comes into '{matrix.name}' is not finite: the calibration data, or the model, are not"
                )
            keep = Keep(share, matrix.taps, nm)
            mask, weight = self._given(matrix.name, part, seen.to(part), keep, own)
            kept.append(mask)
            left.append(weight)
        matrix.forget()
        matrix.write(torch.cat(left))
        return matrix.laid_out(torch.cat(kept))

    def _given(
        self, name: str, part: Tensor, seen: Tensor, keep: Keep, own: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """(mask, weight) of the method's function; TopoError, with its name and the layer's, for anything else."""
        plugin = f"calibrated pruner '{self.how.name}'"
        found = called(plugin, f" for '{name}'", self.how.function, part, seen, keep, **own)
        if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(x, Tensor) for x in found):
            raise TopoError(
                f"{plugin} gives {type(found).__name__} for '{name}'; it gives two tensors, a mask and a weight"
            )
        for what, tensor in zip(("a mask", "a weight"), found):
            if tensor.shape != part.shape:
                raise TopoError(
                    f"{plugin} gives {what} of shape {tuple(tensor.shape)} for '{name}', "
                    f"whose matrix is of shape {tuple(part.shape)}"
                )
        mask, weight = found
        if mask.dtype != torch.bool:
            raise TopoError(f"{plugin} gives a mask of {mask.dtype} for '{name}'; a mask is of torch.bool")
        if int(mask.sum()) != keep.count:
            raise TopoError(f"{plugin} keeps {int(mask.sum()):,} of '{name}'; it was asked for {keep.count:,}")
        if not weight.is_floating_point() or not bool(torch.isfinite(weight).all()):
            raise TopoError(f"{plugin} gives weights for '{name}' that are not finite real numbers")
        if bool((weight[~mask] != 0).any()):
            raise TopoError(f"{plugin} gives weights for '{name}' that are not zero where its mask drops them")
        return mask, weight
