"""MNIST-1D: ten short curves, shifted, scaled, sheared and in noise; made here, number for number as published.

S. Greydanus, D. Kobak (2024), Scaling Down Deep Learning with MNIST-1D, ICML, https://arxiv.org/abs/2011.14439. The
draws, in their order, are those of the package `mnist1d` (Apache-2.0) from its seed 42; the test suite compares them
where that package is installed.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from topo.data import Dataset, layout

# The paper's figure 2: a curve of twelve points for each digit.
_TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
_POINTS, _PADDING, _LENGTH = 12, (36, 60), 40
_WIDE = _POINTS + _PADDING[1]
_SHIFTS, _SCALE, _CORRELATED, _INDEPENDENT, _SHEAR = 48, 0.4, 0.25, 0.02, 0.75
_REACH = 5.5  # standard deviations that the 256 levels of a byte span to either side


@layout("mnist1d", "MNIST-1D: 4,000 + 1,000 curves of 40 points in 10 classes, made from its published seed")
def read() -> Dataset:
    """Curves as images of 1 x 40 bytes: 256 levels from -5.5 to 5.5 standard deviations, beyond which no point lies."""
    curves, labels = signals()
    levels = np.round((curves + _REACH) * (255 / (2 * _REACH))).astype(np.uint8)[:, None, None]
    cut = 4 * len(levels) // 5
    parts = levels[:cut], labels[:cut], levels[cut:], labels[cut:]
    return Dataset("mnist1d", *parts, tuple("0123456789"), flips=False)


def signals(count: int = 5000, seed: int = 42) -> tuple[np.ndarray, np.ndarray]:
    """(curves float64 (count, 40) of mean 0 and standard deviation 1, labels int64), in the published order."""
    draws, classes = np.random.RandomState(seed), len(_TEMPLATES)
    templates = np.array(_TEMPLATES, float)
    templates -= templates.mean(axis=1, keepdims=True)
    templates /= templates.std(axis=1, keepdims=True)
    templates = (templates - templates[:, :1]) / 6
    labels = np.repeat(np.arange(classes), count // classes)
    clean, correlated, independent = np.empty((3, len(labels), _WIDE))
    shears = np.empty(len(labels))
    for row, label in enumerate(labels):
        low, high = _PADDING
        padded = np.zeros(_POINTS + low + int(draws.rand() * (high - low + 1)))
        padded[:_POINTS] = templates[label] + 1e-8  # so that 0 is where nothing is drawn
        curve = _stretched(padded, _WIDE) * (1 + _SCALE * (draws.rand() - 0.5))
        clean[row] = np.roll(curve, draws.choice(_SHIFTS))
        correlated[row] = _CORRELATED * draws.randn(_WIDE)
        independent[row] = _INDEPENDENT * draws.randn(_WIDE)
        shears[row] = _SHEAR * (draws.rand() - 0.5)
    noisy = np.where(clean != 0, clean, gaussian_filter1d(correlated, 2)) + independent
    sheared = noisy - shears[:, None] * np.linspace(-0.5, 0.5, _WIDE)
    order = draws.permutation(len(labels))
    curves = np.array([_stretched(curve, _LENGTH) for curve in sheared[order]])
    return (curves - curves.mean()) / curves.std(), labels[order]


def _stretched(curve: np.ndarray, length: int) -> np.ndarray:
    """The curve at `length` evenly spaced points, straight between its own."""
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(curve)), curve)
