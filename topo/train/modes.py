"""Training and evaluation as the user set them: frozen batch norms stay frozen, and the model comes back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Every module in the mode that it had, afterwards."""
    before = [(part, part.training) for part in model.modules()]
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


class Modes:
    """How the modules of a model are set while it trains: as given if it was given in training mode, else all in it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.frozen = [part for part in model.modules() if not part.training] if model.training else []

    def train(self) -> None:
        """As they are while training."""
        self.model.train()
        for part in self.frozen:
            part.training = False

    def norms(self) -> list[_BatchNorm]:
        """The batch norms that follow the batches."""
        frozen = set(map(id, self.frozen))
        norms = [part for part in self.model.modules() if isinstance(part, _BatchNorm)]
        return [norm for norm in norms if norm.running_mean is not None and id(norm) not in frozen]

    @torch.no_grad()
    def renorm(self, show: Callable[[], Any]) -> None:
        """Set the running statistics to the averages over the batches that `show` sends through the model.

        Izmailov et al. 2018, section 3.2: those of other weights do not fit averaged ones.
        """
        norms = self.norms()
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # every batch counts the same
        self.train()
        try:
            show()
        finally:
            for norm, momentum in zip(norms, momenta):
                norm.momentum = momentum
