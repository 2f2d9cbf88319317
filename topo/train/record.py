"""What is known of a training run once it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from topo.masks import MaskSet
from topo.train.folder import SCHEMA, environment
from topo.train.recipe import Recipe

_LEAKS = "the epoch of the largest test accuracy: chosen on the test set, so it is no fair estimate"


@dataclass(frozen=True, eq=False)
class Record:
    """The numbers of a run.

    masks: None for a dense run. history: a row per epoch, as in metrics.jsonl. The accuracy to report is
    `final_accuracy`; `best_accuracy` was chosen on the test set.
    """

    masks: MaskSet | None
    recipe: Recipe
    history: tuple[Mapping[str, Any], ...]
    seed: int
    device: str
    folder: Path | None

    @property
    def final_accuracy(self) -> float:
        """Test accuracy after the last epoch, as a fraction."""
        return float(self.history[-1]["test_accuracy"])

    @property
    def best_accuracy(self) -> float:
        """The largest test accuracy of any epoch: a maximum over looks at the test set, which flatters."""
        return max(float(row["test_accuracy"]) for row in self.history)

    @property
    def best_epoch(self) -> int:
        """The first epoch of that accuracy."""
        return int(next(row["epoch"] for row in self.history if row["test_accuracy"] == self.best_accuracy))

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        return {
            "schema": SCHEMA,
            "final_test_accuracy": self.final_accuracy,
            "final_epoch": self.history[-1]["epoch"],
            "best_test_accuracy": self.best_accuracy,
            "best_epoch": self.best_epoch,
            "best_is": _LEAKS,
            "density": None if self.masks is None else self.masks.density,
            "kept": None if self.masks is None else self.masks.kept,
            "masks": None if self.masks is None else self.masks.content_hash,
            "recipe": self.recipe.name,
            "seed": self.seed,
            "seconds": sum(row["seconds"] for row in self.history),
            "environment": environment(torch.device(self.device)),
        }
