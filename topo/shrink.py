"""From a mask to a smaller network: what is dead goes, and the outputs stay what they were."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from topo.errors import ShrinkError, TraceWarning
from topo.files import read_masks
from topo.graph import build_graph
from topo.input_spec import Spec
from topo.masks import BitRows, MaskSet, as_mask_set
from topo.metrics.flops import macs_dense
from topo.metrics.nodes import effective_nodes
from topo.metrics.parameters import effective_params
from topo.metrics.paths import effective_paths
from topo.models.modules.holders import unwrapped
from topo.shrinking import recurrent, rules  # noqa: F401 (their rules)
from topo.shrinking.cut import add_bias, cut, set_sizes, shortened
from topo.shrinking.decide import Decision, axis_slots, decide
from topo.shrinking.flow import Flow, Found, Written
from topo.shrinking.proof import Reference
from topo.shrinking.seen import KeptBits, Large, Seen
from topo.shrinking.slots import Axis
from topo.shrinking.working_copy import independent, masked, tensors_of, working_copy
from topo.stranger import torch_kept
from topo.trace import captured_as_called, trace, trace_captured
from topo.trace.capture import Captured, clean, first_names, resized
from topo.train.masking import fitted, tensor_of
from topo.wiring import Wiring

if TYPE_CHECKING:
    from topo.models.modules.stored import Storage

SCHEMA = "topo-shrink/1"
_MOST_TRIES = 12
_LARGE = 1 << 20  # numbers of a tensor: beyond, one stands for all where they are equal
_CONSERVATIVE = "every output is taken to depend on every input"


@dataclass(frozen=True, eq=False, repr=False)
class Shrunk:
    """A smaller model and where its parts come from.

    model: of the same classes as the original, in eval mode, with its own tensors. masks: of what is still sparse.
    wiring: of the smaller model. kept: for every parameter and buffer, the old index of each new index along each
    axis: `new == old[numpy.ix_(*kept[name])]`, folded biases apart. report: counts before and after, what stays and
    why, and the proof; JSON-able. sizes, added: numbers that modules keep (module, attribute, value), and layers that
    were given a bias.

    >>> masks = {"0.weight": [[1, 1], [0, 0]], "1.weight": [[1, 1]]}
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    >>> small = topo.shrink(net, masks, input_shape=(2,))
    >>> [at.tolist() for at in small.kept["1.weight"]], small.report["removed"]
    ([[0], [0]], 1)
    """

    model: nn.Module
    masks: MaskSet
    wiring: Wiring
    kept: Mapping[str, tuple[np.ndarray, ...]]
    report: Mapping[str, Any]
    sizes: tuple[tuple[str, str, Any], ...] = ()
    added: tuple[str, ...] = ()

    def __repr__(self) -> str:
        before, after, proof = self.report["before"], self.report["after"], self.report["proof"]
        stays = sum(self.report["stays"].values())
        return (
            f"Shrunk({before['parameters']:,} -> {after['parameters']:,} parameters, {self.report['removed']:,} units "
            f"removed, {stays:,} dead ones stay, outputs differ by {proof['relative_difference']:.2g} of the largest)"
        )

    def to_json(self) -> str:
        """The map from old to new places: per tensor its shapes and the old index of each new one (null: all)."""
        tensors = {}
        for name, places in self.kept.items():
            old = self.report["shapes"][name]
            rows = [None if len(at) == n else at.tolist() for at, n in zip(places, old)]
            tensors[name] = {"old_shape": old, "new_shape": [len(at) for at in places], "kept": rows}
        document = {"schema": SCHEMA, "tensors": tensors, "sizes": self.sizes, "added": self.added}
        return json.dumps(document, separators=(",", ":"))


@torch_kept()
def shrink(
    model: nn.Module,
    masks: MaskSet | Mapping[str, Any] | str | Path | None = None,
    wiring: Wiring | None = None,
    *,
    input_shape: Spec | None = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    check: int = 2,
    conservative: bool = False,
    rng: int = 0,
) -> Shrunk:
    """The model without what its masks leave dead; in eval mode it gives the same outputs. The model is left as it was.

    A unit goes if nothing that stays reads it by a kept weight, or if it has the same value on every input (its inputs
    are pruned: its bias, shifted and activated): that value then goes into the biases of what reads it. Where it cannot
    (zero padding holds another value at the border) the unit stays, and `report["stays"]` counts it with the reason.
    Units that an operation pairs go together or not at all: streams, groups, heads, gates, tied parameters. Weights
    that masks prune are zero in the smaller model; nothing else changes in what is left.

    masks: by parameter name, or a file; without it they are read from the model itself. wiring: of the model, if it is
    known already. input_shape, args, kwargs: as `topo.trace` takes them. check: random inputs on which both models are
    run (at least 1), drawn from the seed rng, in float64 where the model can. conservative: go on where an operation
    cannot be followed; all that it reads stays.

    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> masks = {"0.weight": np.eye(4, 3), "2.weight": np.array([[1, 1, 0, 1], [0, 1, 0, 0]])}
    >>> small = topo.shrink(net, masks, input_shape=(3,))
    >>> small.model[0].weight.shape, small.kept["0.weight"][0].tolist()
    (torch.Size([2, 3]), [0, 1])

    Raises ShrinkError if everything is dead, for hooks (named), and for operations that cannot be followed unless
    `conservative`; WiringError if masks do not fit the model.
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ShrinkError(f"a {type(model).__name__} cannot be made smaller; shrink takes a torch.nn.Module in Python")
    if isinstance(check, bool) or not isinstance(check, int) or check < 1:
        raise ShrinkError(f"check is {check!r}; it is the number of inputs that both models are run on, 1 or more")
    module = unwrapped(model)
    masks = _masks(module, masks)
    plain, notes = working_copy(module)
    example, captured, _ = captured_as_called(plain, input_shape, args, kwargs)
    known = wiring if wiring is not None else trace_captured(plain, example, captured)
    _refuse_conservative(known, conservative)
    held = fitted(plain, masks, known)
    unmasked = dict(tensors_of(plain))
    masked(plain, ((name, tensor_of(masks[name], storage, "cpu")) for name, storage in held.items()))
    work = _Work(plain, masks, held, example, check, rng, unmasked)
    unmasked.clear()
    # Layers of the original hold numbers of its type, which torch does not join with double precision.
    if work.reference.dtype != torch.float64 or any(p.dtype == torch.float64 for p in plain.parameters()):
        _require_own_layers(plain, example)
    work.follow(captured)
    made = work.largest()
    work.forget()
    del plain
    if made.decision.gone.any():
        known = replace(known, maps=None)  # which hold the masked copy
    independent(made.model, module)
    return _result(work, known, made, [*notes, *work.found.notes], captured)


def _masks(model: nn.Module, masks: Any) -> MaskSet:
    if masks is None:
        return read_masks(model)
    if isinstance(masks, str | Path):
        return read_masks(masks, model)
    return as_mask_set(masks)


def _refuse_conservative(wiring: Wiring, allowed: bool) -> None:
    found = [note for note in wiring.notes if _CONSERVATIVE in note]
    if found and not allowed:
        raise ShrinkError(
            f"a part of the model cannot be followed, so what is dead behind it is not known: {found[0]}. "
            "Give a rule (topo.rule), or go on with conservative=True (--conservative): then nothing tied there goes"
        )


@dataclass(frozen=True, eq=False)
class Made:
    """A smaller model that gives the same outputs. difference: largest, and relative to the largest output."""

    decision: Decision
    model: nn.Module
    added: list[str]
    sizes: list[tuple[str, str, Any]]
    difference: tuple[float, float]


def _require_own_layers(plain: nn.Module, example: Any) -> None:
    """ShrinkError if the copy computes by the original's layers, as functions that hold them (closures) do."""
    empty = _shared_copy(plain)
    for module in empty.modules():
        for key, tensor in module._parameters.items():
            if tensor is not None and tensor.is_floating_point():
                nan = torch.full((), float("nan"), dtype=tensor.dtype).expand(tensor.shape)
                module._parameters[key] = nn.Parameter(nan if tensor.numel() > _LARGE else nan.clone(), False)
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        leaves = [t for t in pytree.tree_leaves(empty(*example[0], **example[1])) if isinstance(t, Tensor)]
    floats = [t for t in leaves if t.is_floating_point() and t.numel()]
    if floats and not any(bool(t.isnan().any()) for t in floats):
        raise ShrinkError(
            "a copy of the model computes without its own parameters: functions in it hold the original's layers "
            "(a lambda that names self, say); call the layers as attributes of the module"
        )


class _Work:
    """What one call of `shrink` knows: the masked copy, its slots, and the outputs that must stay."""

    def __init__(
        self,
        plain: nn.Module,
        masks: MaskSet,
        held: Mapping[str, Storage],
        example: Any,
        check: int,
        seed: int,
        unmasked: Mapping[str, Tensor],
    ) -> None:
        self.plain, self.masks, self.held = plain, masks, held
        self.before = _sizes_of(plain)
        self.reference, self.exact = Reference.of(plain, example, check, seed)
        self.example = example
        self.found = Found()
        self.odd: tuple[float, float] | None = None
        self.large: dict[str, KeptBits] = {}
        if self.exact is plain:  # the smaller one does not fit beside two of its size: masks are put on as it is made
            self._unmask(unmasked)
        self.tensors = self._tensors()

    def _unmask(self, unmasked: Mapping[str, Tensor]) -> None:
        """Large matrices of the copy are the original's again."""
        for name, storage in self.held.items():
            mask = self._mask(name, storage)
            if isinstance(mask, KeptBits) and (masked := self.plain.get_parameter(name)) is not unmasked[name]:
                self.large[name] = mask
                _replace(self.plain, masked, unmasked[name])

    def _tensors(self) -> dict[str, Seen]:
        """What is known of each parameter and buffer, under every name that it has."""
        first = first_names(self.plain)
        kept = {first.get(name, name): self._mask(name, storage) for name, storage in self.held.items()}
        made: dict[int, Seen] = {}
        named: dict[str, Seen] = {}
        for name, tensor in tensors_of(self.plain):
            if id(tensor) not in made:
                axes: list[Axis] = [self.found.slots.new(n) if n > 1 else None for n in tensor.shape]
                mask = kept.get(first.get(name, name))
                if mask is None:
                    mask = torch.ones((1,) * tensor.dim(), dtype=torch.bool).expand(tensor.shape)
                flags = torch.zeros((1,) * tensor.dim(), dtype=torch.bool)
                kind = Large if any(tensor is self.plain.get_parameter(key) for key in self.large) else Seen
                made[id(tensor)] = kind(tuple(tensor.shape), tuple(axes), flags, tensor.detach(), mask, name, True)
            named[name] = named[clean(name)] = made[id(tensor)]
        return named

    def _mask(self, name: str, storage: Storage) -> Tensor | KeptBits:
        rows = self.masks.rows(name)
        large = rows.size > _LARGE and len(storage.shape) == 2 and not storage.turned
        return KeptBits(rows) if large else tensor_of(self.masks[name], storage, "cpu")

    def follow(self, captured: Any) -> None:
        """Run the flow; outputs stay."""
        with torch.no_grad():
            flow = Flow(self.plain, self.tensors, self.found)
            given = flow.run(captured.graph)
            flow.pin_unread()
        leaves = [given[i] if isinstance(given, (list, tuple)) else given for i in captured.kept]
        ends = [leaf for leaf in pytree.tree_leaves(leaves) if isinstance(leaf, Seen)]
        for leaf in ends:
            for axis in leaf.axes:
                self.found.slots.pin(axis)
        if not any(bool(leaf.varies.any()) for leaf in ends):
            raise ShrinkError(
                "everything is dead: under these masks no output depends on an input, so there is nothing to keep"
            )

    def forget(self) -> None:
        """Let go of the masked copy and of values, so that they do not lie beside the smaller model's own tensors."""
        self.found.uses.clear()
        del self.plain, self.exact
        none = torch.zeros(())
        self.tensors = {name: Seen(seen.shape, seen.axes, none, none) for name, seen in self.tensors.items()}

    # -- the largest removal that the model's own code takes

    def largest(self) -> Made:
        """Of what nothing needs all goes; where sizes written in the code speak against it, what they name stays."""
        made = self._try({})
        if made is not None:
            return made
        wanted = decide(self.found, self._axes(), {})
        places = list(dict.fromkeys(w.place for w in self.found.written if bool(wanted.gone[w.slots].any())))
        made = self._try(self._pins(places)) if places else None
        if made is not None:
            for place in places[:_MOST_TRIES] if len(places) > 1 else ():
                fewer = [p for p in places if p != place]
                more = self._try(self._pins(fewer))
                if more is not None:
                    places, made = fewer, more
            return made
        if self.odd:
            raise ShrinkError(
                f"the smaller model would give other outputs (by {self.odd[1]:.2g} of the largest): its code depends "
                "on sizes, or on data, in a way that cannot be followed"
            )
        return self._by_halves(wanted)

    def _by_halves(self, wanted: Decision) -> Made:
        """The last resort, where the code fails at the new sizes and does not show why: what it bears goes."""
        roots = np.unique(wanted.classes[wanted.gone]).tolist()
        why = dict.fromkeys(np.unique(wanted.classes).tolist(), "the model's code fails without it")
        made = self._try(why)
        if made is None:
            raise ShrinkError("a copy of the model does not give its outputs; its modules hold each other in closures")
        queue, tries = [roots], 0
        while queue and tries < 2 * _MOST_TRIES:
            part, tries = queue.pop(0), tries + 1
            fewer = {root: text for root, text in why.items() if root not in part}
            more = self._try(fewer)
            if more is not None:
                why, made = fewer, more
            elif len(part) > 1:
                queue += [part[: len(part) // 2], part[len(part) // 2 :]]
        return made

    def _pins(self, places: Sequence[str]) -> dict[int, str]:
        return {
            int(slot): "the model's code says its size"
            for w in self.found.written
            if w.place in places
            for slot in w.slots
        }

    def _axes(self) -> list[np.ndarray]:
        return axis_slots(axis for seen in self.tensors.values() for axis in seen.axes)

    def _try(self, pinned: Mapping[int, str], fold: bool = True) -> Made | None:
        decision = decide(self.found, self._axes(), pinned, fold)
        sizes = self._sizes(decision)
        for numbers in [sizes, []] if sizes else [[]]:
            tried, added = self._build(self.exact, decision, numbers, exact=True)
            found = self.reference.difference(tried)
            if found is not None and self.reference.agrees(found):
                if self.exact is not self.plain or decision.folded:
                    del tried
                    tried, added = self._build(self.plain, decision, numbers)
                return Made(decision, tried, added, numbers, found)
            self.odd = self.odd or found
        return None

    def _sizes(self, decision: Decision) -> list[tuple[str, str, Any]]:
        """Numbers in the user's modules that are a size which changes, and what they become."""
        made: dict[tuple[str, str], Any] = {}
        for written in self.found.written:
            left = len(decision.left(written.slots))
            if left == written.size:
                continue
            for path, attribute, value in _numbers(self.plain, written, left):
                if (path, attribute) not in made or not isinstance(value, tuple):
                    made[path, attribute] = value
        return [(path, attribute, value) for (path, attribute), value in made.items()]

    def _build(
        self, whole: nn.Module, decision: Decision, sizes: list[tuple[str, str, Any]], exact: bool = False
    ) -> tuple[nn.Module, list[str]]:
        """A masked model, cut, with constants in its biases; the layers that were given one.

        exact: these biases are not rounded to half precision, for the proof.
        """
        small = _shared_copy(whole)
        added: list[str] = []
        done: set[str] = set()
        for use, columns in decision.folded:
            name = use.bias or (f"{use.path}.bias" if use.path else "bias")
            if name in done:
                continue
            done.add(name)
            if use.bias is None:
                add_bias(small, use.path)
                added.append(use.path)
            old = small.get_parameter(name)
            weight = use.weight()
            shift = weight[:, columns].to(torch.float64).reshape(len(weight), int(columns.sum()), -1).sum(2)
            total = old.detach().to(torch.float64) + shift @ torch.from_numpy(use.constants[columns])
            _replace(small, old, total.to(torch.promote_types(old.dtype, torch.float32) if exact else old.dtype))
        places = self._places(decision, added)
        cut(small, places)
        for name, mask in self.large.items():
            old = small.get_parameter(name)
            left = shortened(mask.tensor(), places.get(name, (None, None)))
            _replace(small, old, torch.where(left, old.detach(), 0))
        set_sizes(small, sizes)
        return small, added

    def _places(self, decision: Decision, added: Sequence[str]) -> dict[str, tuple[np.ndarray | None, ...]]:
        """Of each tensor that gets shorter, what stays along each axis."""

        def row(axis: Axis) -> np.ndarray | None:
            return None if axis is None or not decision.gone[axis].any() else decision.left(axis)

        rows = {name: tuple(map(row, seen.axes)) for name, seen in self.tensors.items()}
        for path in added:
            prefix = f"{path}." if path else ""
            rows[f"{prefix}bias"] = rows[f"{prefix}weight"][:1]
        return {name: row for name, row in rows.items() if any(at is not None for at in row)}


def _numbers(model: nn.Module, written: Written, left: int) -> list[tuple[str, str, Any]]:
    """Attributes of the nearest module of the user that hold the size."""
    path = written.path
    while True:
        try:
            module = model.get_submodule(path)
        except AttributeError:
            return []
        own = not type(module).__module__.startswith("torch.nn.") or isinstance(module, nn.Unflatten)
        own = own or (isinstance(module, nn.GroupNorm) and not module.affine)
        if own:
            found: list[tuple[str, str, Any]] = []
            for key, value in vars(module).items():
                if isinstance(value, int) and not isinstance(value, bool) and value == written.size:
                    found.append((path, key, left))
                elif isinstance(value, tuple) and written.size in value and all(isinstance(v, int) for v in value):
                    found.append((path, key, type(value)(left if v == written.size else v for v in value)))
            if found:
                return found
        elif isinstance(module, nn.GroupNorm | nn.RNNBase | nn.MultiheadAttention):
            return []
        if not path:
            return []
        path = path.rpartition(".")[0]


def _shared_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules alone: their tensors are shared."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _replace(model: nn.Module, old: Tensor, value: Tensor) -> None:
    made = value if isinstance(value, nn.Parameter) else nn.Parameter(value, old.requires_grad)
    for module in model.modules():
        for key, tensor in module._parameters.items():
            if tensor is old:
                module._parameters[key] = made


# -- the result


def _wiring_of(work: _Work, made: Made, captured: Captured) -> Wiring:
    """Of the smaller model: from the graph of the whole, where no size that the code says has changed."""
    changed = made.sizes or any(len(made.decision.left(w.slots)) != w.size for w in work.found.written)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TraceWarning)  # what cannot be followed was said of the whole model
        graph = None if changed else resized(captured, made.model)
        if graph is not None:
            return trace_captured(made.model, work.example, graph)
        return trace(made.model, args=work.example[0], kwargs=work.example[1])


def _result(work: _Work, wiring: Wiring, made: Made, notes: list[str], captured: Captured) -> Shrunk:
    decision, small = made.decision, made.model
    kept: dict[str, tuple[np.ndarray, ...]] = {}
    shapes: dict[str, list[int]] = {}
    for name, seen in work.tensors.items():
        kept[name] = tuple(np.arange(n) if a is None else decision.left(a) for a, n in zip(seen.axes, seen.shape))
        shapes[name] = list(seen.shape)
    new_masks: dict[str, Any] = {}
    part: dict[str, Any] = {}
    for name, storage in work.held.items():
        laid = storage.parameter(np.asarray(work.masks[name]))
        cut_mask, left = laid, laid.copy()
        for axis, at in enumerate(kept[name]):
            if len(at) < laid.shape[axis]:
                cut_mask = cut_mask.take(at, axis)
                left.swapaxes(0, axis)[np.setdiff1d(np.arange(laid.shape[axis]), at)] = False
        part[name] = BitRows.of_mask(storage.mask(left))
        groups = storage.groups if storage.groups == 1 else storage.groups * cut_mask.shape[0] // laid.shape[0]
        new_masks[name] = BitRows.of_mask(replace(storage, shape=cut_mask.shape, groups=groups).mask(cut_mask))
    after = MaskSet(new_masks, provenance={k: v for k, v in work.masks.provenance.items() if k in ("method", "seed")})
    small_wiring = _wiring_of(work, made, captured) if decision.gone.any() else wiring
    report = _report(work, wiring, small_wiring, after, MaskSet(part), made, notes)
    report["shapes"] = shapes
    return Shrunk(small, after, small_wiring, kept, report, tuple(map(tuple, made.sizes)), tuple(made.added))


def _report(
    work: _Work, wiring: Wiring, small_wiring: Wiring, masks: MaskSet, part: MaskSet, made: Made, notes: list[str]
) -> dict[str, Any]:
    """part: the original masks without what went."""

    def numbers(of_model: dict[str, int], held: MaskSet, wired: Wiring) -> tuple[dict[str, Any], dict[str, Any]]:
        graph = build_graph(held, wired)
        sizes = {**of_model, "kept": held.kept, "macs": _number(macs_dense(graph))}
        effective = {
            "effective_params": _number(effective_params(graph)),
            "effective_nodes": _number(effective_nodes(graph)),
            "effective_paths": str(_number(effective_paths(graph))),
        }
        return sizes, effective

    before, effective_before = numbers(work.before, work.masks, wiring)
    after, effective_after = numbers(_sizes_of(made.model), masks, small_wiring)
    _, effective_part = numbers(work.before, part, wiring)
    if effective_part != effective_after:
        notes.append("effective weights, nodes and paths are not those of the part of the original that is left")
    if read := effective_before["effective_params"] - effective_part["effective_params"]:
        notes.append(f"{read:,} effective weights read constants (as a sigmoid gives) that biases hold now")
    decision, found = made.decision, made.difference
    roots = np.unique(decision.classes)
    return {
        "before": before,
        "after": after,
        "effective": {"before": effective_before, "part": effective_part, "after": effective_after},
        "removed": int(np.count_nonzero(decision.gone[roots])),
        "stays": dict(sorted(decision.stays.items())),
        "proof": {
            "inputs": len(work.reference.inputs),
            "dtype": str(work.reference.dtype).removeprefix("torch."),
            "largest_difference": found[0],
            "relative_difference": found[1],
        },
        "notes": notes,
    }


def _sizes_of(model: nn.Module) -> dict[str, int]:
    parameters = list(model.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "bytes": sum(p.numel() * p.element_size() for p in parameters),
    }


def _number(value: Any) -> Any:
    number = getattr(value, "number", value)
    if isinstance(number, float) and number != number:
        return None
    return int(number) if isinstance(number, (int, np.integer)) or float(number).is_integer() else number
