"""Sequences of tokens as batches: the next token at every place, or the hidden ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topo.data.tokens import Tokens
from topo.errors import TrainingError
from topo.models.modules.calling import Batch
from topo.train.feed import mixed
from topo.train.ranks import Ranks
from topo.train.recipe import Recipe

TEST_BATCH = 4  # times the training batch: no gradients are kept
_LENGTH = 128
_IGNORED = -100  # torch's label for what is not judged
_MASKED, _RANDOM = 0.8, 0.1  # of the places that are judged (Devlin et al. 2019, section 3.1); the rest stays
_LOOK = 1 << 20  # stands for an epoch where the same places are hidden each time


class Sequences:
    """Windows of `length` tokens that do not overlap, in another order every epoch.

    next: inputs are tokens 0 .. length - 1 of a window, targets tokens 1 .. length. masked: places are drawn by the
    seed and the epoch, in parts that are tested on the same ones each time; targets are -100 elsewhere.
    """

    noun = "sequences"

    def __init__(self, data: Tokens, recipe: Recipe, ranks: Ranks) -> None:
        self.data, self.recipe, self.ranks = data, recipe, ranks
        self.name, self.notes = data.name, data.notes
        self.parts = ("train", *(part for part in ("val", "test") if part in data.parts))
        self.task = "masked" if recipe.task == "masked" else "next"
        self.vocabulary = data.largest + 1
        self.rows: dict[str, Tensor] = {}
        if recipe.padding or recipe.flip:
            self.notes += ("the recipe's padding and flip are for images: tokens are taken as they are",)
        self._cut(recipe.length or _LENGTH)

    def _cut(self, length: int) -> None:
        """Windows of so many tokens, or of as many as the shortest part has."""
        data, more = self.data, self.task == "next"
        shortest = min(len(getattr(data, part)) for part in self.parts) - more
        if self.recipe.length and shortest < length:
            raise TrainingError(
                f"'{self.name}' has a part of {shortest + more:,} tokens, too few for one sequence of length = {length}"
            )
        self.length = max(1, min(length, shortest))
        for part in self.parts:
            row = torch.from_numpy(getattr(data, part))
            self.rows[part] = row.unfold(0, self.length + more, self.length)
        count, batch = len(self.rows["train"]), self.recipe.batch
        if batch < self.ranks.world or count < self.ranks.world:
            raise TrainingError(
                f"batches of {min(batch, count)} sequences are too small for {self.ranks.world} processes"
            )
        self.batches = [(start, min(start + batch, count)) for start in range(0, count, batch)]
        if len(self.batches) > 1 and self.batches[-1][1] - self.batches[-1][0] < self.ranks.world:
            self.batches.pop()
        self.count, self.steps = count, len(self.batches)
        self.sizes: list[int] | None = [stop - start for start, stop in self.batches]
        self.identity: dict[str, Any] = {f"{part}_tokens": len(getattr(data, part)) for part in self.parts}
        self.identity |= {"content": data.digest, "task": self.task, "length": self.length}

    def suit(self, model: nn.Module) -> None:
        """The task that the model's name tells, and sequences of no more tokens than it has places for.

        TrainingError for tokens that it does not know.
        """
        if self.recipe.task == "auto":
            self.task = "masked" if "MaskedLM" in type(model).__name__ else "next"
        if self.task == "masked" and self.data.mask is None:
            raise TrainingError(
                f"task = 'masked' hides tokens, and '{self.name}' names none that stands for hidden ones"
            )
        known, most = _vocabulary(model), _places(model)
        if known is not None and self.data.largest >= known:
            raise TrainingError(
                f"'{self.name}' holds token {self.data.largest}; the model knows 0 to {known - 1}: they are another "
                "tokenizer's, or the model needs a larger vocabulary"
            )
        self.vocabulary = known or self.data.largest + 1
        length = self.recipe.length or min(_LENGTH, most or _LENGTH)
        if most is not None and length > most:
            raise TrainingError(f"the recipe has length = {length}; the model has places for {most} tokens")
        self._cut(length)

    def first(self) -> Batch:
        """The first two sequences."""
        return self._batch("train", torch.arange(min(2, self.count)), 0, 0)

    def lay(self, channels_last: bool, resident: bool | None) -> None:
        """The tokens go to the device."""
        self.rows = {part: rows.to(self.ranks.device) for part, rows in self.rows.items()}

    def epoch(self, seed: int, epoch: int) -> Iterator[Batch]:
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(mixed(seed, epoch)))
        for number, (start, stop) in enumerate(self.batches):
            yield self._batch("train", order[start:stop], mixed(seed, epoch, number), start, self.ranks.share)

    def look(self, part: str) -> Iterator[Batch]:
        step, count = self.recipe.batch * TEST_BATCH, len(self.rows[part])
        for start in range(0, count, step):
            stop = min(start + step, count)
            share = self.ranks.share(0, stop - start)
            if share.stop > share.start:
                yield self._batch(part, torch.arange(start, stop), mixed(_LOOK, start), start, self.ranks.share)

    def _batch(self, part: str, places: Tensor, seed: int, start: int, share: Any = None) -> Batch:
        """The sequences at these places, or this process's share of them; what is hidden is drawn for all together."""
        device = self.ranks.device
        mine = slice(None) if share is None else share(0, len(places))
        rows = self.rows[part]
        if self.task == "next":
            held = rows[places[mine].to(rows.device)].to(device)
            return Batch(held[:, :-1], held[:, 1:], len(held))
        whole = rows[places.to(rows.device)].cpu()
        shown, wanted = hidden(whole, self.recipe.mask_share, self.data.mask or 0, self.vocabulary, seed)
        shown, wanted = shown[mine].to(device), wanted[mine].to(device)
        return Batch(shown, wanted, len(shown))


def hidden(rows: Tensor, share: float, mask: int, vocabulary: int, seed: int) -> tuple[Tensor, Tensor]:
    """(what is shown, what is to be told) of sequences (n, length) with some places hidden; targets -100 elsewhere.

    max(1, round(share * length)) places of each sequence are drawn without repetition; of these 80 % are shown as the
    mask, 10 % as any token of the vocabulary, the rest as they are. Source: Devlin et al. 2019 (BERT), section 3.1.
    """
    draw = torch.Generator().manual_seed(seed)
    count = max(1, round(share * rows.shape[1]))
    chosen = torch.rand(rows.shape, generator=draw).argsort(1)[:, :count]
    told = rows.gather(1, chosen)
    lot = torch.rand(chosen.shape, generator=draw)
    other = torch.randint(vocabulary, chosen.shape, generator=draw)
    seen = torch.where(lot < _MASKED, torch.full_like(told, mask), torch.where(lot < _MASKED + _RANDOM, other, told))
    return rows.scatter(1, chosen, seen), torch.full_like(rows, _IGNORED).scatter(1, chosen, told)


def _vocabulary(model: nn.Module) -> int | None:
    """How many tokens the model knows: the entries of its input embedding, or the most of any; None without one."""
    given = getattr(model, "get_input_embeddings", None)
    try:
        found = given() if callable(given) else None
    except Exception:  # some models of transformers have none
        found = None
    if isinstance(found, nn.Embedding):
        return found.num_embeddings
    return max((part.num_embeddings for part in model.modules() if isinstance(part, nn.Embedding)), default=None)


def _places(model: nn.Module) -> int | None:
    """The longest sequence that a model of transformers says it takes."""
    config = getattr(model, "config", None)
    for name in ("max_position_embeddings", "n_positions"):
        most = getattr(config, name, None)
        if isinstance(most, int | np.integer) and most > 0:
            return int(most)
    return None
