"""The handwritten digits of UCI, shipped with the package.

E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
https://doi.org/10.24432/C50P49, licence CC BY 4.0; the 1797 images of its test part, in the order and form in which
scikit-learn distributes them (BSD-3). Each pixel is how many of a cell's 4 x 4 dots are inked, 0 .. 16.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from topo.data import Dataset, layout, split


@layout("digits", "1797 handwritten digits of 8x8 pixels, built in (UCI, as in scikit-learn)")
def read() -> Dataset:
    """1442 images to train on; every fifth of each class, 355, to test on."""
    with files("topo.data").joinpath("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays["images"][:, None], arrays["labels"]
    return split("digits", images, labels, tuple("0123456789"), flips=False)
