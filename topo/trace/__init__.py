"""The wiring of a torch model, found by running unit numbers through its graph.

The graph comes from torch.export (`capture`). Every operation is run on unit-id tensors (`units`) in place of
activations (`walk`); what is found is put together here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from topo._support.doors import first_line
from topo._support.trees import require_tree
from topo.errors import TopoError, TraceError, TraceWarning
from topo.input_spec import Spec
from topo.trace.blocks import TRIED, equal_blocks, traced_once
from topo.trace.calls import treated_alike
from topo.trace.capture import Captured, batch_size, capture, clean, first_names, run_without_numbers, unwrapped
from topo.trace.guard import lost, small_maps, unused
from topo.trace.inputs import Example, carried_name, examples
from topo.trace.maps import MapUnits
from topo.trace.nodes import line, operation
from topo.trace.rules import rule
from topo.trace.units import Units, bare, squash, tracked, with_one_mask
from topo.trace.walk import Tracer
from topo.wiring import CONSTANT, NOTHING, Layer, Step, Wiring
from topo.wiring.maps import Maps

__all__ = ["rule", "trace"]

GATES, BIASES = ("soft", "hard"), ("closed", "live")


def trace(
    model: nn.Module,
    input_shape: Spec | None = None,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    strict: bool = False,
    gates: str = "soft",
    biases: str = "closed",
) -> Wiring:
    """Find the wiring of a torch model, which is left as it was; its weights are not read (the last resort apart).

    input_shape: shape of one example without the batch, such as (3, 32, 32); of several arguments by name or in order,
    {"a": (8,), "b": "ids:16"} or "a=8,b=ids:16" (tokens). args, kwargs: example inputs for the model's forward in its
    place. Built-in models and those of the transformers library need neither: they carry what they take, or their
    config says it.
    strict: raise TraceError, instead of warning, where an operation has no rule.
    gates: "soft" takes activations as they are: what is not 0 at 0 (sigmoid, softmax, exp, cos, ...) is never zero, so
    that a gate or an attention whose own inputs are pruned still passes what it gates, and a layer behind a sigmoid
    reads more than zero. "hard": such activations pass their units alone, and what they gate dies with them.
    biases: "closed", by convention: the biases of layers and norms carry nothing and open nothing. "live": where there
    is a bias the outputs are never zero, so that all that reads them is fed. Paths begin at inputs either way.

    What the units are:
    * inputs: the channels of each floating-point input (axis 1 where a convolution or a flatten follows, else the
      last), the vocabulary of each embedding, and the inputs of a layer that reads a learned constant.
    * sums: an `add` of two branches makes one unit for each distinct pair of units; adding a constant, or a tensor to
      itself, makes none. A sum or mean over channels adds them, unless it only rescales what it was taken from
      (RMSNorm): that is not a path. Norms, activations, pools and resampling pass units.
    * products of two branches are gates; operand 0 is the value branch: the factor that did not come last through an
      activation or saturation (sigmoid, silu, gelu, softmax, relu, ...) if only one did; else the one that is not
      broadcast; else the first. x / y is x gated by y.
    * attention: a `score` per query head of its query and key units, which gates the head's value units. Written out
      (matmul, softmax, matmul) it gives the same.
    * recurrent layers: unrolled over the steps of the example input, a layer of the input and one of the state at each;
      a note says over how many.
    * an operation without a rule: a TraceWarning with the line of the model that calls it, the same in `notes`, and
      one new unit, the sum of all its input units, at every output. `@topo.rule` teaches it.

    If torch.export fails, its draft mode is tried, and as the last resort one real forward pass is recorded.

    >>> wiring = topo.trace(topo.models.build("mlp:3-2-1"), (3,))
    >>> [(layer.name, layer.reads.tolist()) for layer in wiring.layers], wiring.outputs.tolist()
    ([('fc1.weight', [0, 1, 2]), ('fc2.weight', [3, 4])], [5])

    Raises TraceError if nothing captures the model, if no output depends on an input, and under `strict`.
    """
    if isinstance(model, torch.jit.ScriptModule) or not isinstance(model, nn.Module):
        raise TraceError(f"a {type(model).__name__} cannot be traced; trace takes a torch.nn.Module in Python")
    module = unwrapped(model)
    require_tree(module)
    for option, value, allowed in (("gates", gates, GATES), ("biases", biases, BIASES)):
        if value not in allowed:
            raise TraceError(f"{option} is {value!r}; it is {' or '.join(map(repr, allowed))}")
    one_trace = partial(_traced, module, input_shape, args, kwargs, strict, gates, biases)
    found = _of_equal_blocks(module, one_trace, lambda: next(iter(examples(module, input_shape, args, kwargs)))[0])
    wiring, warned = found or one_trace()
    return _told(wiring, warned, partial(trace_maps, module, input_shape, args=args, kwargs=kwargs))


def trace_captured(module: nn.Module, example: Example, captured: Captured) -> Wiring:
    """As `trace` of a module whose graph `captured_as_called` has found with this example."""
    args, kwargs = example
    one_trace = partial(_traced, module, None, args, kwargs, False, "soft", "closed")
    found = _of_equal_blocks(module, one_trace, lambda: example)
    wiring, warned = found or _wired(module, example, captured, None, False, "soft", "closed")
    return _told(wiring, warned, partial(trace_maps, module, args=args, kwargs=kwargs))


def _told(wiring: Wiring, warned: list[str], maps: Callable[[], Maps]) -> Wiring:
    """The wiring, after its warnings."""
    for text in warned:
        warnings.warn(text, TraceWarning, stacklevel=3)
    return replace(wiring, maps=cache(maps))


def trace_maps(
    model: nn.Module,
    input_shape: Spec | None = None,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Maps:
    """The wiring of a torch model whose units are the places of its maps, for the unrolled view; as `trace` otherwise.

    Strides, padding (borders that are copied too), dilation, groups, pools, flattening, sums, gates, nearest-neighbour
    upsampling and transposed convolutions are followed; a pool adds what its window holds.
    `topo.trace(model).maps()` is the same, found when it is first asked for.

    >>> maps = topo.trace(topo.models.build("mlp:3-2-1"), (3,)).maps()
    >>> maps.n_units, maps.outputs.tolist()
    (6, [5])

    Raises TraceError, naming the operation, where places cannot be followed.
    """
    module = unwrapped(model)
    (args, kwargs), captured, _ = captured_as_called(module, input_shape, args, kwargs)
    units = MapUnits(batch_size(args, kwargs))
    tracer = Tracer(units, True, first_names(module))
    try:
        made = _followed(tracer, captured, module)
    except TraceError as error:
        raise TraceError(f"the unrolled view is not known of this model: {error}; other views are") from None
    ends = [bare(value[:1]).reshape(-1).numpy() for value in captured.outputs(made) if tracked(value)]
    found = np.unique(np.concatenate(ends or [np.zeros(0, np.int32)]))
    found = found[found >= 0]
    if not len(found):
        raise TraceError("no output of the model depends on an input by operations that can be followed")
    inputs = np.concatenate([np.arange(start, start + n) for start, n in units.inputs])
    steps: list[Any] = units.steps
    return Maps(inputs.astype(np.int32), tuple(steps), found.astype(np.int32), frozenset(units.pools))


def _followed(tracer: Tracer, captured: Captured, module: nn.Module) -> Any:
    """What the outputs of a graph hold; TraceError, with the line, where an operation cannot be read at all."""
    given = [None] * sum(node.op == "placeholder" for node in captured.graph.graph.nodes)
    try:
        return tracer.run(captured.graph, given)
    except TopoError:
        raise
    except Exception as error:  # of graphs that hold what torch.func transforms, or numbers where tensors go
        at = tracer.units.node
        raise TraceError(
            f"{operation(at)} at {line(at)} of the model {type(module).__name__} cannot be followed: "
            f"{type(error).__name__}: {first_line(error)}; write the wiring by hand (topo.Wiring, or its JSON)"
        ) from error


def _of_equal_blocks(
    module: nn.Module, one_trace: Callable[[], tuple[Wiring, list[str]]], example: Callable[[], Example]
) -> Any:
    """The wiring of a model of many equal blocks, from a few of them; None if it has none, or they turn out unlike."""
    run = equal_blocks(module)
    warned: list[list[str]] = []

    def short() -> Wiring:
        wiring, texts = one_trace()
        warned.append(texts)
        return wiring

    try:
        names = [clean(key) for key, _ in module.named_parameters(remove_duplicate=False)]
        alike = run is not None and treated_alike(run, TRIED + 1, partial(run_without_numbers, module, example()))
        wiring = traced_once(run, short, list(dict.fromkeys(names))) if run and alike else None
    except (TopoError, IndexError):  # the whole model may say more
        return None
    return None if wiring is None or any(warned) else (wiring, [])


def _traced(
    module: nn.Module, spec: Any, args: Any, kwargs: Any, strict: bool, gates: str, biases: str
) -> tuple[Wiring, list[str]]:
    """The wiring, and the warnings about it."""
    return _wired(module, *captured_as_called(module, spec, args, kwargs), strict, gates, biases)


def _wired(
    module: nn.Module, example: Example, captured: Captured, said: str | None, strict: bool, gates: str, biases: str
) -> tuple[Wiring, list[str]]:
    args, kwargs = example
    units = Units(batch_size(args, kwargs), gates, biases)
    for text in filter(None, (said, captured.note)):
        units.note(text)
    tracer = Tracer(units, strict, first_names(module))
    outputs = _followed(tracer, captured, module)
    _tell_conventions(units)
    chosen = [value for value in captured.outputs(outputs) if tracked(value)]
    if not chosen:
        raise TraceError(
            "no output of the model depends on an input by operations that can be followed; "
            "write the wiring by hand (topo.Wiring, or its JSON), or use topo.chain on plain stacks"
        )
    leaf = next((t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)), None)
    shape = tuple(leaf.shape[1:]) if leaf is not None else None
    wiring = _wiring(units, chosen, module, carried_name(module), shape)

    def first(key: str) -> str:
        return tracer.first_names.get(key, key)

    losses = lost(wiring, captured.graph, captured.used, captured.kept, first)
    warned = [*tracer.warned, *losses]
    maps = small_maps(captured.graph, first).values()
    held = [(clean(name), parameter) for name, parameter in module.named_parameters(remove_duplicate=False)]
    aside = unused(wiring, held, captured.graph, captured.kept, first)
    if losses or maps or aside:
        wiring = replace(wiring, notes=(*wiring.notes, *losses, *maps), unused=aside)
    return wiring, warned


def captured_as_called(module: nn.Module, spec: Any, args: Any, kwargs: Any) -> tuple[Example, Captured, str | None]:
    """The first way to call the model that can be captured, its graph, and what was assumed."""
    failures: list[TraceError] = []
    for given, said in examples(module, spec, args, kwargs):
        try:
            return given, capture(module, *given), said
        except TraceError as error:
            failures.append(error)
    raise failures[0]


def _tell_conventions(units: Units) -> None:
    """Notes on what was assumed of gates and biases, where it makes a difference."""
    if units.saturated and units.gates == "soft":
        units.note(
            "gates are soft: sigmoid, softmax and the like are not 0 at 0, so what they gate stays open when their own "
            "inputs are pruned (gates='hard' closes it)"
        )
    elif units.saturated:
        units.note("gates are hard: sigmoid, softmax and the like count as 0 where their inputs are pruned")
    if units.biases == "live":
        units.note("biases are live: what has a bias is never zero")


def _wiring(units: Units, outputs: list[Tensor], module: nn.Module, name: str, shape: tuple[int, ...] | None) -> Wiring:
    """Number the input units first, keep the order of all others, and put the wiring together."""
    ends = np.concatenate([bare(squash(ids)).reshape(-1).numpy() for ids in outputs])
    ends = np.where(ends < 0, NOTHING, ends)
    found = with_one_mask(_without_unused_joins(units, ends))
    inputs = np.concatenate([np.arange(start, start + n) for start, n in units.inputs] or [np.zeros(0, np.int64)])
    made = np.concatenate([inputs, *(np.arange(step.start, step.stop) for step in found)])
    number = np.full(units.count + 2, NOTHING, np.int32)
    number[CONSTANT] = CONSTANT
    number[made] = np.arange(len(made))
    steps: list[Step] = []
    for step in found:
        start = int(number[step.start])
        if isinstance(step, Layer):
            steps.append(replace(step, reads=number[step.reads], start=start))
        else:
            steps.append(replace(step, operands=tuple(number[units] for units in step.operands), start=start))
    ends = number[ends[ends >= 0]]
    _, at = np.unique(ends, return_index=True)
    used = {layer.name for layer in steps if isinstance(layer, Layer)}
    ordered = dict.fromkeys(clean(key) for key, _ in module.named_parameters(remove_duplicate=False))
    return Wiring(
        inputs=number[inputs],
        steps=tuple(steps),
        outputs=ends[np.sort(at)],
        model=name,
        input_shape=shape,
        notes=tuple(units.notes),
        parameters=tuple(key for key in ordered if key in used),
    )


def _without_unused_joins(units: Units, ends: np.ndarray) -> list[Step]:
    """The steps, without joins of which nothing is read (averaged attention maps, statistics).

    And without uses of a layer that read nothing but zeros (states before the first step), or of which nothing is read,
    if it has others. A layer of which nothing is read anywhere keeps its first use, and what leads there.
    """
    fed = {step.name for step in units.steps if isinstance(step, Layer) and (step.reads != NOTHING).any()}
    steps = [
        step
        for step in units.steps
        if not (isinstance(step, Layer) and step.name in fed and (step.reads == NOTHING).all())
    ]
    single = {start: name for name, start in units.entry_layers.items()}
    find = partial(_of_which_is_read, steps, units.count, ends, single)
    found = find(frozenset())
    used = {step.name for step in found if isinstance(step, Layer)}
    first: dict[str, int] = {}
    for step in steps:
        if isinstance(step, Layer) and step.name not in used and step.start not in single:
            first.setdefault(step.name, step.start)
    return find(frozenset(first.values())) if first else found


def _of_which_is_read(
    steps: Sequence[Step], count: int, ends: np.ndarray, single: Mapping[int, str], held: frozenset[int]
) -> list[Step]:
    """The steps that lead to `ends` or to the steps that start at `held`, which stay.

    count: of units. single: starts of layers whose rows are kept one by one.
    """
    read = np.zeros(count + 2, np.bool_)
    read[ends] = True
    kept: list[Step] = []
    for step in reversed(steps):
        wanted = read[step.start : step.stop]
        if not wanted.any() and step.start not in held:
            continue
        if isinstance(step, Layer) and step.start in single and not wanted.all():
            step = replace(step, rows=np.flatnonzero(wanted).astype(np.int32))
        kept.append(step)
        for operand in step.operands:
            read[operand] = True
    return kept[::-1]
