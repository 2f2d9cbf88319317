"""Capturing a torch model as a graph: the ladder of ways to capture, and what each of its inputs is.

First `torch.export` (non-strict, in eval mode, without gradients and without decomposition); it works on fake
tensors, so that weights are neither read nor copied, and a model on the meta device does as well. Then
`torch.export.draft_export`, which turns decisions by data into assertions; at last one real forward pass under
`make_fx`, where Python decides by real values.
"""

from __future__ import annotations

import copy
import io
import logging
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from topo._support.doors import first_line
from topo.errors import TraceError
from topo.stranger import torch_kept

MOST_OPERATIONS = 30_000  # torch captures some 700 a second; Llama-70B calls 5,200
MOST_STEPS = 2_048  # of recurrent layers, in all layers and directions of one
# Without numbers these are taken apart into a dozen operations each; they keep the shape of what they are given.
_KEEP_SHAPE = frozenset(
    {torch.ops.aten.batch_norm.default, torch.ops.aten.group_norm.default, torch.ops.aten.layer_norm.default}
)
_UNROLLED = frozenset("lstm gru rnn_tanh rnn_relu".split())
_LAST_RESORTS = ("torch.export.draft_export", "a recorded forward pass")


# -- names


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel and torch.compile."""
    wrapped = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    inner = getattr(model, "module" if wrapped else "_orig_mod", None)
    return unwrapped(inner) if isinstance(inner, nn.Module) else model


def clean(name: str) -> str:
    """The name of a parameter as masks have it: wrappers and re-parametrisations undone."""
    name = name.replace("_orig_mod.", "").removeprefix("module.")
    head, found, tail = name.rpartition("parametrizations.")
    if found:
        name = head + tail.partition(".")[0]
    head, dot, last = name.rpartition(".")
    return head + dot + re.sub(r"(?<=.)_orig$|(?<=weight)_v$|(?<=weight_[ih]h_l\d)_v$", "", last)


def first_names(module: nn.Module) -> dict[str, str]:
    """For each parameter name, the first name of the same parameter."""
    first: dict[int, str] = {}
    pairs = [(clean(name), id(parameter)) for name, parameter in module.named_parameters(remove_duplicate=False)]
    return {name: first.setdefault(key, name) for name, key in pairs}


# -- capture


def batch_size(args: Any, kwargs: Any) -> int:
    """Length of the first axis of the first tensor that has more than one axis."""
    first = next((t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.dim() > 1), None)
    return int(first.shape[0]) if first is not None else 1


@dataclass(frozen=True)
class Captured:
    """A graph whose placeholders and attributes say what they are: meta["parameter"], ["constant"] or ["input"].

    kept: which of the graph's flat outputs are the model's. spec: their structure. note: what
    was assumed, if anything.
    """

    graph: GraphModule
    kept: list[int]
    spec: Any
    note: str | None = None

    @property
    def used(self) -> list[int]:
        """Which of the graph's flat outputs count: logits and predictions, else last_hidden_state, else all."""
        try:
            tree = pytree.tree_unflatten(list(self.kept), self.spec)
        except (TypeError, ValueError):
            return self.kept
        named = tree if isinstance(tree, Mapping) else vars(tree) if is_dataclass(tree) else {}
        named = tree._asdict() if hasattr(tree, "_asdict") else named
        for chosen in ([k for k in named if "logits" in str(k) or str(k).startswith("pred_")], ["last_hidden_state"]):
            found = [at for at in pytree.tree_leaves([named.get(key) for key in chosen]) if at is not None]
            if found:
                return found
        return self.kept

    def outputs(self, values: Any) -> list[Any]:
        """The flat outputs that count."""
        flat = pytree.tree_leaves(values)
        return [flat[i] for i in self.used]


class TooLong(TraceError):
    """Raised while a model is captured that calls more operations than can be followed."""


class _Counted(TorchFunctionMode):
    """Counts the operations that a model calls, and stops it at the most that can be followed."""

    def __init__(self, module: nn.Module, given: Any) -> None:
        super().__init__()
        self.calls = 0
        shapes = [tuple(t.shape) for t in pytree.tree_leaves(given) if isinstance(t, Tensor)]
        self.about = f"the model {type(module).__name__}, of an example of shape {' and '.join(map(str, shapes))},"

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in _UNROLLED and len(args) > 8:
            _not_too_long(name, *(args[at] for at in (0, 4, 7, 8)))
        made = function(*args, **(kwargs or {}))
        # Not those that only ask, as for strides: while it captures, torch asks thirty times for each operation.
        self.calls += name != "__get__" and isinstance(made[0] if type(made) is tuple and made else made, Tensor)
        if self.calls > MOST_OPERATIONS:
            raise TooLong(
                f"{self.about} calls more than {MOST_OPERATIONS:,} operations, as a loop over many steps does; each is "
                "followed by itself. Give a shorter example: fewer steps have the same weights"
            )
        return made


def _not_too_long(name: str, x: Any, layers: Any, both: Any, batch_first: Any) -> None:
    """TooLong if a recurrent layer would be unrolled over more steps than can be followed."""
    if not isinstance(x, Tensor) or x.dim() not in (2, 3) or isinstance(layers, Tensor):
        return
    length, times = x.shape[1 if batch_first is True and x.dim() == 3 else 0], int(layers) * (2 if both is True else 1)
    if length * times > MOST_STEPS:
        raise TooLong(
            f"'{name}' would be unrolled over the {length:,} steps of the example, "
            f"{length * times:,} in its {times} layers and directions; at most {MOST_STEPS:,} are. Give an example of "
            f"{MOST_STEPS // times:,} steps or fewer: it has the same weights"
        )


def capture(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Captured:
    """The ladder: export, draft export, one recorded forward pass; TraceError with what each said."""
    failures: dict[str, list[str]] = {}
    tries: list[tuple[str, Callable[..., Captured], tuple[Any, ...]]] = [("torch.export", _exported, args)]
    if args and isinstance(args[0], Tensor) and args[0].is_floating_point() and not kwargs:
        if any(isinstance(part, nn.Embedding) for part in module.modules()):
            tries.append(("torch.export with integer inputs", _exported, (args[0].to(torch.long), *args[1:])))
    if any(parameter.is_meta for parameter in module.parameters()):
        tries.append(("torch.export on a pretended CPU", _pretended, args))
    tries += [("torch.export.draft_export", _drafted, args), ("a recorded forward pass", _recorded, args)]
    for title, way, given in tries:
        try:
            with _untouched(module), _silent(), torch.no_grad(), torch_kept():
                with _Counted(module, (given, kwargs)):
                    captured = way(module, given, kwargs)
        except TooLong:
            raise
        except Exception as error:  # whatever the model's own code raises
            said = first_line(error)
            failures.setdefault(f"{type(error).__name__}: {said}", []).append(title)
            continue
        why = next(iter(failures), "")
        note = (
            f"captured by {title}, which follows one way through the model: {why}" if title in _LAST_RESORTS else None
        )
        return replace(captured, note=note)
    said = "; ".join(f"{' and '.join(titles)} failed: {text}" for text, titles in failures.items()).rstrip(".")
    raise TraceError(
        f"the model {type(module).__name__} could not be captured. {said}. Check the input shape (of one example, "
        "without the batch); else use topo.chain(masks) for a plain stack, or write the wiring as JSON by hand "
        "(topo.Wiring.load)"
    )


def _exported(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Captured:
    program = torch.export.export(module, args, kwargs, strict=False)
    if any("functorch" in getattr(node.target, "__module__", "") for node in program.graph.nodes):  # torch.vmap
        program = program.run_decompositions({})
    return _from_program(program, module)


def _pretended(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Captured:
    """For models on the meta device whose own code makes tensors on the CPU: all is on a CPU that holds no numbers."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        copied = copy.deepcopy(module)
        for part in copied.modules():
            for name, weight in part._parameters.items():
                if weight is not None and weight.is_meta:
                    part._parameters[name] = nn.Parameter(torch.empty_like(weight, device="cpu"), weight.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None and buffer.is_meta:
                    part._buffers[name] = torch.empty_like(buffer, device="cpu")
        given = pytree.tree_map_only(
            Tensor, lambda t: mode.from_tensor(torch.empty_like(t, device="cpu")), (args, kwargs)
        )
    return _from_program(torch.export.export(copied, *given, strict=False), module)


def _drafted(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Captured:
    return _from_program(torch.export.draft_export(module, args, kwargs, strict=False), module)


def run_without_numbers(module: nn.Module, given: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    """Run a model in eval mode on tensors that hold no numbers."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    device = "meta" if any(parameter.is_meta for parameter in module.parameters()) else "cpu"
    with _untouched(module), _silent(), torch.no_grad(), torch_kept():
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            args, kwargs = pytree.tree_map_only(Tensor, lambda t: mode.from_tensor(t.to(device)), given)
            module(*args, **kwargs)


def _from_program(program: Any, module: nn.Module) -> Captured:
    signature = program.graph_signature
    constants = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        if node.name in signature.inputs_to_parameters:
            node.meta["parameter"] = clean(signature.inputs_to_parameters[node.name])
        elif node.name in constants:
            name = node.meta["buffer"] = constants[node.name]
            node.meta["constant"] = program.state_dict.get(name, program.constants.get(name))
            node.meta["pruning"] = _prunes(name, program.state_dict)
        else:
            node.meta["input"] = True
    kept = [at for at, spec in enumerate(signature.output_specs) if spec.kind.name == "USER_OUTPUT"]
    return Captured(program.graph_module, kept, program.call_spec.out_spec)


def resized(captured: Captured, module: nn.Module) -> Captured | None:
    """The graph of a module that calls the same operations on tensors of other sizes; None where it shows that it does
    not, or holds graphs within graphs. It is run on tensors without numbers, in a third of the time of a capture."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    tensors = {name: tensor for name, tensor in module.named_buffers(remove_duplicate=False)}
    weights = {clean(name): tensor for name, tensor in module.named_parameters(remove_duplicate=False)}
    graph = Graph()
    places: dict[Node, Node] = {}
    end = graph.graph_copy(captured.graph.graph, places)
    graph.output(end)
    values: dict[Node, Any] = {}
    try:
        with _silent(), torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            for node in graph.nodes:
                if node.op == "placeholder":
                    held = weights.get(node.meta.get("parameter", ""), tensors.get(node.meta.get("buffer", "")))
                    if held is not None and "constant" in node.meta:
                        node.meta["constant"] = held
                    values[node] = _without_numbers(node.meta.get("val") if held is None else held)
                elif node.op == "call_function":
                    args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
                    same = node.target in _KEEP_SHAPE
                    values[node] = torch.empty_like(args[0]) if same else node.target(*args, **kwargs)
                elif node.op != "output":
                    return None
                if node.op != "output":
                    node.meta["val"] = values[node]
    except Exception:  # of an operation at sizes that it does not take
        return None
    return replace(captured, graph=GraphModule(captured.graph, graph))


def _without_numbers(value: Any) -> Any:
    return (
        torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
        if isinstance(value, Tensor)
        else value
    )


def _prunes(name: str, held: Mapping[str, Any]) -> bool:
    """Whether a buffer is the mask that torch.nn.utils.prune, or topo's parametrization, put on a parameter."""
    own = re.fullmatch(r"(.*parametrizations\.\w+)\.\d+\.mask", name)
    return (name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in held) or bool(
        own and f"{own[1]}.original" in held
    )


def _recorded(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Captured:
    """One real forward pass; Python decides by real values, and what leaves torch comes back as a constant."""
    from torch.fx.experimental.proxy_tensor import make_fx

    leaves, inputs = pytree.tree_flatten((args, kwargs))
    specs: list[Any] = []

    def forward(*tensors: Any) -> Any:
        left, right = pytree.tree_unflatten(list(tensors), inputs)
        flat, spec = pytree.tree_flatten(module(*left, **right))
        specs.append(spec)
        return flat

    def recorded(early: bool) -> GraphModule:
        return make_fx(
            forward,
            tracing_mode="real",
            pre_dispatch=early,
            _allow_non_fake_inputs=True,
            _error_on_data_dependent_ops=False,
            record_stack_traces=True,
            record_module_stack=True,
        )(*leaves)

    graph = recorded(True)
    if _leaks(graph):
        graph = recorded(False)
        if _leaks(graph):
            raise TraceError("tensors of a torch.func transform (vmap, grad) leave it unseen")
    names = {id(parameter): clean(name) for name, parameter in reversed(list(module.named_parameters()))}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            node.meta["input"] = True
        elif node.op == "get_attr":
            value = operator.attrgetter(node.target)(graph)
            node.meta.setdefault("val", value)
            if isinstance(value, Tensor):
                node.meta["parameter" if id(value) in names else "constant"] = names.get(id(value), value)
    return Captured(graph, list(range(specs[-1].num_leaves)), specs[-1])


def _leaks(graph: GraphModule) -> bool:
    """Whether what a torch.func transform (vmap, grad) works on stands in the graph as a constant."""
    held = [operator.attrgetter(node.target)(graph) for node in graph.graph.nodes if node.op == "get_attr"]
    return any(isinstance(value, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(value) for value in held)


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module has the attributes, parameters, buffers and flags it had."""
    parts = [part for part in module.modules() if not isinstance(part, torch.jit.ScriptModule)]
    scripted = [(part, part.training) for part in module.modules() if isinstance(part, torch.jit.ScriptModule)]
    before = [(part, dict(part.__dict__)) for part in parts]
    inner = [
        (part.__dict__[name], dict(part.__dict__[name]))
        for part, _ in before
        for name in ("_parameters", "_buffers", "_modules")
    ]
    try:
        module.eval()
        yield
    finally:
        for held, was in inner:
            held.clear()
            held.update(was)
        for part, was in before:
            part.__dict__.clear()
            part.__dict__.update(was)
        for part, training in scripted:
            part.train(training)


@contextmanager
def _silent() -> Iterator[None]:
    """What torch warns, logs and prints about capturing is not for the user: failures are told in the error."""
    logger = logging.getLogger("torch")
    quiet = logging.Filter()
    quiet.filter = lambda record: False  # type: ignore[method-assign]
    held = [logger, *(logging.getLogger(n) for n in logging.root.manager.loggerDict if n.startswith("torch."))]
    for one in held:
        one.addFilter(quiet)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one in held:
            one.removeFilter(quiet)
