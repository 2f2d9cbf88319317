"""Doors: the same bad plugins are fed to every registry, and every method obeys an option or refuses it."""

from __future__ import annotations

import ast
import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import topo
from topo._support.registry import Registry
from topo.errors import PluginWarning, TopoError, TraceError, TraceWarning

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Door:
    """A registry and its decorator. good: words under which a function registers. bad: one odd word at a time.

    function: a source of `def plugin...` that the registry takes, as text, so that each test has its own. needs: an
    argument that the function cannot do without; functions that lack it are refused.
    """

    module: str
    registry: str
    decorator: str
    good: dict[str, Any]
    bad: dict[str, tuple[Any, ...]]
    signature: str
    documented: bool = True
    args: tuple[Any, ...] = ()
    named: bool = False  # the name is the decorator's first argument
    prefix: str = "plugin"
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def entries(self) -> Registry:
        return getattr(importlib.import_module(self.module), self.registry)

    def enter(self, function: Any, name: str = "plugin", **words: Any) -> Any:
        decorator = getattr(importlib.import_module(self.module), self.decorator)
        if self.named:
            return decorator(name, *self.args, **{**self.good, **words})(function)
        return decorator(*self.args, **{**self.good, **words})(function) if self.good or words else decorator(function)


DOORS = {
    "metrics": Door(
        "topo.metrics", "metrics", "metric",
        {"group": "paths", "scope": "network", "unit": "weights", "source": "this test", "wired": False},
        {"group": ("nonsense", 3, None), "scope": ("channel", None), "view": ("channel", "kernel", 0), "unit": ("", 3),
         "source": ("", None), "wired": ("yes", None), "ordered": (1,), "weighted": ("no",)},
        "graph",
    ),
    "pruners": Door(
        "topo.pruners", "pruners", "pruner",
        {"data": "none", "cost": "none", "source": "this test"},
        {"data": ("batch", "yes", None, True), "cost": ("", 1), "source": (None,), "rounds": (0, 1.5, True),
         "schedule": ("cosine",), "modes": (("train", "test"), ()), "regrow": ("no",), "double": (64,),
         "shared_ranking": (None,), "prepare": (3,), "speed": ("fast",), "keeps": (3,)},
        "net, batches, *, rng",
    ),
    "generators": Door(
        "topo.generators", "generators", "generator",
        {"source": "this test"},
        {"source": ("",), "quota": ("half", None), "exact": ("nearly", True), "fixed": ("no",), "rewires": (1,)},
        "wiring, budgets, rng",
    ),
    "nulls": Door(
        "topo.nulls", "nulls", "null", {"keeps": "something"}, {"keeps": ("", 3), "wired": ("yes",)},
        "wiring, masks, rng",
    ),
    "quotas": Door("topo.quotas", "quotas", "quota", {}, {}, "shapes, total"),
    "models": Door(
        "topo.models", "models", "model", {"shape": (3,)},
        {"shape": ("3x3", (3, 0), [3], None), "width": (16, "wide")}, "", args=("this test",),
    ),
    "data": Door(
        "topo.data", "data", "layout", {"recognise": lambda path: False},
        {"general": ("last", 1), "options": (["size"], (3,)), "recognise": (3, lambda: True)}, "path",
        documented=False, args=("what it is",), named=True,
    ),
    "plots": Door("topo.plots", "plots", "plot", {"of": "masks"}, {"of": ("mask", "files", None), "metrics": (3,)},
                  "data, ax=None"),
    "optimize": Door(
        "topo.optimize", "methods", "method", {"source": "this test"}, {"source": ("", None)},
        "wiring, *, total, rng, progress",
    ),
    "dynamics": Door(
        "topo.train.dynamic", "dynamics", "dynamic", {"source": "this test"},
        {"source": ("", None), "even": ("yes", 1)}, "layer", named=True,
    ),
    "calibrated": Door(
        "topo.calibrated", "methods", "calibrated",
        {"seen": "norms", "cost": "none", "source": "this test"},
        {"seen": ("means", None), "cost": ("", 1), "source": ("", None)}, "weight, seen, keep",
    ),
    "formats": Door(
        "topo.formats", "formats", "reader", {"recognise": lambda source: "it never is"},
        {"recognise": (3, None, lambda: None), "before": (3, (3,), ("",)), "output_first": ("yes", None),
         "ending": ("npz", ".npz"), "write": (3, lambda masks, path: None), "rank": (3,)},
        "source", documented=False, args=("what it is",), named=True,
    ),
    "containers": Door(
        "topo.containers.container", "containers", "container", {"suffix": ".plugin"},
        {"suffix": ("plugin", 3, [3]), "starts_with": ("text", b"", [3], b"x" * 513), "folder": ("", 3),
         "recognise": (3, lambda: None), "before": (3, (3,)), "refuses": ("yes", 1), "rank": (3,)},
        "file", documented=False, args=("what it is",), named=True,
    ),
}  # fmt: skip
# Registries whose entries are not functions under a decorator, with the tests of their own doors.
ELSEWHERE = {
    "topo.train.recipe.recipes": "tests/test_train.py: a recipe is a TOML file, whose keys are checked",
    "topo.generate.every": "topo.generate.methods: a view of other registries",
}


@contextmanager
def restored(entries: Registry) -> Iterator[None]:
    """What a test registers is gone after it."""
    from topo.plots import takes

    len(entries)
    before, taken = dict(entries._entries), dict(takes)
    try:
        yield
    finally:
        for held, as_it_was in ((entries._entries, before), (takes, taken)):
            held.clear()
            held.update(as_it_was)


def plugin(signature: str, doc: str = "'''A plugin.'''", body: str = "return None", name: str = "plugin") -> Callable:
    scope: dict[str, Any] = {}
    exec(f"def {name}({signature}):\n    {doc}\n    {body}\n", scope)
    return scope[name]


def test_every_registry_has_a_door_here() -> None:
    """Two registries may share a name: they are told apart by what they hold."""
    doors = {id(door.entries) for door in DOORS.values()}
    without, count = set(), 0
    for path in (ROOT / "topo").rglob("*.py"):
        if "Registry(" not in (text := path.read_text()):
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                if ast.unparse(node.value.func) == "Registry":
                    count += 1
                    name = ast.unparse(node.targets[0])
                    if id(getattr(importlib.import_module(module), name, None)) not in doors:
                        without.add(f"{module}.{name}")
    assert without == set(ELSEWHERE) and count == len(DOORS) + len(ELSEWHERE)


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
class TestEveryDoor:
    def test_a_good_plugin_registers(self, door: Door) -> None:
        with restored(door.entries):
            door.enter(plugin(door.signature))
            assert any(name.rpartition(":")[2] == "plugin" for name in door.entries)

    def test_odd_words_are_refused_and_named(self, door: Door) -> None:
        for word, values in door.bad.items():
            for value in values:
                with restored(door.entries):
                    before = set(door.entries)
                    with pytest.raises(TopoError, match="plugin") as caught:
                        door.enter(plugin(door.signature), **{word: value})
                    assert word in str(caught.value), f"{word}={value!r}: {caught.value}"
                    assert "\n" not in str(caught.value)
                    assert set(door.entries) == before

    @pytest.mark.parametrize("thing", [3, None, "text", object()])
    def test_what_is_not_a_function_is_refused(self, door: Door, thing: Any) -> None:
        with restored(door.entries), pytest.raises(TopoError):
            door.enter(thing)

    def test_functions_of_other_arguments_are_refused(self, door: Door) -> None:
        for signature in ("*, unheard_of", "a, b, c, d, e, f, g")[: 1 if door.registry == "plots" else 2]:
            with restored(door.entries), pytest.raises(TopoError, match="it is called as"):
                door.enter(plugin(signature))

    def test_a_function_that_says_nothing_is_refused(self, door: Door) -> None:
        if not door.documented:
            return
        with restored(door.entries), pytest.raises(TopoError, match="docstring"):
            door.enter(plugin(door.signature, doc="pass"))

    def test_a_name_is_taken_once(self, door: Door) -> None:
        with restored(door.entries):
            door.enter(plugin(door.signature))
            with pytest.raises(TopoError, match="registered twice"):
                door.enter(plugin(door.signature))


@pytest.mark.parametrize("name", ["", " a", "a,b", "a\nb", None, 3])
def test_names_that_no_command_line_could_ask_for(name: Any) -> None:
    shapes = Registry("shape")
    with pytest.raises(TopoError, match="a shape is called"):
        shapes.add(name)(object())


# -- what plugins give back


MASKS = {"a.weight": np.ones((3, 4), bool), "b.weight": np.ones((2, 3), bool)}


@pytest.mark.parametrize("given", ["'0.5'", "np.ones(2)", "[1]", "1j", "None", "topo", "Value(1, 3)", "b'1'"])
@pytest.mark.parametrize("scope", ["network", "layer"])
def test_a_metric_gives_a_number(scope: str, given: str) -> None:
    from topo.metrics import metric, metrics
    from topo.report import Value

    name, takes = ("layer_odd", "graph, block") if scope == "layer" else ("odd", "graph")
    function = plugin(takes, body=f"return {given}", name=name)
    function.__globals__.update(np=np, topo=topo, Value=Value)
    with restored(metrics):
        metric(group="paths", scope=scope, unit="weights", wired=False)(function)
        with pytest.raises(TopoError, match=r"metric 'odd'.* gives .*; it gives a number") as caught:
            topo.analyze(MASKS, metrics="odd")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given", ["3", "2.5", "True", "np.float32(2)", "np.int64(3)", "np.array(3)", "Value(math.nan, 'why')"]
)
def test_a_metric_may_give_any_real_number(given: str) -> None:
    from topo.metrics import metric, metrics
    from topo.report import Value

    function = plugin("graph", body=f"return {given}", name="fine")
    function.__globals__.update(np=np, math=math, Value=Value)
    with restored(metrics):
        metric(group="paths", scope="network", unit="weights", wired=False)(function)
        number = topo.analyze(MASKS, metrics="fine").network["fine"]
    assert isinstance(number, int | float)


def test_what_goes_wrong_in_a_metric_names_the_metric_and_the_layer() -> None:
    from topo.metrics import metric, metrics

    with restored(metrics):
        metric(group="paths", scope="layer", unit="weights", wired=False)(
            plugin("graph, block", body="return {}['x']", name="layer_broken")
        )
        with pytest.raises(TopoError, match=r"metric 'broken' failed at layer 'a.weight': KeyError: 'x'"):
            topo.analyze(MASKS, metrics="broken")


def _net() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))


BAD_SCORES = {
    "transposed": ("{n: w.abs().T for n, w in net.weights.items()}",
                   r"shape \(8, 6\) for '0.weight', whose shape is \(6, 8\)"),
    "flat": ("{n: w.abs().reshape(-1) for n, w in net.weights.items()}", r"shape \(48,\) for '0.weight'"),
    "one number": ("{n: w.abs().sum() for n, w in net.weights.items()}", r"shape \(\) for '0.weight'"),
    "nan": ("{n: w * float('nan') for n, w in net.weights.items()}", "of '0.weight' are not finite"),
    "infinite": ("{n: w / 0 for n, w in net.weights.items()}", "not finite"),
    "missing": ("{n: w for n, w in net.weights.items() if n != '2.weight'}", "no scores for '2.weight'"),
    "unknown": ("{**net.weights, 'head.weight': net.weights['0.weight']}", "'head.weight', which is not a parameter"),
    "bias": ("{**net.weights, '0.bias': net.weights['0.weight']}", "'0.bias', which is not a parameter"),
    "list": ("list(net.weights.values())", "gives list"),
    "none": ("None", "gives NoneType"),
    "texts": ("{n: 'high' for n in net.weights}", "gives str for '0.weight'"),
    "complex": ("{n: w + 1j for n, w in net.weights.items()}", "real tensors"),
    "raises": ("{}['x']", "pruner 'odd' failed: KeyError: 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("body, told", BAD_SCORES.values(), ids=BAD_SCORES)
def test_scores_are_of_every_weight_and_of_its_shape(body: str, told: str) -> None:
    from topo.pruners import pruner, pruners

    with restored(pruners):
        pruner(data="none", cost="none", source="this test")(
            plugin("net, batches, *, rng", body=f"return {body}", name="odd")
        )
        with pytest.raises(TopoError, match=told) as caught:
            topo.generate("odd", _net(), density=0.5)
        assert "'odd'" in str(caught.value) and "\n" not in str(caught.value)


def test_scores_may_be_numpy_arrays_and_whole_numbers() -> None:
    from topo.pruners import pruner, pruners

    body = "return {n: (w.detach().abs() * 1000).int().numpy() for n, w in net.weights.items()}"
    with restored(pruners):
        pruner(data="none", cost="none", source="this test")(plugin("net, batches, *, rng", body=body, name="fine"))
        assert topo.generate("fine", _net(), density=0.5).kept == 54


BAD_ROWS = {
    "a layer that is not there": ("yield 'other', rows", "yields layer 'other'"),
    "a layer twice": ("yield from [('a.weight', rows)] * 2", "yields layer 'a.weight'"),
    "no layer": ("yield from ()", "yields nothing for 'a.weight'"),
    "another shape": ("yield 'a.weight', np.ones((4, 3), bool)",
                      r"shape \(4, 3\) for 'a.weight', whose shape is \(3, 4\)"),
    "numbers": ("yield 'a.weight', np.ones((3, 4))", "yields ndarray for 'a.weight'"),
    "no pairs": ("yield rows", "it yields pairs"),
    "nothing": ("return None", "'NoneType' object is not iterable"),
    "an error": ("yield {}['x']", "failed: KeyError: 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("body, told", BAD_ROWS.values(), ids=BAD_ROWS)
@pytest.mark.parametrize("kind", ["generator", "null"])
def test_generators_and_nulls_yield_the_layers(kind: str, body: str, told: str) -> None:
    from topo.generators import generator, generators
    from topo.masks import BitRows
    from topo.nulls import null, nulls

    masks = topo.MaskSet({"a.weight": MASKS["a.weight"]})
    start = "masks" if kind == "null" else "budgets"
    function = plugin(f"wiring, {start}, rng", body=body, name="odd")
    function.__globals__.update(np=np, rows=BitRows.of_mask(MASKS["a.weight"]))
    with restored(generators), restored(nulls), pytest.raises(TopoError, match=told) as caught:
        if kind == "null":
            null(keeps="something")(function)
            nulls["odd"](masks)
        else:
            generator(source="this test")(function)
            topo.generate("odd", topo.chain(masks), density=0.5)
    assert "'odd'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body", ["[1]", "None", "[-1, 3]", "['1', 2]", "[float('nan'), 1]", "[100, 0]", "[0, 0]", "{}['x']"]
)
def test_a_quota_shares_the_budget_out(body: str) -> None:
    from topo.quotas import budgets, quota, quotas

    with restored(quotas):
        quota(plugin("shapes, total", body=f"return {body}", name="odd"))
        with pytest.raises(TopoError, match="quota 'odd'"):
            budgets("odd", {"a": (4, 4), "b": (2, 4)}, density=0.5)


def test_a_model_is_a_module() -> None:
    from topo.models import model, models

    with restored(models):
        model("this test", shape=(3,))(plugin("", body="return 3", name="odd"))
        with pytest.raises(TopoError, match="model 'odd' makes int"):
            topo.models.build("odd")


def test_a_layout_gives_a_data_set(tmp_path: Path) -> None:
    from topo.data import data, layout, load

    with restored(data):
        layout("odd", "nothing", recognise=lambda path: "yes")(plugin("path"))
        with pytest.raises(TopoError, match="data set 'odd', recognise, gives 'yes'"):
            load(tmp_path)
    with restored(data):
        layout("odd", "nothing", recognise=lambda path: True)(plugin("path", body="return 3"))
        with pytest.raises(TopoError, match="data set 'odd' gives int"):
            load(tmp_path)


_KEPT = "mask = torch.arange(weight.numel()).reshape(weight.shape) < keep.count; "
BAD_PRUNED = {
    "nothing": ("return None", "gives NoneType for '0.weight'; it gives two tensors"),
    "one tensor": ("return weight", "gives Tensor for '0.weight'; it gives two tensors"),
    "arrays": (_KEPT + "return mask.numpy(), weight.numpy()", "gives tuple for .* it gives two tensors"),
    "a mask turned": (_KEPT + "return mask.T, weight", r"a mask of shape \(8, 6\) for '0.weight'.* \(6, 8\)"),
    "a weight turned": (_KEPT + "return mask, weight.T", r"a weight of shape \(8, 6\) for '0.weight'.* \(6, 8\)"),
    "a mask of numbers": (_KEPT + "return mask.float(), weight", "a mask of torch.float32 for '0.weight'"),
    "too many": ("return weight < 1e9, weight", "keeps 48 of '0.weight'; it was asked for 24"),
    "no numbers": (_KEPT + "return mask, weight * float('nan')", "weights for '0.weight' that are not finite"),
    "complex": (_KEPT + "return mask, weight + 1j", "weights for '0.weight' that are not finite real"),
    "weights that it drops": (_KEPT + "return mask, weight", "for '0.weight' that are not zero where its mask drops"),
    "an error": ("return {}['x']", "failed for '0.weight': KeyError: 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("body, told", BAD_PRUNED.values(), ids=BAD_PRUNED)
def test_a_calibrated_pruner_gives_a_mask_and_a_weight(body: str, told: str) -> None:
    import torch

    from topo.calibrated import calibrated, methods, prune

    function = plugin("weight, seen, keep", body=body, name="odd")
    function.__globals__.update(torch=torch)
    with restored(methods):
        calibrated(seen="norms", cost="none", source="this test")(function)
        with pytest.raises(TopoError, match=f"calibrated pruner 'odd' .*{told}") as caught:
            prune("odd", _net(), sparsity=0.5, calibration=[torch.ones(4, 8)])
    assert "\n" not in str(caught.value)


BAD_GROWTH = {
    "nothing": ("None", "gives NoneType for"),
    "an array": ("layer.mask.numpy() * 1.0", "gives ndarray for"),
    "turned": ("layer.gradient.T", r"gives scores of shape \(8, 6\) for 'fc1.weight', whose shape is \(6, 8\)"),
    "one number": ("layer.gradient.sum()", r"gives scores of shape \(\) for 'fc1.weight'"),
    "complex": ("layer.gradient + 1j", "gives torch.complex64 for"),
    "an error": ("{}['x']", "failed for 'fc1.weight': KeyError: 'x'"),
}


@pytest.mark.parametrize("body, told", BAD_GROWTH.values(), ids=BAD_GROWTH)
def test_a_rule_of_growth_scores_every_weight(body: str, told: str) -> None:
    from topo.data import Dataset
    from topo.train.dynamic import dynamic, dynamics

    images, labels = np.zeros((8, 1, 2, 4), np.uint8), np.arange(8) % 4
    few = Dataset("few", images, labels, images, labels, tuple("abcd"))
    masks = {"fc1.weight": np.eye(6, 8), "fc2.weight": np.eye(4, 6)}
    with restored(dynamics):
        dynamic("odd", source="this test")(plugin("layer", body=f"return {body}", name="odd"))
        with pytest.raises(TopoError, match=f"dynamic method 'odd' {told}") as caught:
            recipe = {"epochs": 2, "batch": 4, "sparse": "odd", "update_every": 1}
            topo.train("mlp:8-6-4", few, masks=masks, recipe=recipe)
    assert "\n" not in str(caught.value)


def test_an_optimizer_gives_masks_with_a_certificate() -> None:
    from topo.optimize import method, methods

    with restored(methods):
        method(source="this test")(plugin("wiring, *, total, rng, progress", body="return {}", name="odd"))
        with pytest.raises(TopoError, match="method 'odd' gives dict"):
            topo.generate("odd", "mlp:8-6-4", density=0.5)


@pytest.mark.parametrize("takes", ["data", "masks, *, layer=None", "data, axes=None"])
def test_a_figure_takes_axes_or_a_figure_to_draw_on(takes: str) -> None:
    from topo.plots import plot, plots

    with restored(plots), pytest.raises(TopoError, match=r"plot 'odd' .*it takes neither ax nor fig"):
        plot(of="masks")(plugin(takes, name="odd"))


ANNOTATIONS = pytest.mark.parametrize("annotation", [int, "int", "'int'", int | None, "int | None"], ids=repr)


@ANNOTATIONS
def test_options_of_a_method_are_of_their_type_however_it_is_written(annotation: Any) -> None:
    from topo.optimize import method, methods

    function = plugin("wiring, *, total, rng, progress, floor=2", name="odd")
    function.__annotations__["floor"] = annotation
    with restored(methods):
        method(source="this test")(function)
        assert methods["odd"].read({"floor": "3"}) == {"floor": 3}
        with pytest.raises(TopoError, match="option 'floor' of method 'odd' is 'x'; it is of type int"):
            methods["odd"].read({"floor": "x"})


@ANNOTATIONS
def test_what_a_figure_draws_is_its_first_argument_under_any_name(tmp_path: Path, capsys: Any, annotation: Any) -> None:
    """Its options are read as what they are annotated with, however that is written."""
    from topo.cli import main
    from topo.plots import plot, plots

    topo.write_masks(topo.MaskSet(MASKS), tmp_path / "m.npz")
    body = "ax.bar(range(bars), [masks.kept] * bars); return ax"
    with restored(plots):
        function = plugin("masks, ax=None, *, bars=2", body=body, name="odd")
        function.__annotations__["bars"] = annotation
        plot(of="masks")(function)
        line = ["plot", "odd", str(tmp_path / "m.npz"), "-O", "bars=3", "-o", str(tmp_path / "m.svg"), "--quiet"]
        assert main(line) == 0, capsys.readouterr().err
        assert main([*line[:4], "masks=3", *line[5:]]) == 1 and "it takes: bars" in capsys.readouterr().err
    assert (tmp_path / "m.svg").stat().st_size > 1000


# -- rules of a trace: they are held by the names of operations, where a later one takes the place of an earlier one


def _shifted() -> Any:
    """A network that calls an operation of one's own between two layers."""
    import torch
    from torch import nn

    if not hasattr(torch.ops.topo_doors, "shift"):
        shift = torch.library.custom_op(
            "topo_doors::shift", lambda x: x.roll(1, 1), mutates_args=(), schema="(Tensor x) -> Tensor"
        )
        shift.register_fake(torch.empty_like)

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)

        def forward(self, x: Any) -> Any:
            return self.second(torch.ops.topo_doors.shift(self.first(x)))

    return Shifted()


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The rules there are; those of a test are gone after it."""
    from topo.trace import rules

    monkeypatch.setattr(rules, "RULES", held := dict(rules.RULES))
    monkeypatch.setattr(importlib.import_module("topo.trace.walk"), "RULES", held)
    return held


@pytest.mark.parametrize("names", [(), ("shift",), ("",), (None,), (3,), ("a.b", "c"), ("my lib.shift",)])
def test_rules_are_for_operations_by_name(rules: dict[str, Any], names: tuple[Any, ...]) -> None:
    before = dict(rules)
    with pytest.raises(TopoError, match=r"a rule of a trace is for .*; it is for operations by name") as caught:
        topo.rule(*names)(lambda units, inputs, shape: inputs[0])
    assert rules == before and "\n" not in str(caught.value)


@pytest.mark.parametrize("thing", [3, None, "text", lambda units: 0, lambda a, b, c, d: 0])
def test_what_is_no_rule_is_refused(rules: dict[str, Any], thing: Any) -> None:
    before = dict(rules)
    with pytest.raises(TopoError, match=r"the rule of mylib\.shift .*\(units, inputs, shape\)"):
        topo.rule("mylib.shift")(thing)
    assert rules == before


BAD_IDS = {
    "nothing": (lambda ids: None, "its rule gives NoneType where a tensor of ids goes"),
    "text": (lambda ids: "ids", "its rule gives str where"),
    "several": (lambda ids: [ids, ids], "its rule gives list where"),
    "an array": (lambda ids: ids.numpy(), "its rule gives ndarray where"),
    "another shape": (lambda ids: ids[:, :2], r"its rule gives ids of shape \(1, 2\) where the output has \(1, 3\)"),
    "floats": (lambda ids: ids.double(), "its rule gives float64 where ids are whole numbers"),
    "truth": (lambda ids: ids > 0, "its rule gives bool where"),
    "units that are not made yet": (lambda ids: ids + 3, "its rule gives ids from 5 to 7; there are 5 units so far"),
    "less than any constant": (lambda ids: ids * 0 - 9, "its rule gives ids from -9 to -9"),
    "a mistake": (lambda ids: {}["x"], "its rule failed .KeyError: 'x'"),
    "another mistake": (lambda ids: ids.spam, "its rule failed .AttributeError"),
    "a mistake of arithmetic": (lambda ids: 1 / 0, "its rule failed .ZeroDivisionError"),
}  # fmt: skip


@pytest.mark.parametrize("makes, told", BAD_IDS.values(), ids=BAD_IDS)
def test_what_a_rule_gives_is_checked(rules: dict[str, Any], makes: Any, told: str) -> None:
    """As without a rule: a warning that names the operation and every output of every input; an error if strict."""
    topo.rule("topo_doors.shift")(lambda units, inputs, shape: makes(inputs[0]))
    with pytest.warns(TraceWarning, match=rf"topo_doors\.shift at .*: {told}"):
        wiring = topo.trace(_shifted(), (2,))
    assert len(set(wiring.layers[1].reads.tolist())) == 1
    with pytest.raises(TraceError, match=rf"topo_doors\.shift at .*: {told}") as caught:
        topo.trace(_shifted(), (2,), strict=True)
    assert "\n" not in str(caught.value)


# -- entry points of other packages


def test_other_packages_register_by_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with two entry points, one of which cannot be loaded: the other is there, listed with its package."""
    from topo._support import registry

    (tmp_path / "wide_masks.py").write_text(
        "from topo.quotas import quota\n\n\n@quota\ndef halves(shapes, total):\n    '''Half of it each.'''\n"
        "    return [total / len(shapes)] * len(shapes)\n"
    )
    made = tmp_path / "wide_masks-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: wide-masks\nVersion: 1.0\n")
    (made / "entry_points.txt").write_text("[topo.quotas]\nhalves = wide_masks\nbroken = not_there_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._entry_points.cache_clear()
    shapes = Registry("quota", group="topo.quotas")
    monkeypatch.setattr(importlib.import_module("topo.quotas"), "quotas", shapes)
    with pytest.warns(
        PluginWarning, match="the package 'wide-masks' offers the quota 'broken', which cannot be loaded"
    ):
        assert list(shapes) == ["halves"]
    assert shapes.package_of("halves") == "wide-masks"
    registry._entry_points.cache_clear()


# -- every method obeys an option or refuses it


NET_SHAPES = {"0.weight": (6, 8), "2.weight": (6, 6), "4.weight": (4, 6)}
SIZE = 108
GIVEN: dict[str, dict[str, Any]] = {
    "density": {"density": 0.5},
    "sparsity": {"sparsity": 0.5},
    "quota": {"density": 0.5, "quota": "uniform"},
    "another quota": {"density": 0.5, "quota": "erk_plus"},
    "budgets": {"budgets": {"0.weight": 24, "2.weight": 12, "4.weight": 18}},
    "budgets and density": {"budgets": {"0.weight": 24, "2.weight": 12, "4.weight": 18}, "density": 0.25},
    "density and sparsity": {"density": 0.5, "sparsity": 0.9},
    "source": {"source": {name: np.eye(*shape, dtype=bool) for name, shape in NET_SHAPES.items()}},
    "source and density": {
        "source": {name: np.eye(*shape, dtype=bool) for name, shape in NET_SHAPES.items()},
        "density": 0.5,
    },
}


@pytest.mark.parametrize("words", GIVEN.values(), ids=GIVEN)
def test_every_method_obeys_an_option_or_refuses_it(words: dict[str, Any]) -> None:
    from topo.generate import methods

    assert len(methods()) > 20
    for name, entry in methods().items():
        try:
            obeys(name, entry.needs == "data", words)
        except AssertionError as error:
            raise AssertionError(f"method {name}: {error}") from error


def obeys(name: str, needs_data: bool, words: dict[str, Any]) -> None:
    """AssertionError if masks come back that are not as `words` ask."""
    from topo.quotas import budgets

    rng = np.random.default_rng(0)
    data = {"batches": [(rng.normal(size=(16, 8)).astype(np.float32), np.arange(16) % 4)]} if needs_data else {}
    try:
        masks = topo.generate(name, _net(), input_shape=(8,), **words, **data)
    except TopoError as error:
        assert "\n" not in str(error)
        return
    kept = {layer: masks.rows(layer).kept() for layer in masks}
    inexact = "asked" in masks.provenance
    assert not inexact or masks.provenance["keeps"]
    if name == "repair":  # it mends the source's masks at their own size or at the density: both are obeyed
        size = (
            round(words["density"] * SIZE)
            if "density" in words
            else sum(int(m.sum()) for m in words["source"].values())
        )
        assert "source" in words and masks.kept == size
        return
    assert len(words.keys() & {"density", "sparsity", "budgets", "source"}) == 1, "one of two budgets was ignored"
    if "budgets" in words:
        assert kept == words["budgets"] or inexact
    elif "source" in words:
        started = words["source"]
        sums = {layer: int(started[layer].sum()) for layer in started}
        assert kept in (sums, {layer: started[layer].size - sums[layer] for layer in started})
    elif "quota" in words:
        assert kept == budgets(words["quota"], NET_SHAPES, density=words["density"]) or inexact
    else:
        assert masks.kept == SIZE // 2 or masks.provenance["asked"] == SIZE // 2


@pytest.mark.parametrize("count", [3.7, 3.0, "3", True, None, -1, 49, float("nan")])
@pytest.mark.parametrize("name", ["uniform", "expander", "balance", "magnitude"])
def test_a_budget_of_a_layer_is_a_whole_number_up_to_its_size(name: str, count: Any) -> None:
    with pytest.raises(TopoError, match=r"0\.weight") as caught:
        topo.generate(name, _net(), input_shape=(8,), budgets={"0.weight": count, "2.weight": 12, "4.weight": 18})
    assert "\n" not in str(caught.value)
