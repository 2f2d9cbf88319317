"""Numbers that others published, typed in with their source: what they counted, counted again."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import topo
from topo.networks import find_wiring
from topo.optimize.problem import Problem, prunable, rule_flops
from topo.quotas import budgets, densities
from topo.wiring import Layer

# RAIVNLab/STR, budgets/SparsityDistributions_90_ResNet50.csv, column ERK: percent sparse, layers 1 to 54.
ERK_90 = [
    58, 0, 82, 4, 4, 4, 82, 4, 4, 82, 4, 43, 91, 52, 71, 52, 91, 52, 52, 91, 52, 52, 91, 52, 71, 96, 76, 86, 76,
    96, 76, 76, 96, 76, 76, 96, 76, 76, 96, 76, 76, 96, 76, 86, 98, 88, 93, 88, 98, 88, 88, 98, 88, 93,
]  # fmt: skip
# RAIVNLab/STR, budgets/STR_Budgets_ResNet50.csv: percent sparse of layers 1 to 54, a column a network.
STR = Path(__file__).parent / "published" / "str_resnet50.csv"


@pytest.fixture(scope="module")
def resnet50() -> dict[str, Layer]:
    wiring = find_wiring("resnet50")
    return {name: wiring.layer(name) for name in prunable(wiring)}


def spent(layers: dict[str, Layer], share: dict[str, float]) -> float:
    """Multiply-accumulates of layers that keep shares of their weights."""
    return sum(share[name] * layer.size * (layer.positions or 0) for name, layer in layers.items())


def test_resnet50_has_the_published_size(resnet50: dict[str, Layer]) -> None:
    """STR_Budgets_ResNet50.csv: 25,502,912 parameters; 4,089,284,608 FLOPs with 100,352 of the average pool."""
    assert len(resnet50) == 54 and sum(layer.size for layer in resnet50.values()) == 25_502_912
    assert spent(resnet50, dict.fromkeys(resnet50, 1.0)) == 4_089_284_608 - 100_352


def test_erk_of_resnet50_layer_by_layer(resnet50: dict[str, Layer]) -> None:
    found = densities("erk", {name: layer.shape for name, layer in resnet50.items()}, density=0.1)
    assert [round(100 * (1 - density)) for density in found.values()] == ERK_90


# Kusupati et al. 2020, table 1: percent sparse, FLOPs in millions.
@pytest.mark.parametrize(
    "sparse, flops", [("81.27", 705), ("90.23", 343), ("95.15", 162), ("96.11", 127), ("98.05", 73), ("98.98", 47)]
)
def test_the_flops_of_str_budgets(sparse: str, flops: int, resnet50: dict[str, Layer]) -> None:
    with STR.open(newline="") as file:
        percents = [float(row[sparse]) for row in csv.DictReader(file)]
    share = {name: 1 - percent / 100 for name, percent in zip(resnet50, percents, strict=True)}
    assert spent(resnet50, share) / 1e6 == pytest.approx(flops, abs=0.5)
    kept = sum(round(share[name] * layer.size) for name, layer in resnet50.items())
    assert 100 * (1 - kept / 25_502_912) == pytest.approx(float(sparse), abs=0.005)


# Evci et al. 2020: FLOPs of ResNet-50 with ERK, and with uniform densities and a dense first layer.
@pytest.mark.parametrize(
    "sparsity, erk, uniform", [(0.8, 0.42, 0.23), (0.9, 0.24, 0.13), (0.95, 0.12, 0.08), (0.965, 0.09, 0.07)]
)
def test_the_flops_of_rigl(sparsity: float, erk: float, uniform: float, resnet50: dict[str, Layer]) -> None:
    shapes = {name: layer.shape for name, layer in resnet50.items()}
    dense = spent(resnet50, dict.fromkeys(resnet50, 1.0))
    assert spent(resnet50, densities("erk", shapes, sparsity=sparsity)) / dense == pytest.approx(erk, abs=0.008)
    others = {name: shape for name, shape in shapes.items() if name != "conv1.weight"}
    share = {"conv1.weight": 1.0, **densities("uniform", others, sparsity=sparsity)}
    assert spent(resnet50, share) / dense == pytest.approx(uniform, abs=0.008)
    held = densities("uniform", shapes, sparsity=sparsity, dense="conv1.weight")  # of one total: the others keep less
    assert held["conv1.weight"] == 1 and spent(resnet50, held) / dense == pytest.approx(uniform, abs=0.008)
    problem = Problem(find_wiring("resnet50"), total=sum(budgets("erk", shapes, sparsity=sparsity).values()))
    assert rule_flops(problem, "erk") / 2 / dense == pytest.approx(erk, abs=0.008)


def test_the_flops_of_wide_resnet_22_2() -> None:
    """Sundar & Dwaraknath, [Re] Rigging the Lottery, 2021: ERK at a fifth of the weights, .35 of the dense FLOPs."""
    from topo.models.nets.wide_resnet import WideResNet

    wiring = topo.trace(WideResNet(22, 2, 10), (3, 32, 32))
    layers = {name: wiring.layer(name) for name in prunable(wiring)}
    share = densities("erk", {name: layer.shape for name, layer in layers.items()}, density=0.2)
    assert spent(layers, share) / spent(layers, dict.fromkeys(layers, 1.0)) == pytest.approx(0.35, abs=0.005)
