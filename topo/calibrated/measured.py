"""What quotas ask of weights and activations: shares of outliers (OWL), and how heavy a spectrum's tail is
(AlphaPruning)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def outlier_share(judged: list[Tensor], factor: float) -> float:
    """Percent of the scores of a block's layers, taken together, that are above `factor` times their mean.

    Yin et al. 2024, section 3: D = 100 mean(A > M mean A), A = |w_ij| ||x_j||.

    >>> outlier_share([torch.tensor([[1.0, 1.0], [1.0, 9.0]])], 2.0)
    25.0
    """
    size = sum(scores.numel() for scores in judged)
    mean = sum(float(scores.double().sum()) for scores in judged) / size
    return 100 * sum(int((scores > factor * mean).sum()) for scores in judged) / size


def hill_exponent(weight: Tensor) -> float:
    """1 + k / sum ln(l_i / l_k+1) over the k largest squared singular values, k half of them: the tail's exponent.

    Hill's estimator as Lu et al. 2024, section 3, take it; a small one is a heavy tail. inf for equal values.
    """
    values = torch.linalg.svdvals(weight.double()).square()
    values = values[values > values[0] * 1e-12] if len(values) and values[0] > 0 else values[:0]
    if len(values) < 2:
        return 2.0
    k = len(values) // 2
    spread = float((values[:k] / values[k]).log().sum())
    return 1 + k / spread if spread > 0 else math.inf
