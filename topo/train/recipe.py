"""Recipes: how a network is trained, as TOML. Those of the papers are files of the folder `recipes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from topo._support.registry import Registry
from topo._support.text_files import read_text, tables_of
from topo.errors import TrainingError

SOFT = ("off", "swish", "sharp_swish", "mish")  # activations of ghosts
_CHOICES = {
    "optimizer": ("sgd", "adam", "adamw"),
    "schedule": ("multistep", "cosine", "linear", "one_cycle", "constant"),
    "init": (
        "as_built",
        "kaiming_normal",
        "open_lth",
        "sparse_he",
        "living",
        "orthogonal",
        "rescaled",
        "signed",
        "gradinit",
    ),
    "amp": ("auto", "bf16", "fp16", "off"),
    "channels_last": ("auto", "on", "off"),
    "compile": ("auto", "off", "default", "reduce-overhead"),
    "placement": ("auto", "device", "stream"),
    "best_on": ("auto", "test", "val"),
    "task": ("auto", "next", "masked"),
    "smoothing": ("all", "others"),
    "ghost_activation": SOFT,
}
# Key -> (smallest value, whether it is allowed itself, largest value, whether it is allowed itself).
_BOUNDS: dict[str, tuple[float, bool, float, bool]] = {
    "epochs": (1, True, 10**6, True),
    "batch": (1, True, 10**7, True),
    "accumulate": (1, True, 10**6, True),
    "lr": (0, False, 10**6, True),
    "momentum": (0, True, 1, False),  # at 1 a gradient is never forgotten
    "weight_decay": (0, True, 10**6, True),
    "factor": (0, False, 1, True),
    "warmup": (0, True, 10**6, True),
    "clip": (0, True, 10**9, True),
    "label_smoothing": (0, True, 1, False),  # at 1 every class is as right as any other
    "ema": (0, True, 1, False),  # at 1 the average never moves
    "val": (0, True, 1, False),
    "padding": (0, True, 1024, True),
    "length": (0, True, 10**6, True),
    "mask_share": (0, False, 1, False),
    "density": (0, True, 1, False),
    "alpha": (0, True, 1, True),
    "ghost_skip": (0, True, 100, True),
    "update_every": (1, True, 10**9, True),
    "update_until": (0, False, 1, True),
}
_STATIC = "static"
# Rules of growth that are always there; to look at the others takes torch, without which recipes are read.
_OWN = ("set", "rigl", "rigl_constant", "cht")
LISTS = ("milestones", "mask_epochs")  # keys whose value is a list


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    epochs, batch (images, over all processes). accumulate: batches whose mean gradient makes one step. optimizer: sgd,
    adam or adamw with lr, weight_decay and, for sgd, momentum and nesterov. schedule: multistep (times `factor` at
    each of `milestones`, in epochs), cosine and linear (to 0), one_cycle (up to lr over 30 % of the steps, then down
    to lr / 250,000), constant; after `warmup` epochs of a linear rise. clip: the norm that the gradient of all kept
    weights together is scaled down to, 0 for any. label_smoothing. ema: decay of a moving average of the weights,
    which is then what is tested and kept, under batch-norm statistics of its own; after step t it is min(ema, (1 + t)
    / (10 + t)), so that the first weights are soon forgotten; 0 is off. val: the share of the training images that is
    held out for validation, where the data have no such part. best_on: the part on which the best epoch is chosen;
    "auto" is val if there is one, else test, which flatters. padding: random crops out of images padded so; flip:
    random mirror images, where the data set says that they keep their class.
    task, length, mask_share: of tokens alone (`topo.data.tokens`). task: next, the next token at every place; masked,
    the hidden ones (Devlin et al. 2019: mask_share of all, 80 % of these replaced by the mask, 10 % by a random token);
    "auto" is masked for a model whose name says so (...ForMaskedLM), else next. length: tokens in a sequence; 0 is 128,
    or what the model or the text has.
    init: as_built, the weights that the model has; kaiming_normal, drawn anew (the `reinitialise` ablation of a mask:
    Frankle et al. 2021); open_lth (Kaiming normal, batch-norm scales from U[0, 1]); sparse_he, living and orthogonal
    (see topo.train.initial); rescaled, as built but each masked layer back at the edge of chaos (topo.pruners.rescale);
    signed, sign(w) sqrt(2 / fan_in), Gem-Miner's; gradinit, as built times a learned factor a tensor
    (topo.train.gradinit). ghost_activation, ghost_skip: soft activations in relu's place and the strength of skips
    beside convolutions, both gone after the first half of training (topo.train.ghosts). smoothing: label_smoothing
    among all classes, or others.
    sparse: static, or the dynamic method by which masks move (topo.train.dynamic: set, rigl, rigl_constant, cht): at
    every `update_every`-th step below the share `update_until` of all, alpha / 2 (1 + cos) of each layer's weights, the
    smallest, go, and as many grow. density: where no masks are given, of the ERK masks to start from. mask_epochs: the
    epochs after which the run folder keeps the masks (0 is the start).
    amp: autocast to bf16 or fp16 (then with a GradScaler); channels_last: memory layout; compile: torch.compile and its
    mode; "auto" uses them on a GPU that gains from it (bf16). deterministic: the same bits on every run on the same
    device; torch warns where it cannot promise that. placement: the images on the device, or streamed to it; "auto"
    streams what is a memory map or larger than half of the device's free memory.

    TrainingError that names the key, what it holds and what it may hold.
    """

    name: str = "own"
    source: str = ""
    epochs: int = 160
    batch: int = 128
    accumulate: int = 1
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: str = "multistep"
    milestones: tuple[float, ...] = field(default=())
    factor: float = 0.1
    warmup: float = 0.0
    clip: float = 0.0
    label_smoothing: float = 0.0
    smoothing: str = "all"
    ema: float = 0.0
    val: float = 0.0
    best_on: str = "auto"
    padding: int = 4
    flip: bool = True
    task: str = "auto"
    length: int = 0
    mask_share: float = 0.15
    init: str = "as_built"
    ghost_activation: str = "off"
    ghost_skip: float = 0.0
    sparse: str = _STATIC
    density: float = 0.0
    alpha: float = 0.3
    update_every: int = 100
    update_until: float = 0.75
    mask_epochs: tuple[int, ...] = field(default=())
    amp: str = "auto"
    channels_last: str = "auto"
    compile: str = "auto"
    deterministic: bool = True
    placement: str = "auto"

    def __post_init__(self) -> None:
        for spec in fields(self):
            object.__setattr__(self, spec.name, self._checked(spec.name, spec.type, getattr(self, spec.name)))
        if self.schedule == "one_cycle" and self.warmup:
            raise self._wrong("warmup", self.warmup, "0 with one_cycle, which rises by itself")
        if self.warmup >= self.epochs:
            raise self._wrong("warmup", self.warmup, f"below epochs, {self.epochs}, or lr is never reached")
        if self.nesterov and not (self.optimizer == "sgd" and self.momentum):
            raise self._wrong("nesterov", True, "false unless the optimizer is sgd with momentum")
        if self.haunted and self.compile not in ("auto", "off"):
            raise self._wrong("compile", self.compile, "off with ghosts, which change from step to step")
        for key in ("density", "mask_epochs"):
            if self.sparse == _STATIC and getattr(self, key):
                raise self._wrong(key, getattr(self, key), "left out unless sparse names a method that moves masks")
        if any(epoch > self.epochs for epoch in self.mask_epochs):
            raise self._wrong("mask_epochs", list(self.mask_epochs), f"epochs from 0 to {self.epochs}")

    def _checked(self, key: str, kind: Any, value: Any) -> Any:
        if key in _CHOICES and value not in _CHOICES[key]:
            raise self._wrong(key, value, f"one of {', '.join(_CHOICES[key])}")
        if kind == "bool" and not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        if kind == "str" and not isinstance(value, str):
            raise self._wrong(key, value, "text")
        if key == "milestones":
            right = isinstance(value, list | tuple) and all(_number(epoch) and epoch >= 0 for epoch in value)
            if not right or sorted(value) != list(value):
                raise self._wrong(key, value, "a list of epochs in rising order")
            return tuple(value)
        if key == "sparse" and value not in (_STATIC, *_OWN):
            from topo.train.dynamic import dynamics

            if value not in dynamics:
                raise self._wrong(key, value, f"one of {', '.join((_STATIC, *dynamics))}")
        if key == "mask_epochs":
            right = isinstance(value, list | tuple) and all(
                isinstance(epoch, int) and not isinstance(epoch, bool) and epoch >= 0 for epoch in value
            )
            if not right:
                raise self._wrong(key, value, "a list of epochs, whole numbers")
            return tuple(value)
        if key in _BOUNDS:
            least, from_least, most, to_most = _BOUNDS[key]
            whole = kind == "int"
            right = isinstance(value, int) and not isinstance(value, bool) if whole else _number(value)
            edge = (value == least and not from_least) or (value == most and not to_most)
            if not right or not (least <= value <= most) or edge:
                what = "a whole number" if whole else "a number"
                low, high = "from" if from_least else "above", "at most" if to_most else "below"
                raise self._wrong(key, value, f"{what} {low} {least:g}, {high} {most:g}")
            return value if whole else float(value)
        return value

    def _wrong(self, key: str, value: Any, should: str) -> TrainingError:
        return TrainingError(f"the recipe {self.name!r} has {key} = {value!r}; it should be {should}")

    @property
    def haunted(self) -> bool:
        """Whether ghosts help in the first half of training."""
        return self.ghost_activation != "off" or self.ghost_skip > 0

    @property
    def moves(self) -> bool:
        """Whether masks move while the network trains."""
        return self.sparse != _STATIC

    def changed(self, **changes: Any) -> Recipe:
        """The same recipe with other values; TrainingError for a key that no recipe has."""
        _known(changes, self.name)
        return replace(self, **changes)

    def for_epochs(self, epochs: int) -> Recipe:
        """The same recipe in so many epochs; milestones and warm-up shrink or grow with it."""
        scale = self._checked("epochs", "int", epochs) / self.epochs
        milestones = tuple(epoch * scale for epoch in self.milestones)
        return replace(self, epochs=epochs, milestones=milestones, warmup=self.warmup * scale)

    def table(self) -> dict[str, Any]:
        """Keys and values, as they stand in TOML."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _known(table: Mapping[str, Any], name: str) -> None:
    keys = [spec.name for spec in fields(Recipe)]
    if odd := [key for key in table if key not in keys]:
        raise TrainingError(
            f"the recipe {name!r} has the key '{odd[0]}', which no recipe has; keys are {', '.join(keys)}"
        )


def find_recipe(recipe: str | Path | Mapping[str, Any] | Recipe) -> Recipe:
    """A recipe by name, from a .toml file, from a mapping of its keys, or as it is.

    TrainingError if there is none of that name, or if a key or value is wrong.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        _known(recipe, str(recipe.get("name", "own")))
        return Recipe(**recipe)
    if not str(recipe).endswith(".toml"):
        return recipes[str(recipe)]
    path = Path(recipe).expanduser()
    return _parse(read_text(path, "recipe", TrainingError), path.stem)


def _parse(text: str, name: str) -> Recipe:
    table = tables_of(text, f"the recipe {name!r}", TrainingError)
    table = table.get("recipe", table) if isinstance(table.get("recipe", {}), dict) else table  # a run's config.toml
    return find_recipe({"name": name, **table})


recipes = Registry("recipe")
for _file in sorted(files("topo.train").joinpath("recipes").iterdir(), key=lambda file: file.name):
    if _file.name.endswith(".toml"):
        _name = _file.name.removesuffix(".toml")
        recipes.add(_name)(_parse(_file.read_text("utf-8"), _name))
