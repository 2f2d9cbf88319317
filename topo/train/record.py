"""What is known of a training run once it is over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from topo.masks import MaskSet
from topo.train.folder import SCHEMA, environment
from topo.train.recipe import Recipe

_LEAKS = "the epoch of the largest test accuracy: chosen on the test set, so it is not a fair estimate"
_FAIR = "the test accuracy of the epoch of the largest validation accuracy; best.safetensors holds its weights"

History = Sequence[Mapping[str, Any]]


def best_row(history: History, recipe: Recipe) -> Mapping[str, Any]:
    """The first row of the largest accuracy on the recipe's `best_on`; of the smallest loss where there is none."""
    part = "val" if _validates(history, recipe) else "test"

    def worth(row: Mapping[str, Any]) -> tuple[float, float]:
        accuracy, loss = row[f"{part}_accuracy"], row[f"{part}_loss"]
        return -1.0 if accuracy is None else accuracy, 0.0 if accuracy is not None or loss is None else -loss

    return max(history, key=worth)


def is_best(history: History, recipe: Recipe) -> bool:
    """Whether the last epoch is the best so far by the validation part; never without one."""
    return _validates(history, recipe) and best_row(history, recipe) is history[-1]


def _validates(history: History, recipe: Recipe) -> bool:
    return recipe.best_on != "test" and "val_loss" in history[-1]


@dataclass(frozen=True, eq=False, repr=False)
class Record:
    """The numbers of a run.

    masks: None for a dense run. history: a row per epoch, as in metrics.jsonl. notes: on the data. The accuracy to
    report is `final_accuracy`; `best_accuracy` is that of an epoch that was chosen on the test set, or on the
    validation part where there is one. Both are NaN where answers are not right or wrong, or nothing is tested.
    """

    masks: MaskSet | None
    recipe: Recipe
    history: tuple[Mapping[str, Any], ...]
    seed: int
    device: str
    notes: tuple[str, ...]
    folder: Path | None

    def __repr__(self) -> str:
        kept = "dense" if self.masks is None else f"{self.masks.kept:,} of {self.masks.size:,} parameters kept"
        accuracy = "" if math.isnan(self.final_accuracy) else f", final accuracy {self.final_accuracy:.4f}"
        where = "" if self.folder is None else f", in '{self.folder}'"
        epochs = f"{len(self.history)} epochs of '{self.recipe.name}'"
        return f"{type(self).__name__}({kept}, {epochs}, seed {self.seed}{accuracy}{where})"

    @property
    def final_accuracy(self) -> float:
        """Test accuracy after the last epoch, as a fraction."""
        return _number(self.history[-1]["test_accuracy"])

    @property
    def final_loss(self) -> float:
        """Test loss after the last epoch."""
        return _number(self.history[-1]["test_loss"])

    @property
    def best_accuracy(self) -> float:
        """The test accuracy of `best_epoch`; chosen on the test set it is a maximum over many looks, which flatters."""
        return _number(best_row(self.history, self.recipe)["test_accuracy"])

    @property
    def best_epoch(self) -> int:
        """The first of the best epochs, by the recipe's `best_on`."""
        return int(best_row(self.history, self.recipe)["epoch"])

    @property
    def chosen_on(self) -> str:
        """What the best epoch was chosen on."""
        return "the validation part" if _validates(self.history, self.recipe) else "the test set"

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        return {
            "schema": SCHEMA,
            "final_test_accuracy": self.history[-1]["test_accuracy"],
            "final_test_loss": self.history[-1]["test_loss"],
            "final_epoch": self.history[-1]["epoch"],
            "best_test_accuracy": best_row(self.history, self.recipe)["test_accuracy"],
            "best_epoch": self.best_epoch,
            "best_is": _FAIR if _validates(self.history, self.recipe) else _LEAKS,
            "density": None if self.masks is None else self.masks.density,
            "kept": None if self.masks is None else self.masks.kept,
            "masks": None if self.masks is None else self.masks.content_hash,
            "recipe": self.recipe.name,
            "seed": self.seed,
            "seconds": sum(row["seconds"] for row in self.history),
            "notes": list(self.notes),
            "environment": environment(torch.device(self.device)),
        }


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
