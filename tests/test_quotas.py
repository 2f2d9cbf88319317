"""Quotas: exact sums under caps, published ERK densities, and what cannot be asked."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from naive import degrees as twins
from topo.errors import TopoError
from topo.quotas import budgets, densities, quotas

pytestmark = pytest.mark.small
TWINS = {name: getattr(twins, name) for name in ("uniform", "er", "erk", "igq")}
SMALL = {"a": (4, 3), "b": (2, 4)}
side = st.integers(1, 6)
shape = st.one_of(st.tuples(side, side), st.tuples(side, side, st.integers(1, 3), st.integers(1, 3)))
networks = st.lists(shape, min_size=1, max_size=6).map(lambda shapes: {f"layer{i}": s for i, s in enumerate(shapes)})


def network(spec: str) -> dict[str, tuple[int, ...]]:
    torch = pytest.importorskip("torch")
    from topo.models import build, prunable

    with torch.device("meta"):
        return prunable(build(spec))


@pytest.mark.parametrize("quota", TWINS)
@given(networks, st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_budgets_are_exact_capped_and_equal_to_the_twin(quota: str, shapes, density: float) -> None:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    found = budgets(quota, shapes, density=density)
    assert list(found) == list(shapes)
    assert sum(found.values()) == round(density * sum(sizes.values()))
    assert all(type(kept) is int and 0 <= kept <= sizes[name] for name, kept in found.items())
    assert list(found.values()) == TWINS[quota](list(shapes.values()), sum(found.values()))
    assert budgets(quota, shapes, total=sum(found.values())) == found
    real = densities(quota, shapes, density=density)
    assert all(0 <= value <= 1 + 1e-12 for value in real.values())
    kept = sum(real[name] * sizes[name] for name in sizes)
    assert kept == pytest.approx(density * sum(sizes.values()), abs=1e-9)


@given(networks, st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_erk_plus_keeps_the_last_layer_whole(shapes, seed: int) -> None:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    last = list(shapes)[-1]
    total = sizes[last] + seed % (sum(sizes.values()) - sizes[last] + 1)
    found = budgets("erk_plus", shapes, total=total)
    assert found[last] == sizes[last] and sum(found.values()) == total
    if len(shapes) > 1:
        others = {name: shapes[name] for name in shapes if name != last}
        assert {**budgets("erk", others, total=total - sizes[last]), last: sizes[last]} == found


@given(networks, st.data())
@settings(max_examples=80, deadline=None)
def test_given_profiles(shapes, data) -> None:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    counts = {name: data.draw(st.integers(0, size)) for name, size in sizes.items()}
    assert budgets("given", shapes, counts=counts) == counts
    profile = {name: data.draw(st.floats(0, 1)) for name in sizes}
    free = budgets("given", shapes, densities=profile)
    assert sum(free.values()) == pytest.approx(sum(profile[n] * sizes[n] for n in sizes), abs=0.5 + 1e-9)
    assert all(abs(free[name] - profile[name] * sizes[name]) <= 1 for name in sizes)
    room = sum(size for name, size in sizes.items() if counts[name])
    total = data.draw(st.integers(0, room))
    scaled = budgets("given", shapes, total=total, counts=counts)
    assert sum(scaled.values()) == total and all(0 <= scaled[name] <= sizes[name] for name in sizes)
    assert all(scaled[name] == 0 for name in sizes if counts[name] == 0)


def test_published_erk_densities_of_resnet34() -> None:
    """torchvision's ResNet-34 with 10 classes at density 0.05."""
    found = densities("erk", network("resnet34:classes=10"), density=0.05)
    dense = [name for name, density in found.items() if density == 1]
    assert dense == ["layer2.0.downsample.0.weight", "fc.weight"]
    assert round(found["conv1.weight"], 4) == 0.5622
    assert {round(v, 6) for name, v in found.items() if name.startswith("layer1.")} == {0.237359}
    assert {round(v, 6) for name, v in found.items() if name.startswith("layer4.2.")} == {0.028507}


def test_published_erk_densities_of_resnet20() -> None:
    """ResNet-20 with convolutions as shortcuts at density 0.1."""
    found = densities("erk", network("resnet20:shortcut=conv"), density=0.1)
    dense = [name for name, density in found.items() if density == 1]
    assert dense == ["blocks.3.shortcut.0.weight", "fc.weight"]
    assert round(found["conv.weight"], 6) == 0.982985
    assert {round(v, 6) for name, v in found.items() if re.match(r"blocks\.[012]\.", name)} == {0.280151}
    assert {round(v, 6) for name, v in found.items() if name.startswith("blocks.8.")} == {0.061744}


@pytest.mark.parametrize("spec", ["resnet20", "resnet34:classes=10", "vgg16"])
@pytest.mark.parametrize("density", [0.5, 0.1, 0.02, 0.001])
def test_real_networks_meet_their_budget(spec: str, density: float) -> None:
    shapes = network(spec)
    size = sum(math.prod(shape) for shape in shapes.values())
    for quota in ("uniform", "er", "erk", "igq"):
        found = budgets(quota, shapes, density=density)
        assert sum(found.values()) == round(density * size)
        assert all(0 <= kept <= math.prod(shapes[name]) for name, kept in found.items())
        real = densities(quota, shapes, density=density)
        assert all(abs(found[name] - real[name] * math.prod(shapes[name])) < 2 for name in shapes)


def test_the_traps_of_released_erk() -> None:
    """There, full layers lose their excess (no cap, or one pass of it), and layers rounded one by one drift."""
    shapes = network("resnet20:shortcut=conv")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(0.1 * sum(sizes.values()))
    e = total / sum(map(sum, shapes.values()))
    clipped = {name: min(sizes[name], e * sum(shape)) for name, shape in shapes.items()}
    assert sum(clipped.values()) < 0.98 * total  # clipping alone loses budget
    found, real = budgets("erk", shapes, density=0.1), densities("erk", shapes, density=0.1)
    assert sum(found.values()) == total
    assert sum(math.floor(real[name] * sizes[name]) for name in sizes) < total
    assert sum(math.ceil(real[name] * sizes[name]) for name in sizes) > total
    shares = [real[name] * sizes[name] / sum(shape) for name, shape in shapes.items() if real[name] < 1]
    assert max(shares) == pytest.approx(min(shares), rel=1e-12)  # what full layers left went to all others alike


def test_ties_go_in_layer_order() -> None:
    shapes = {name: (3, 3) for name in "abcd"}
    for quota in ("uniform", "er", "erk", "igq"):
        assert list(budgets(quota, shapes, total=10).values()) == [3, 3, 2, 2]


def test_quotas_differ_as_they_should() -> None:
    shapes = {"small": (8, 8), "large": (80, 80), "kernels": (8, 8, 3, 3)}
    uniform, er, erk, igq = (densities(quota, shapes, density=0.05) for quota in ("uniform", "er", "erk", "igq"))
    assert len(set(uniform.values())) == 1
    assert er["small"] == er["kernels"] > er["large"]  # a kernel's sides do not count
    assert erk["small"] > erk["kernels"] > erk["large"]
    counts = budgets("igq", {"small": (8, 8), "large": (800, 800)}, total=20)
    assert counts == {"small": 9, "large": 11}  # in very sparse networks all layers keep nearly the same number
    f = 1 / igq["small"] / 64 - 1 / 64
    assert [igq[name] for name in shapes] == pytest.approx([1 / (f * n + 1) for n in (64, 6400, 576)])


def test_sparsity_is_one_minus_density_in_decimal() -> None:
    shapes = {"a": (3, 5)}
    assert round((1 - 0.9) * 15) == 1 and round(0.1 * 15) == 2  # what floats would do
    for density, sparsity in ((0.1, 0.9), (0.02, 0.98), (0.3, 0.7), (0.0, 1.0), (1.0, 0.0), (0.99999, 1e-5)):
        assert budgets("uniform", shapes, density=density) == budgets("uniform", shapes, sparsity=sparsity)
    assert budgets("uniform", shapes, density=np.float64(0.4), sparsity=None) == {"a": 6}
    assert budgets("uniform", shapes, sparsity=np.float64(0.6)) == {"a": 6}


@pytest.mark.parametrize(
    "quota, options, text",
    [
        ("spam", {"density": 0.5}, "no quota is called 'spam'; there are: uniform, er, erk, erk_plus, igq, balanced, "),
        ("erk", {}, "quota 'erk' needs a budget: give one of density, sparsity and total"),
        ("erk", {"density": 0.5, "sparsity": 0.5}, "given are density and sparsity"),
        ("erk", {"density": 1.5}, "density is 1.5; it is a number from 0 to 1"),
        ("erk", {"sparsity": -0.1}, "sparsity is -0.1; it is a number from 0 to 1"),
        ("erk", {"density": math.nan}, "density is nan"),
        ("erk", {"total": 21}, "total is 21; it is a whole number from 0 to 20"),
        ("erk", {"total": -1}, "total is -1"),
        ("erk", {"total": 2.5}, "total is 2.5"),
        ("erk", {"total": 5, "spam": 1}, "quota 'erk' has no option 'spam'; it takes none"),
        ("given", {"spam": 1}, "quota 'given' has no option 'spam'; it takes densities, counts"),
        ("erk_plus", {"total": 7}, "keeps the last layer 'b' whole, 8 parameters, but the budget is 7"),
        ("given", {}, "takes densities or counts, one of them"),
        ("given", {"counts": {"a": 1}}, "layer 'b' is missing from the given counts"),
        ("given", {"counts": {"a": 1, "b": 1, "c": 1}}, "layer 'c' is missing from the shapes"),
        ("given", {"counts": {"a": 13, "b": 1}}, "the given counts hold 13 for 'a'; it is a number from 0 to 12"),
        ("given", {"densities": {"a": 0.5, "b": 2}}, "the given densities hold 2 for 'b'"),
        ("given", {"total": 9, "counts": {"a": 0, "b": 1}}, "budget is 9, but the layers that .* do not empty hold 8"),
    ],
)
def test_what_cannot_be_asked(quota: str, options, text: str) -> None:
    for function in (budgets, densities):
        with pytest.raises(TopoError, match=text):
            function(quota, SMALL, **options)


@pytest.mark.parametrize("shapes", [{}, {"a": (3,)}, {"a": (3, 0)}])
def test_shapes_that_are_none(shapes) -> None:
    for options in ({"density": 0.5}, {"total": 0}, {}):
        with pytest.raises(TopoError, match=r"layer"):
            budgets("given" if not options else "erk", shapes, **options)


def test_every_quota_says_what_it_is() -> None:
    shapes = ["uniform", "er", "erk", "erk_plus", "igq", "balanced", "pyramidal", "smart_ratio"]
    assert list(quotas) == [*shapes, "owl", "alpha", "given"]
    assert all(rule.__doc__.splitlines()[0] for rule in quotas.values())
