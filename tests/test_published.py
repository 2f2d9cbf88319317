"""Numbers that others published, typed in with their source: what they counted, counted again."""

from __future__ import annotations

import pytest

from topo.networks import find_wiring
from topo.optimize.problem import Problem, prunable, rule_flops
from topo.quotas import budgets, densities
from topo.wiring import Layer

# RAIVNLab/STR, budgets/SparsityDistributions_90_ResNet50.csv, column ERK: percent sparse, layers 1 to 54.
ERK_90 = [
    58, 0, 82, 4, 4, 4, 82, 4, 4, 82, 4, 43, 91, 52, 71, 52, 91, 52, 52, 91, 52, 52, 91, 52, 71, 96, 76, 86, 76,
    96, 76, 76, 96, 76, 76, 96, 76, 76, 96, 76, 76, 96, 76, 86, 98, 88, 93, 88, 98, 88, 88, 98, 88, 93,
]  # fmt: skip
# The same file, column STR: 90.23 % sparse in all.
STR_90 = [
    59.80, 83.28, 89.48, 85.80, 83.34, 89.89, 90.60, 91.70, 88.07, 87.03, 90.99, 85.95, 93.91, 93.13, 94.96, 95.31,
    91.50, 93.66, 94.61, 94.86, 93.38, 93.26, 93.21, 94.14, 88.85, 96.14, 93.19, 97.20, 95.36, 95.06, 94.84, 96.77,
    95.59, 94.99, 96.08, 96.10, 94.94, 95.49, 95.66, 94.49, 95.09, 94.92, 93.14, 90.32, 95.66, 91.14, 96.79, 93.69,
    93.98, 90.48, 87.57, 84.37, 80.29, 64.50,
]  # fmt: skip


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


def test_the_flops_of_str_budgets(resnet50: dict[str, Layer]) -> None:
    """Kusupati et al. 2020, table 1: 90.23 % sparse, 2.49 M parameters, 343 M FLOPs."""
    share = {name: 1 - percent / 100 for name, percent in zip(resnet50, STR_90)}
    assert spent(resnet50, share) / 1e6 == pytest.approx(343, abs=0.6)
    kept = {name: round(share[name] * layer.size) for name, layer in resnet50.items()}
    assert sum(kept.values()) / 1e6 == pytest.approx(2.49, abs=0.005)


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
    problem = Problem(find_wiring("resnet50"), total=sum(budgets("erk", shapes, sparsity=sparsity).values()))
    assert rule_flops(problem, "erk") / 2 / dense == pytest.approx(erk, abs=0.008)
