"""generate: a method and a budget in, masks out, with a record of how they were made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from topo._support.registry import Registry
from topo._support.seeds import as_rng
from topo._version import __version__
from topo.errors import TopoError
from topo.generators import Generator, generators
from topo.masks import MaskSet, as_mask_set
from topo.models import input_shape as named_shape
from topo.models import names
from topo.networks import drawn_at_random, find_wiring, left_unmasked, maskable
from topo.quotas import budgets as quota_budgets
from topo.quotas import quotas
from topo.wiring import Wiring, apart

if TYPE_CHECKING:
    from torch import nn


def generate(
    method: str,
    wiring: Wiring | nn.Module | str | Path | None = None,
    *,
    density: float | None = None,
    sparsity: float | None = None,
    quota: str | None = None,
    budgets: Mapping[str, int] | str | None = None,
    source: MaskSet | Mapping[str, Any] | None = None,
    layers: str | Sequence[str] | None = None,
    batches: Iterable[Any] | None = None,
    input_shape: Sequence[int] | None = None,
    rng: int | np.random.Generator = 0,
    progress: Callable[[int, int, str], None] | None = None,
    **options: Any,
) -> MaskSet:
    """Masks for a network, made by a named method: from its shapes, or by the scores that a pruner gives its weights.

    wiring: of the network; also a torch module (with input_shape), a model's name, or a wiring's JSON file. Every
    linear layer and convolution of the wiring is masked, first and last included, whatever the method; or, in their
    place, those that `layers` names, by name or pattern (`"blocks.*"`); an embedding only where that or `budgets` names
    it.
    density (the kept fraction) or sparsity (1 - density), never both: exactly round(density * N) parameters are kept.
    quota: how they are shared among layers (`topo.quotas`), the method's own choice by default. budgets: parameters to
    keep by layer name instead of all these (for the optimizer also the name of a rule). source: masks that the methods
    `configuration`, `invert` and `shuffle` start from; their kept counts are the budget, and they need no wiring:
    without it each convolution is taken to be in one group; `repair` starts from them too, with a density of its own
    where one is given. options: the method's own; and for every method that takes
    a quota `dense`, layers to keep whole, by name or pattern, while the others share the rest.
    Methods that calibrate (`wanda`, `sparsegpt`) take inputs as `batches`: tensors of token numbers or images, dicts of
    arguments, or (x, y); and `hf:FOLDER` with the folder's weights (`topo.calibrated.prune`, which gives the pruned
    weights, too).
    Pruners take a torch module in place of the wiring, which is left as it was, or a model's name, whose weights are
    then drawn from the seed as `topo train` draws them; and (x, y) batches where they need data (`topo.pruners.prune`).
    progress: called as (layers done, layers in all, layer).

    rng: a seed or a numpy Generator.

    The same seed gives the same masks. The provenance holds method, options, seed, density, model and input shape, and
    where the structure forbids an exact budget, what was asked and what is kept instead (`asked`, `keeps`).

    >>> generate("erk", "mlp:8-4-2", density=0.5).kept
    20

    Raises TopoError for an unknown method, option or quota, and for a budget that cannot be met.
    """
    entry = find_method(method)
    words: dict[str, Any] = {
        "density": density,
        "sparsity": sparsity,
        "quota": quota,
        "budgets": budgets,
        "source": source,
    }
    words |= {"layers": layers, "batches": batches}
    given = {name: value for name, value in words.items() if value is not None}
    request = Request(method, given, options, rng, progress, input_shape)
    if wiring is None and not getattr(entry, "rewires", False):
        raise TopoError(f"method '{method}' makes masks for a network: give its wiring, its name or a torch module")
    if isinstance(wiring, type):
        kind = wiring.__name__
        raise TopoError(f"the class {kind} is not a network; give a module made of it: {kind}(...)")
    if hasattr(wiring, "named_modules"):
        from topo.models.modules.calling import require_shapes

        require_shapes(cast("nn.Module", wiring))
    if is_pruner(entry) or calibrates(entry):
        from topo.stranger import told

        with told(f"method '{method}' on the model"):
            return (_scored if is_pruner(entry) else _calibrated)(entry, wiring, request)
    request.refuse("batches", "it looks at no data")
    net = _network(wiring, request)
    make = _generated if method in generators else _optimized
    masks = make(entry, net, request)
    seed = int(rng) if isinstance(rng, int | np.integer) else None
    record: dict[str, Any] = {"method": method, "seed": seed, "model": net.model, "created_by": f"topo {__version__}"}
    if net.input_shape:
        record["input_shape"] = list(net.input_shape)
    turned: Mapping[str, int] = net.input_first
    if layers is not None:
        record["layers"] = [layers] if isinstance(layers, str) else list(layers)
    if source is not None:
        known = as_mask_set(source)
        record["source"] = {key: known.provenance[key] for key in _ORIGIN if key in known.provenance}
        record["source"]["content_hash"] = known.content_hash
        record["source"] |= _format_of(known)
        if wiring is None:
            record |= {key: known.provenance[key] for key in ("model", "input_shape") if key in known.provenance}
            turned = known.provenance.get("input_first", {})
            if method == "configuration" and any(len(shape) > 2 for shape in known.shapes.values()):
                record["notes"] = ["each convolution was taken to be in one group: groups are known with a model alone"]
    if layers is None and (said := left_unmasked(net)):
        record["notes"] = [*masks.provenance.get("notes", ()), *record.get("notes", ()), *said]
    if turned := {name: groups for name, groups in turned.items() if name in masks}:
        record["input_first"] = turned
    return masks.in_order(net.names).with_provenance(**record, **_asked(request), density=masks.density)


def _asked(request: Request) -> dict[str, float]:
    """The density that was asked for, where one was: a whole number of parameters is seldom exactly that."""
    density, sparsity = request.given.get("density"), request.given.get("sparsity")
    if density is None and sparsity is None:
        return {}
    return {"asked_density": float(density) if density is not None else round(1.0 - float(sparsity or 0.0), 12)}


# What masks that were made from others remember of these.
_ORIGIN = ("file", "method", "seed", "density")


def _format_of(masks: MaskSet) -> dict[str, str]:
    """The format of the file that the masks were first read from: how its layers are laid out, where nothing else
    tells."""
    said, before = masks.provenance.get("format"), masks.provenance.get("source")
    if said in (None, "topo") and isinstance(before, Mapping):
        said = before.get("format")
    return {"format": said} if isinstance(said, str) else {}


def methods() -> Registry:
    """All methods by name: generators first, then those of the optimizer, then pruners.

    Each has name, description, source, options and `needs`, what it must be given besides shapes; pruners have `cost`.
    The pruner `random` stands behind the generator of that name, which draws the same masks.
    """
    from topo.pruners import pruners

    every = Registry("method")
    for registry in (generators, _optimizer(), pruners, _by_calibration()):
        every.take(registry)
    return every


def find_method(name: str) -> Any:
    """The method of this name; torch is loaded for none but a pruner, or to say what there is."""
    found = [registry[name] for registry in (generators, _optimizer()) if name in registry]
    return found[0] if found else methods()[name]


def without_torch(name: str) -> bool:
    """Whether this is a method that makes masks of shapes, which loads no torch."""
    return any(name in registry for registry in (generators, _optimizer()))


def is_pruner(entry: Any) -> bool:
    """Whether the method scores the weights of a model."""
    return hasattr(entry, "score")


def calibrates(entry: Any) -> bool:
    """Whether the method prunes layers by what calibration data bring into them (`topo.calibrated`)."""
    return bool(getattr(entry, "calibrates", False))


def _by_calibration() -> Registry:
    from topo.calibrated import methods

    return methods


def _optimizer() -> Registry:
    from topo.optimize import methods

    return methods


@dataclass(frozen=True)
class Request:
    """What is asked of a method.

    given: of density, sparsity, quota, budgets, source, layers and batches those that are given. options: the method's
    own. rng, progress, input_shape: as in `generate`.
    """

    method: str
    given: Mapping[str, Any]
    options: Mapping[str, Any]
    rng: int | np.random.Generator
    progress: Callable[[int, int, str], None] | None
    input_shape: Sequence[int] | None

    def refuse(self, name: str, because: str) -> None:
        """TopoError if `name` is given."""
        if name in self.given:
            raise TopoError(f"method '{self.method}' takes no {name}; {because}")


def _network(wiring: Any, request: Request) -> Wiring:
    """The wiring of the network; where masks are only rewired, each layer for itself will do."""
    if wiring is not None:
        return find_wiring(wiring, request.input_shape)
    return apart(_source(None, request))


def _generated(entry: Generator, wiring: Wiring, request: Request) -> MaskSet:
    """What a generator makes, with its options on record; TopoError unless the budget it promises is kept."""
    dense = request.options.get("dense", "")
    record, given = (
        entry.read({name: value for name, value in request.options.items() if name != "dense"}),
        request.given,
    )
    if entry.rewires:
        _refuse_dense(dense, request, "it keeps as much as its source does")
        start: Any = _source(wiring, request)
        wanted = {name: start.rows(name).kept() for name in start}
    else:
        request.refuse("source", "it starts from shapes and a budget")
        if entry.fixed:
            request.refuse("quota", "it has its own")
        if entry.exact == "total":
            request.refuse("budgets", "it keeps a total and leaves the layers to chance")
            _refuse_dense(dense, request, "it keeps a total and leaves the layers to chance")
        rule = quotas[given.get("quota", entry.quota)]
        own = {name: value for name, value in record.items() if name in inspect.signature(rule).parameters}
        start = wanted = _wanted(wiring, given, entry.quota, dense, own)
    masks = entry(wiring, start, rng=request.rng, progress=request.progress, **record)
    if not (entry.rewires or entry.fixed or "budgets" in given):
        record["quota"] = given.get("quota", entry.quota)
    if dense:
        record["dense"] = dense
    total = sum(wanted.values())
    if entry.exact == "no":
        return masks.with_provenance(options=record, asked=total, keeps=entry.keeps)
    off = [name for name in wanted if entry.exact == "layers" and masks.rows(name).kept() != wanted[name]]
    if off or masks.kept != total:
        raise TopoError(f"method '{entry.name}' kept {masks.kept} parameters instead of {total}; layers off: {off}")
    return masks.with_provenance(options=record)


def _refuse_dense(dense: Any, request: Request, because: str) -> None:
    if dense:
        raise TopoError(f"method '{request.method}' takes no dense; {because}")


def _source(wiring: Wiring | None, request: Request) -> MaskSet:
    if "source" not in request.given:
        raise TopoError(f"method '{request.method}' rewires masks: give it some (source, or --from FILE)")
    for name in request.given:
        if name != "source":
            request.refuse(name, "it keeps as much as its source does")
    masks = as_mask_set(request.given["source"])
    if wiring is not None:
        wiring.check(masks)
    return masks


def _wanted(
    wiring: Wiring, given: Mapping[str, Any], quota: str, dense: Any = "", own: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, int]:
    """Parameters to keep, by layer: the budgets that are given, or what the quota, with options of its own, makes of
    the density beside layers that are dense."""
    if "budgets" not in given:
        budget = {name: given.get(name) for name in ("density", "sparsity")}
        shapes = maskable(wiring, given.get("layers"))
        return quota_budgets(given.get("quota", quota), shapes, **budget, dense=dense, **own)  # type: ignore[arg-type]
    _wanted_alone(given)
    if dense:
        raise TopoError("budgets say what each layer keeps; dense cannot be given too")
    return _counts(given["budgets"], {name: wiring.layer(name).size for name in given["budgets"]})


def _counts(budgets: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, int]:
    """Budgets that are whole numbers and fit their layers, as they are given. sizes: of the layers that are known."""
    for name, count in budgets.items():
        size = sizes.get(name)
        whole = isinstance(count, int | np.integer) and not isinstance(count, bool) and count >= 0
        if not whole or (size is not None and count > size):
            most = "its size" if size is None else f"its size, {size}"
            raise TopoError(f"the budget of layer '{name}' is {count!r}; it is a whole number from 0 to {most}")
    return {name: int(count) for name, count in budgets.items()}


def _wanted_alone(given: Mapping[str, Any]) -> None:
    others = [name for name in given if name not in ("budgets", "batches")]
    if others:
        raise TopoError(f"budgets say what each layer keeps; {others[0]} cannot be given too")
    if not isinstance(given["budgets"], Mapping):
        raise TopoError(f"budgets are counts by layer name, not {given['budgets']!r}; a rule is named by quota")


def _optimized(entry: Any, wiring: Wiring, request: Request) -> MaskSet:
    """What a method of `topo.optimize` makes of budgets, or of a total and, where named, a rule for the layers.

    Its certificate goes into the provenance.
    """
    request.refuse("quota", "it starts from the shapes and a budget")
    start: dict[str, Any] = {}
    if entry.starts:
        if "source" not in request.given:
            raise TopoError(f"method '{entry.name}' starts from masks: give some (source, or --from FILE)")
        start = {"source": as_mask_set(request.given["source"])}
        wiring.check(start["source"])
        request.refuse("layers", "it mends those of its source")
    else:
        request.refuse("source", "it starts from the shapes and a budget")
    given, rule = request.given, request.given.get("budgets")
    chosen = {**request.options, "budgets": rule} if rule is not None else dict(request.options)
    beside = _beside(entry, wiring, request)
    if isinstance(rule, Mapping):
        counts = {name: value for name, value in given.items() if name != "source"}
        budget: dict[str, Any] = {"budgets": _wanted(wiring, counts, "uniform")}
    elif entry.starts:
        density = {name: given[name] for name in given if name not in ("budgets", "source")}
        budget = {"total": _of_source(start["source"], density)}
    else:
        density = {name: given[name] for name in given if name != "budgets"}
        budget = {"total": sum(_wanted(wiring, density, "uniform").values())}
    record = entry.options | entry.read(chosen)
    if beside:
        from topo.optimize.problem import as_names

        chosen["dense"] = (*as_names(chosen.get("dense", "")), *beside)
        budget["total"] += sum(wiring.layer(name).size for name in beside)
    found = entry(wiring, **{**chosen, **budget, **start}, rng=request.rng, progress=request.progress)
    left = f"layers that are not masked count as dense in the certificate: {', '.join(beside)}"
    notes = [*found.notes, *([left] if beside else [])]
    said = {"notes": notes} if notes else {}
    masks = MaskSet({name: found.masks[name] for name in found.masks if name not in beside}) if beside else found.masks
    return masks.with_provenance(options=record, certificate=found.certificate.summary() | said)


def _beside(entry: Any, wiring: Wiring, request: Request) -> tuple[str, ...]:
    """The layers that are not among those named, which the optimizer sees as dense ones."""
    if "layers" not in request.given:
        return ()
    if "dense" not in entry.options:
        request.refuse("layers", "it plans the network as a whole (budgets gives counts by layer)")
    named, every = maskable(wiring, request.given["layers"]), maskable(wiring)
    if odd := [name for name in named if name not in every]:
        raise TopoError(f"method '{entry.name}' takes no embedding as '{odd[0]}', which has no paths through units")
    return tuple(name for name in every if name not in named)


def _of_source(source: MaskSet, density: Mapping[str, Any]) -> int:
    """Parameters to keep of the layers that masks name: as many as they keep, unless a density says otherwise."""
    if not density:
        return source.kept
    shapes = {name: source.shapes[name] for name in source}
    return sum(quota_budgets("uniform", shapes, **density).values())


def _is_wiring(model: Any) -> bool:
    """Whether it is a wiring, or the name of a file of one."""
    return isinstance(model, Wiring) or (isinstance(model, str | Path) and str(model).endswith(".json"))


def _scored(entry: Any, model: Any, request: Request) -> MaskSet:
    """What a pruner makes of a module, or of a named model with weights from the seed."""
    from topo.pruners import prune
    from topo.train.run import built

    request.refuse("source", "it scores weights")
    if _is_wiring(model):
        raise TopoError(f"method '{entry.name}' scores weights, which a wiring has not: give a model")
    given, rng, shape = request.given, request.rng, request.input_shape
    seed = int(rng) if isinstance(rng, int | np.integer) else int(as_rng(rng).integers(2**63))
    module, name = built(str(model) if isinstance(model, Path) else model, seed)
    wiring = None
    if isinstance(model, str) and name.partition(":")[0].strip() in names():
        shape = named_shape(name) if shape is None else shape
        wiring = find_wiring(name, shape)
    budget = {key: given[key] for key in ("density", "sparsity") if key in given}
    if "budgets" in given:
        _wanted_alone(given)
        sizes = {key: weight.numel() for key, weight in module.named_parameters()}
        budget = {"quota": _counts(given["budgets"], sizes)}
    elif "quota" in given:
        budget["quota"] = given["quota"]
    how = {"rng": rng, "progress": request.progress, "input_shape": shape, "wiring": wiring}
    how |= {"layers": given.get("layers"), "batches": given.get("batches")}
    masks = prune(entry.name, module, **how, **budget, **request.options)
    if said := drawn_at_random(model):
        masks = masks.with_provenance(notes=[*masks.provenance.get("notes", ()), *said])
    return masks.with_provenance(model=name, created_by=f"topo {__version__}", **_asked(request), density=masks.density)


def _calibrated(entry: Any, model: Any, request: Request) -> MaskSet:
    """What a method of `topo.calibrated` makes of a module, or of a named model."""
    from topo.calibrated.pruning import prune
    from topo.networks import with_weights
    from topo.train.run import built

    request.refuse("source", "it looks at weights and at what comes into them")
    if _is_wiring(model):
        raise TopoError(f"method '{entry.name}' prunes weights, which a wiring has not: give a model")
    given, rng = request.given, request.rng
    seed = int(rng) if isinstance(rng, int | np.integer) else int(as_rng(rng).integers(2**63))
    own = str(model).startswith("hf:") if isinstance(model, str | Path) else False
    module, name = (
        (with_weights(str(model)), str(model)) if own else built(str(model) if isinstance(model, Path) else model, seed)
    )
    how = {key: given[key] for key in ("density", "sparsity", "quota", "layers") if key in given}
    if "budgets" in given:
        _wanted_alone(given)
        how["quota"] = _counts(given["budgets"], {key: weight.numel() for key, weight in module.named_parameters()})
    pruned = prune(
        entry.name, module, given.get("batches"), **how, rng=rng, progress=request.progress, **request.options
    )
    masks = pruned.masks
    return masks.with_provenance(model=name, created_by=f"topo {__version__}", **_asked(request), density=masks.density)
