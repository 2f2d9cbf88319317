"""The plan of a sweep: its TOML, checked key by key, as a list of cells that are known by what they hold."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from topo._support.text_files import read_text, tables_of
from topo._version import __version__
from topo.data import data
from topo.errors import TopoError
from topo.generate import find_method, methods, without_torch
from topo.graph.views import VIEWS
from topo.metrics import chosen as chosen_metrics
from topo.models import input_shape, names
from topo.nulls import nulls
from topo.quotas import quotas

TABLES = {
    "sweep": ("model", "input", "seeds", "name"),
    "grid": ("method", "density", "sparsity", "density_effective", "quota"),
    "files": ("path", "format", "key"),
    "nulls": ("kinds",),
    "analyze": ("metrics", "view"),
    "train": ("data", "recipe", "epochs", "seeds", "device", "options", "at_once"),
    "exclude": ("where",),
    "method": (),
}
BUDGETS = ("density", "sparsity", "density_effective")
DENSE, FILE = "dense", "file"
# Kinds beside the null models of topo.nulls: the same mask trained from other initial weights; and the mask that the
# generator `invert` makes of it.
REINIT, INVERT = "reinit", "invert"
# A method that trains: iterative magnitude pruning. So do those by which masks move, topo.train.dynamic.
IMP = "imp"
_FIELD = re.compile(r"\{(\w*)(?::[a-z])?\}")
_DIGEST = 16
_RESERVED = ("network", "data", "method", "options", "density", "seed", "null", "train_seed")  # columns of every sweep
# Of the work, what does not change what comes of it: where files are, on which device, and beside how many others.
_ELSEWHERE = ("folder", "device", "at_once")

# A few numbers in a text could stand for more cells than a lifetime computes.
_MOST_CELLS = 100_000


@dataclass(frozen=True)
class Cell:
    """One combination. settings: what tells it from others, in the columns' order. work: what is done in every cell."""

    settings: Mapping[str, Any]
    work: Mapping[str, Any]
    digests: Mapping[str, str]

    @cached_property
    def id(self) -> str:
        """A hash of the settings, the work, the code's version and the content of files that they name."""
        work = {key: value for key, value in self.work.items() if key not in _ELSEWHERE}
        known = {"settings": self.settings, "work": work, "digests": self.digests, "code": __version__}
        text = json.dumps(known, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]

    @property
    def label(self) -> str:
        """The settings in a line."""
        return ", ".join(f"{key} {value}" for key, value in self.settings.items() if value not in ("", None))


@dataclass(frozen=True)
class Plan:
    """cells in order; document: the sweep as understood, every table there; lacks: what it misses, or ""."""

    cells: tuple[Cell, ...]
    document: Mapping[str, Any]
    lacks: str = ""

    @property
    def columns(self) -> list[str]:
        """The settings' names, in order."""
        return list(dict.fromkeys(key for cell in self.cells for key in cell.settings))

    def chosen(self, only: Sequence[str] = (), shard: str | None = None) -> list[Cell]:
        """The cells that all of `only` (k=v) hold for, of these every n-th from the i-th (shard i/n, from 1).

        TopoError for a key that no cell has, for a value that none holds, and for a shard that is none.
        """
        found = list(self.cells)
        for text in only:
            key, sign, value = text.partition("=")
            if not sign or key not in self.columns:
                raise TopoError(f"--only '{text}' is not COLUMN=VALUE{_nearest(key, self.columns)}")
            held = [cell for cell in found if _written(cell.settings.get(key)) == value.strip()]
            if not held:
                there = dict.fromkeys(_written(cell.settings.get(key)) for cell in found)
                raise TopoError(f"--only '{text}' leaves no cell; {key} is {', '.join(list(there)[:20])}")
            found = held
        if shard is not None:
            part = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard)
            if not part or not 1 <= int(part[1]) <= int(part[2]):
                raise TopoError(f"shard is '{shard}'; it is i/n, from 1/n to n/n")
            found = found[int(part[1]) - 1 :: int(part[2])]
        return found


def batches(cells: Sequence[Cell], workers: int) -> list[list[Cell]]:
    """Cells that are carried out together: of one network, trained side by side, no more than the sweep's `at_once`.

    Where there are fewer, each worker has its share. Every other cell is alone.
    """
    groups: dict[tuple[Any, bool, str], list[Cell]] = {}
    for cell in cells:
        key = (cell.settings["network"], cell.settings["null"] == REINIT, json.dumps(cell.work["recipe"]))
        groups.setdefault(key, []).append(cell)
    found = []
    for group in groups.values():
        most = max(1, min(group[0].work.get("at_once", 1), -(-len(group) // workers)))
        found += [group[start : start + most] for start in range(0, len(group), most)]
    return found


def read_plan(source: str | Path | Mapping[str, Any], *, shown: bool = False) -> Plan:
    """The plan of a sweep's TOML file, or of its tables.

    shown: to be shown alone, not carried out: data that are not there are named in `lacks`.

    Every combination of model, method with its options, density, seed, null and training seed is a cell; so is every
    file of masks with each null and training seed. Paths are looked for beside the TOML file first.

    TopoError that names the nearest key for an unknown one, and for values that are none, files that are missing and
    cells that come twice.
    """
    folder = Path()
    if isinstance(source, Mapping):
        document = dict(source)
    else:
        folder = Path(source).parent
        document = tables_of(read_text(source, "a sweep"), f"'{source}'")
    return _Reader(document, folder, shown).plan()


class _Reader:
    def __init__(self, document: Mapping[str, Any], folder: Path, shown: bool) -> None:
        self.document, self.folder, self.shown = document, folder, shown
        self.lacks = ""
        _known(document, TABLES, "the sweep")
        for name, keys in TABLES.items():
            for table in self._tables(name):
                if keys:
                    _known(table, keys, f"[{name}]")

    def _tables(self, name: str) -> list[Mapping[str, Any]]:
        held = self.document.get(name, [] if name == "files" else {})
        tables = held if name == "files" and isinstance(held, list) else [held]
        for table in tables:
            if not isinstance(table, Mapping):
                raise TopoError(f"{name} is {table!r}; in a sweep it is a table, [{name}]")
        return tables

    def _table(self, name: str) -> Mapping[str, Any]:
        return self._tables(name)[0]

    def plan(self) -> Plan:
        basic = self._table("sweep")
        if "model" not in basic:
            raise TopoError('the sweep names no network: model = "resnet20" in [sweep]')
        models = _listed("model", basic["model"], str)
        if not isinstance(basic.get("input", ""), str):
            raise TopoError(f'input is {basic["input"]!r} in [sweep]; it is a shape as text, as in input = "3x32x32"')
        seeds = _seeds("seeds", basic.get("seeds", "0"))
        works, train_seeds, kinds = self._works(), self._train_seeds(), self._kinds()
        shared = self._data(works[0][1]["data"])
        made = [*itertools.islice(itertools.chain(self._made(), self._files()), _MOST_CELLS + 1)]
        if not made:
            raise TopoError("the sweep holds no masks: name methods in [grid], or files in [[files]]")
        self._can_be_trained(made, works)
        at_each = len(models) * len(kinds) * len(train_seeds) * len(works)
        asked = at_each * sum(len(seeds) if own is None else 1 for _, own in made)
        if asked > _MOST_CELLS:
            raise TopoError(f"the sweep asks for {asked:,} cells or more; one holds up to {_MOST_CELLS:,}")
        cells: dict[str, Cell] = {}
        shown = list(dict.fromkeys(key for settings, _ in made for key in settings))
        if clash := [key for key in works[0][0] if key in shown]:
            raise TopoError(
                f"'{clash[0]}' is a field of [[files]] and has several values in [train.options], which one column "
                "cannot hold; call the field otherwise"
            )
        excluded = self._excluded([*shown, *works[0][0]])
        for model in models:
            digests = self._model(model) | shared
            for settings, own in made:
                for seed in seeds if own is None else [settings.get("seed", "")]:
                    for (axes, work), kind, train_seed in itertools.product(works, kinds, train_seeds):
                        whole = {"network": model, "data": work["data"]} | {key: settings.get(key, "") for key in shown}
                        whole |= axes
                        whole |= {"seed": seed, "null": kind}
                        whole["train_seed"] = (seed if seed != "" else 0) if train_seed is None else train_seed
                        if any(_matches(whole, rule) for rule in excluded):
                            continue
                        cell = Cell(whole, work, digests | (own or {}))
                        if cell.id in cells:
                            raise TopoError(f"the sweep holds a cell twice: {cell.label}")
                        cells[cell.id] = cell
        if not cells:
            raise TopoError("the sweep holds no cell: [exclude] leaves none")
        return Plan(tuple(cells.values()), {"code": __version__, **self.document}, self.lacks)

    def _model(self, model: str) -> dict[str, str]:
        """Digests of the network's file, where it is one; TopoError for a name that no network has."""
        head = model.partition(":")[0]
        if head in names():
            input_shape(model)
            return {}
        path = self._beside(head)
        if path.is_file():
            return {"model": _digest(path)}
        if head.endswith((".py", ".json")):
            raise TopoError(f"there is no file '{head}', which the sweep names as its network")
        if ":" not in model:
            raise TopoError(f"no model is called '{model}'{_nearest(model, names())}")
        return {}

    def _data(self, name: str) -> dict[str, str]:
        """Of data in files: a digest of their names and sizes; TopoError where there are none."""
        if not name or (name in data and data[name].recognise is None):
            return {}
        path = self._beside(name)
        if not path.exists():
            built_in = [entry.name for entry in data.values() if entry.recognise is None]
            self.lacks = f"there is no data set '{name}'{_nearest(name, built_in)}"
            if self.shown:
                return {}
            raise TopoError(self.lacks)
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        listed = "\n".join(f"{file.relative_to(path)} {file.stat().st_size}" for file in files)
        return {"data": hashlib.sha256(listed.encode()).hexdigest()}

    def _beside(self, name: str) -> Path:
        beside = self.folder / Path(name).expanduser()
        return beside if beside.exists() else Path(name).expanduser()

    def _works(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """What is done in every cell, once for each combination of the recipe's keys that have several values; and
        these values, which are columns."""
        from topo.train.recipe import LISTS, find_recipe

        basic, look, train = (self._table(name) for name in ("sweep", "analyze", "train"))
        metrics = look.get("metrics", "default")
        metrics = _listed("metrics", metrics.split(",") if isinstance(metrics, str) else metrics, str, empty=True)
        chosen_metrics(metrics)  # TopoError for a name that none has
        if (view := look.get("view")) not in (None, *VIEWS):
            raise TopoError(f"view is {view!r} in [analyze]; it is one of {', '.join(VIEWS)}")
        work: dict[str, Any] = {"folder": str(self.folder.resolve()), "input": basic.get("input"), "metrics": metrics,
                                "view": look.get("view"), "data": "", "recipe": None, "epochs": None,
                                "device": "auto"}  # fmt: skip
        if not train:
            return [({}, work)]
        if not isinstance(train.get("data"), str):
            raise TopoError(f'data is {train.get("data")!r} in [train]; it names a data set, as in data = "mnist1d"')
        recipe, changes = train.get("recipe", "quick"), train.get("options", {})
        if isinstance(recipe, str) and recipe.endswith(".toml"):
            recipe = str(self._beside(recipe))
        if not isinstance(changes, Mapping):
            raise TopoError(f"options is {changes!r} in [train]; it is a table of keys of the recipe")
        work |= {"data": train["data"], "device": train.get("device", "auto")}
        at_once = train.get("at_once", 1)
        if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
            raise TopoError(
                f"at_once is {at_once!r} in [train]; it is a whole number from 1, of nets trained side by side"
            )
        work |= {"at_once": at_once, "side_by_side": True} if at_once > 1 else {}
        if "epochs" in train and "epochs" in changes:
            raise TopoError("epochs stands in [train] and in [train.options]; it should stand in one of them")
        axes = {key: value for key, value in changes.items() if isinstance(value, list) and key not in LISTS}
        for key, values in axes.items():
            if not values or key in (*_RESERVED, "name"):
                why = "holds no value" if not values else "cannot have several values: its column is another's"
                raise TopoError(f"'{key}' in [train.options] {why}")
        found = []
        for combination in itertools.product(*axes.values()):
            columns = dict(zip(axes, combination))
            chosen = find_recipe(recipe).changed(**{**changes, **columns})
            if "epochs" in train:
                chosen = chosen.for_epochs(train["epochs"])
            if chosen.moves:
                raise TopoError(
                    f"sparse is '{chosen.sparse}' in [train.options], by which masks move: a row would measure another "
                    f'mask than it trains; name it in [grid], as in method = "{chosen.sparse}"'
                )
            found.append((columns, work | {"recipe": chosen.table()}))
        return found

    def _train_seeds(self) -> list[int | str | None]:
        """Seeds of training, [None] for that of each mask, [""] where nothing is trained."""
        train = self._table("train")
        if not train:
            return [""]
        return [*_seeds("seeds", train["seeds"])] if "seeds" in train else [None]

    def _kinds(self) -> list[str]:
        kinds = _listed("kinds", self._table("nulls").get("kinds", []), str, empty=True)
        for kind in kinds:
            if kind not in (*nulls, REINIT, INVERT):
                raise TopoError(f"no null is called '{kind}'{_nearest(kind, [*nulls, REINIT, INVERT])}")
            if kind == REINIT and not self._table("train"):
                raise TopoError(f"the null '{REINIT}' trains a mask from other weights: it needs [train]")
        return ["", *kinds]

    def _excluded(self, columns: Sequence[str]) -> list[Mapping[str, Any]]:
        rules = self._table("exclude").get("where", [])
        known = dict.fromkeys((*_RESERVED, "quota", *BUDGETS, *columns))
        for rule in rules if isinstance(rules, list) else [rules]:
            if not isinstance(rule, Mapping) or not rule:
                raise TopoError(f'where holds {rule!r} in [exclude]; it is a list of tables, [{{ method = "snip" }}]')
            _known(rule, known, "[exclude]")
        return rules if isinstance(rules, list) else [rules]

    def _made(self) -> Iterable[tuple[dict[str, Any], None]]:
        """Settings of masks that a method makes."""
        grid, options = self._table("grid"), self._table("method")
        wanted = _listed("method", grid["method"], str) if "method" in grid else []
        others = [name for name in (*wanted, *options) if name != DENSE and not without_torch(name)]
        every = [*methods(), DENSE] if others else []
        trained = _trained_methods() if any(name not in every for name in others) else {}
        every += trained
        for name in others:
            if name not in every:
                raise TopoError(f"no method is called '{name}'{_nearest(name, every)}")
        for name in options:
            if name not in wanted:
                raise TopoError(f"[method.{name}] has options of a method that [grid] does not name")
        rules = _listed("quota", grid.get("quota", [""]), str)
        for name in rules:
            if name and name not in quotas:
                raise TopoError(f"no quota is called '{name}'{_nearest(name, quotas)}")
        for name in wanted:
            if name == DENSE:
                yield {"method": DENSE, "options": "", "density": 1.0}, None
                continue
            self._can_be_made(name, trained)
            own = options.get(name, {})
            if not isinstance(own, Mapping):
                raise TopoError(f"method.{name} is {own!r}; it is a table of options, [method.{name}]")
            budgets = {key: own[key] for key in BUDGETS if key in own} or {
                key: grid[key] for key in BUDGETS if key in grid
            }
            if "density" in budgets and "sparsity" in budgets:
                raise TopoError(
                    f"'{name}' is given a density and a sparsity, which is 1 - density; one of them is enough"
                )
            if not budgets:
                raise TopoError(f"how much is '{name}' to keep? [grid] needs one of {', '.join(BUDGETS)}")
            if name in trained and "density_effective" in budgets:
                raise TopoError(f"'{name}' trains: no search of budgets meets its density_effective; name a density")
            if name == IMP and rules != [""]:
                raise TopoError(f"'{IMP}' ranks all layers together: it takes no quota")
            left = {key: value for key, value in own.items() if key not in BUDGETS}
            for start in _listed("start", left["start"], str) if name in trained and "start" in left else []:
                if start not in methods():
                    raise TopoError(f"no method is called '{start}', start of '{name}'{_nearest(start, methods())}")
                self._can_be_made(start, {})
            for chosen in self._options(name, left, trained.get(name)):
                for key, values in budgets.items():
                    for value in _fractions(key, values):
                        for quota in rules:
                            held: dict[str, Any] = {"method": name, "options": chosen}
                            held["density"] = round(1 - value, 12) if key == "sparsity" else value
                            held |= {"quota": quota} if quota else {}
                            yield held | ({key: value} if key == "density_effective" else {}), None

    def _can_be_made(self, name: str, trained: Mapping[str, Any]) -> None:
        """TopoError for a method that lacks what every cell of it would: masks to start from, data or training."""
        if name in trained:
            if not self._table("train"):
                raise TopoError(f"the method '{name}' trains: it needs [train]")
            return
        needs = getattr(find_method(name), "needs", "nothing")
        if needs == "masks":
            raise TopoError(f"the method '{name}' starts from masks, which a sweep has not: see the kinds of [nulls]")
        if needs == "data" and not self._table("train"):
            raise TopoError(f"the method '{name}' looks at data: name a data set in [train]")

    def _can_be_trained(self, made: Sequence[tuple[dict[str, Any], Any]], works: Sequence[tuple[Any, Any]]) -> None:
        """TopoError for options of a method that trains which it, or a recipe, does not take."""
        asked = {(settings["method"], settings["options"]) for settings, file in made if file is None}
        asked = {entry for entry in asked if entry[0] != DENSE and not without_torch(entry[0])}
        asked = {entry for entry in asked if entry[0] not in methods()}
        if not asked:
            return
        from topo.train.lottery import require_levels
        from topo.train.recipe import find_recipe

        for (name, options), (_, work) in itertools.product(sorted(asked), works):
            given = json.loads(options) if options else {}
            try:
                if name == IMP:
                    given.pop("layers", None)
                    require_levels(find_recipe(dict(work["recipe"])), **given)
                else:
                    given.pop("start", None)
                    find_recipe(dict(work["recipe"])).changed(sparse=name, **given)
            except TopoError as error:
                raise TopoError(f"[method.{name}] {error}") from None

    def _options(self, name: str, table: Mapping[str, Any], known: Any = None) -> Iterable[str]:
        """Every combination of a method's options, as JSON text; "" for none."""
        known = getattr(find_method(name), "options", None) if known is None else known
        if isinstance(known, Mapping):
            _known(table, known, f"[method.{name}]")
        axes = [value if isinstance(value, list) else [value] for value in table.values()]
        if [] in axes:
            raise TopoError(f"{[*table][axes.index([])]} holds no value in [method.{name}]")
        for values in itertools.product(*axes):
            yield json.dumps(dict(zip(table, values)), sort_keys=True) if table else ""

    def _files(self) -> Iterable[tuple[dict[str, Any], dict[str, str]]]:
        """Settings of masks that are there, with the digest of their file."""
        for table in self._tables("files"):
            if not table:
                continue
            text = table.get("path")
            if not isinstance(text, str) or not text:
                raise TopoError(f"path is {text!r} in [[files]]; it names files, as in masks/{{method}}_s{{seed}}.pt")
            fields = _FIELD.findall(text)
            if odd := [field for field in fields if not field or fields.count(field) > 1]:
                raise TopoError(f"the field '{odd[0]}' of '{text}' has no name, or comes twice")
            root = self.folder if not Path(text).is_absolute() else Path()
            glob = _FIELD.sub("*", text)
            pieces = _FIELD.split(text)
            regex = "".join(
                re.escape(piece).replace(r"\*", "[^/]*") if k % 2 == 0 else f"(?P<{piece}>[^/]+?)"
                for k, piece in enumerate(pieces)
            )
            whole = re.compile(regex)
            start = Path("/") if Path(text).is_absolute() else root
            found = sorted(start.glob(glob.lstrip("/"))) if "*" in glob else [root / text]
            named = {str(path if Path(text).is_absolute() else path.relative_to(root)): path for path in found}
            matches = {name: whole.fullmatch(name) for name, path in named.items() if path.exists()}
            if not any(matches.values()):
                raise TopoError(f"there is no file '{text}', which [[files]] names")
            for name, match in matches.items():
                if match is None:
                    continue
                held: dict[str, Any] = {"method": FILE, "options": "", "density": ""}
                held |= {key: _value(value) for key, value in match.groupdict().items()}
                held |= {"file": name} | {key: table[key] for key in ("format", "key") if key in table}
                yield held, {"file": _digest(named[name])}


def _trained_methods() -> dict[str, Mapping[str, Any]]:
    """Methods that train as they make masks, each with its options."""
    from topo.train.dynamic import dynamics
    from topo.train.lottery import OPTIONS

    moving = dict.fromkeys(("start", "alpha", "update_every", "update_until"))
    return {IMP: dict.fromkeys(OPTIONS), **dict.fromkeys(dynamics, moving)}


def _known(table: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    keys = list(keys)
    for key in table:
        if key not in keys:
            raise TopoError(f"{where} has the key '{key}', which it does not know{_nearest(key, keys)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(str(name), known, 1, 0.5)
    return f"; the nearest is '{near[0]}'" if near else f"; there are: {', '.join(known[:60])}"


def _listed(key: str, value: Any, kind: type, empty: bool = False) -> list[Any]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values and not empty:
        raise TopoError(f"{key} holds no value in the sweep; it should hold {kind.__name__} or a list of them")
    for item in values:
        if not isinstance(item, kind) or isinstance(item, bool):
            raise TopoError(f"{key} holds {item!r} in the sweep; it should hold {kind.__name__} or a list of them")
    return [item.strip() if isinstance(item, str) else item for item in values]


def _fractions(key: str, value: Any) -> list[float]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise TopoError(f"{key} holds no value in the sweep; it is a number from 0 to 1, or a list of them")
    for item in values:
        if isinstance(item, bool) or not isinstance(item, int | float) or not 0 <= item <= 1:
            raise TopoError(f"{key} holds {item!r} in the sweep; it is a number from 0 to 1, or a list of them")
    return [float(item) for item in values]


def _seeds(key: str, value: Any) -> list[int]:
    """Seeds of a number, a list, or text as in "0-4,7"."""
    if isinstance(value, str):
        found: list[int] = []
        for part in value.split(","):
            ends = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
            if not ends or (ends[2] and int(ends[2]) < int(ends[1])):
                raise TopoError(f'{key} is {value!r} in the sweep; it is a seed, a list, or text as in "0-4,7"')
            more = range(int(ends[1]), int(ends[2] or ends[1]) + 1)
            if len(found) + len(more) > _MOST_CELLS:
                raise TopoError(f"{key} is {value!r} in the sweep: more than the {_MOST_CELLS:,} cells that one holds")
            found += more
        return found
    found = value if isinstance(value, list) else [value]
    if not found or any(isinstance(item, bool) or not isinstance(item, int) or item < 0 for item in found):
        raise TopoError(f'{key} is {value!r} in the sweep; it is a seed, a list, or text as in "0-4,7"')
    return found


def _matches(settings: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    return all(settings.get(key, "") == value or _written(settings.get(key)) == value for key, value in rule.items())


def _written(value: Any) -> str:
    return "" if value is None else str(value)


def _value(text: str) -> Any:
    """A field of a file's name: a whole number, a number, or text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the files of a folder with their names."""
    found = hashlib.sha256()
    try:
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            found.update(b"" if path.is_file() else str(file.relative_to(path)).encode() + b"\0")
            with file.open("rb") as held:
                found.update(hashlib.file_digest(held, "sha256").digest())
    except OSError as error:
        raise TopoError(f"cannot read '{path}': {error.strerror}") from None
    return found.hexdigest()
