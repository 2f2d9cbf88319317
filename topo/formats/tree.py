"""The tree of a file walked once: every place that could hold a network, its masks, or a list of them.

A checkpoint holds dicts within dicts: weights, masks, averages of weights, optimizers. Each dict or list with tensors
in it is a `Branch`; which of them is read, `choosing` decides by what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from topo.containers.tensors import Tensor
from topo.errors import FormatError
from topo.formats.names import copies, parameters
from topo.formats.packed import packed
from topo.formats.partners import partners

_DEEPEST = 64
_MOST_MODULES = 100_000

# What holds no network: an optimizer's moments have the shapes of weights, and zeros.
_NO_NETWORK = re.compile(r"optim|scheduler|scaler|grad|exp_avg|momentum(_buffers?)?$|velocit(y|ies)$|(^|_)rng")
# The last part of a parameter's name, where dicts within dicts stand for modules within modules.
_LEAF = re.compile(
    r"weight|bias|_input_|_output_|kernel|mask|scale|embedding|gamma|beta|original|running_mean|running_var|num_batches"
)
# Keys of checkpoints, which are not modules, and of one network at several times.
_CONTAINER = re.compile(
    r"state_?dict|model|net|network|module|params|weights|masks?|mask_?dict|.*_masks?(_dict)?|.*ema.*|generator|"
    r"discriminator|(level|round|epoch|iter|iteration|step|task|fold|seed|run)s?[_-]?\d*"
)
_NO_MODULE = re.compile(r"masks?|.*_masks?(_dict)?|mask_?dict|state_?dict|params(_ema)?|(.*_)?ema")
_PACKED = "._packed_params._packed_params"


@dataclass(frozen=True, eq=False)
class Branch:
    """One place in a file's tree.

    path: the keys that lead to it. content: the dict or list there, dicts that stand for modules laid flat
    (`{"fc": {"weight": w}}` is "fc.weight"). state: its tensors by name; empty for a list. known: names of the layers
    of the network that the user named.
    """

    path: tuple[str, ...]
    content: Any
    state: dict[str, Tensor]
    known: Collection[str] = ()

    @cached_property
    def parameters(self) -> dict[str, tuple[str, Tensor]]:
        """Parameter -> (its name in the file, its tensor), see `topo.formats.names.parameters`."""
        return parameters(self.state, {*self.partners, *self.copies})

    @cached_property
    def partners(self) -> dict[str, str]:
        """Masks among its tensors -> the weights beside them whose masks they are, see `topo.formats.partners`."""
        return partners(self.state)

    @cached_property
    def copies(self) -> list[str]:
        """Its tensors that are averages, gradients or former values of weights beside them: no layers of their own."""
        return copies(self.state, self.known, averages=self.mentions("ema", "swa", "averag", "shadow"))

    @cached_property
    def packed(self) -> dict[str, int]:
        """Its tensors of packed integers -> the parameters that they stand for, see `topo.formats.packed`."""
        return packed(self.state)

    @property
    def key(self) -> str:
        """The path as `--key` takes it."""
        return "/".join(self.path)

    @property
    def is_list(self) -> bool:
        return isinstance(self.content, list)

    @cached_property
    def _text(self) -> str:
        return "\n".join(self.state) + "\n"

    def mentions(self, *parts: str) -> bool:
        """Whether a name of a tensor holds one of these texts; "\\n" stands for its end. One look at all of them."""
        return any(part in self._text for part in parts)

    @cached_property
    def tensors(self) -> list[Tensor]:
        """Its tensors of one or more dimensions."""
        held = self.content if self.is_list else self.state.values()
        return [tensor for tensor in held if isinstance(tensor, Tensor) and tensor.ndim >= 1]

    @cached_property
    def wide(self) -> list[Tensor]:
        """Its tensors of two or more dimensions."""
        return [tensor for tensor in self.tensors if tensor.ndim >= 2]

    def named(self, pattern: str) -> bool:
        """Whether a key that leads here says what it is, as "mask" and "ema" do."""
        return any(re.search(pattern, key.lower()) for key in self.path)

    def under(self, prefix: str) -> Branch:
        """The tensors whose names begin with `prefix.`, under the rest of their names."""
        start = prefix.rstrip(".") + "."
        state = {name.removeprefix(start): t for name, t in self.state.items() if name.startswith(start)}
        return Branch((*self.path, prefix), state, state, self.known)


def branches(content: Any) -> list[Branch]:
    """Every dict and list of the tree that holds tensors of itself, outermost first, in the file's order.

    Raises FormatError for a tree that is deeper than 64 levels.
    """
    return list(_walk(content, (), 0, set()))


def _walk(node: Any, path: tuple[str, ...], depth: int, seen: set[int]) -> Iterator[Branch]:
    """seen: the dicts and lists that were walked; what stands in several places is looked at once."""
    if depth > _DEEPEST:
        raise FormatError(f"it is nested more than {_DEEPEST} levels deep")
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, Tensor) and not path and node.ndim >= 2:
        yield Branch(path, [node], {})
    elif isinstance(node, Mapping):
        yield from _walk_dict(node, path, depth, seen)
    elif isinstance(node, (list, tuple)):
        yield from _walk_list(node, path, depth, seen)


def _walk_dict(node: Mapping[Any, Any], path: tuple[str, ...], depth: int, seen: set[int]) -> Iterator[Branch]:
    if "param_groups" in node or (path and _NO_NETWORK.search(path[-1].lower())):
        return
    tensors = {str(name): value for name, value in node.items() if isinstance(value, Tensor)}
    if len(tensors) == len(node) and all(isinstance(name, str) for name in node):  # a state dict: nothing below it
        if tensors and not all(map(_NO_NETWORK.search, tensors)):
            yield Branch(path, node, tensors)
        return
    if (flat := _modules(node, depth)) is not None:
        yield Branch(path, flat, flat)
        return
    if tensors and all(isinstance(name, int) for name, value in node.items() if isinstance(value, Tensor)):
        numbers = {name: value for name, value in node.items() if isinstance(value, Tensor)}
        yield Branch(path, [numbers[number] for number in sorted(numbers)], {})
    else:
        packed = {name: value for name, value in node.items() if isinstance(name, str) and name.endswith(_PACKED)}
        for name, value in packed.items():  # torch's quantised linear layers: (weight, bias)
            if isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor):
                tensors[name.removesuffix(_PACKED) + ".weight"] = value[0]
        if tensors and not all(map(_NO_NETWORK.search, tensors)):  # not an optimizer's moments of one parameter
            yield Branch(path, node, tensors)
        node = {name: value for name, value in node.items() if name not in packed}
    for name, value in node.items():
        if isinstance(value, (Mapping, list, tuple)):
            yield from _walk(value, (*path, str(name)), depth + 1, seen)


def _walk_list(
    node: list[Any] | tuple[Any, ...], path: tuple[str, ...], depth: int, seen: set[int]
) -> Iterator[Branch]:
    if path and _NO_NETWORK.search(path[-1].lower()):
        return
    pairs = [entry for entry in node if isinstance(entry, (list, tuple)) and len(entry) == 2]
    if pairs and len(pairs) == len(node) and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in pairs):
        if len({name for name, _ in pairs}) < len(pairs):
            raise FormatError("its list of names and tensors has a name twice")
        state = {name: tensor for name, tensor in pairs}
        yield Branch(path, state, state)
        return
    if any(isinstance(entry, Tensor) and entry.ndim >= 2 for entry in node):
        yield Branch(path, list(node), {})
    for place, entry in enumerate(node):
        if isinstance(entry, (Mapping, list, tuple)):
            yield from _walk(entry, (*path, str(place)), depth + 1, seen)


def _modules(node: Mapping[Any, Any], depth: int) -> dict[str, Tensor] | None:
    """Dicts within dicts that stand for modules within modules, as one state dict; None for anything else."""
    if not any(isinstance(value, Mapping) for value in node.values()):
        return None
    flat: dict[str, Tensor] = {}
    dicts = 0
    stack: list[tuple[str, Any, int]] = [("", node, depth)]
    while stack:
        prefix, inner, level = stack.pop()
        dicts += 1
        if dicts > _MOST_MODULES:  # a few dicts that stand in each other many times
            return None
        if level > _DEEPEST:
            raise FormatError(f"it is nested more than {_DEEPEST} levels deep")
        for key, value in reversed(list(inner.items())):
            if isinstance(value, Mapping):
                if not value or not _is_module(key, value, top=inner is node):
                    return None
                stack.append((f"{prefix}{key}.", value, level + 1))
            elif isinstance(value, Tensor):
                if not isinstance(key, str) or "." in key or not _LEAF.search(key) or inner is node:
                    return None
            elif isinstance(value, (list, tuple)):
                return None
        for key, value in inner.items():
            if isinstance(value, Tensor):  # of {"fc.weight": {"weight": w, "mask": m}} the weight has its name already
                own = key == "weight" and prefix.endswith("weight.")
                flat[prefix[:-1] if own else f"{prefix}{key}"] = value
    return flat or None


def _is_module(key: Any, value: Mapping[Any, Any], top: bool) -> bool:
    """Whether a dict under this key may stand for a module; "0" may, unless it holds a whole network (a level)."""
    if not isinstance(key, str) or "param_groups" in value:
        return False
    if key.isdecimal() and top:
        return not any(isinstance(inner, Mapping) for inner in value.values())
    return not (_CONTAINER if top else _NO_MODULE).fullmatch(key.lower())


def at_key(found: list[Branch], key: str) -> list[Branch]:
    """The branches at or under a key (`masks`, `pruner/masks`), or whose names begin with it.

    Raises FormatError, naming the keys that there are, if there is none.
    """
    parts = tuple(part for part in key.split("/") if part)
    inside = [branch for branch in found if branch.path[: len(parts)] == parts]
    if not inside:  # the last keys alone, if they say it
        ends = {branch.path for branch in found if branch.path[-len(parts) :] == parts} if parts else set()
        inside = [branch for branch in found if any(branch.path[: len(path)] == path for path in ends)]
    if not inside:
        prefix = ".".join(parts)
        inside = [b.under(prefix) for b in found if any(name.startswith(f"{prefix}.") for name in b.state)]
    if not inside:
        keys = ", ".join(f"'{branch.key}'" for branch in found if branch.path) or "none"
        raise FormatError(f"it has no key '{key}'; tensors are under: {keys}")
    return inside
