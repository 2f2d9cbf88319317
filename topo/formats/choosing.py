"""Which place of a file is read, and by which reader: by evidence, never by the first key that is known.

A mask that is written down beats zeros in weights. Of several places of one kind those that fit the model best are
left; of those that hold the same masks one is as good as another; an average of weights ("ema") stands behind the
weights themselves, and that is told. What is still undecided is refused, with the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import numpy as np

from topo.containers.tensors import Tensor
from topo.errors import FormatError, MaskError, TopoError
from topo.formats.experts import renamed
from topo.formats.fitting import aligned
from topo.formats.names import is_weight, unwrapped
from topo.formats.partners import NUMBERED, contradicted, holds_both, same_words, says_gone
from topo.formats.source import WAY_OUT, Reader, Source, plural, readers, some
from topo.formats.tree import Branch

GUESS = "zeros"
# Readers of trees that say by nothing but their values that they are masks.
_PLAIN = frozenset({"mask_dict", "npz", "openlth", "ordered_list", "channel_masks"})
_AVERAGE = r"(^|_)(ema|swa|averaged?|shadow)(_|$)|(^|_)ema"
_MASKS = r"mask"
# What masks that are added hold for a pruned weight is below this.
_ADDED = -99


@dataclass
class Choice:
    """A place and the reader that recognises it. found: what it gives, read once. error: why it gives nothing."""

    reader: Reader
    source: Source
    error: TopoError | None = None
    _found: dict[str, Tensor] | None = field(default=None, repr=False)

    @property
    def branch(self) -> Branch:
        return self.source.place

    def found(self) -> dict[str, Tensor]:
        """Parameter -> mask, as the reader has it; FormatError or MaskError if it refuses."""
        if self._found is None:
            try:
                self._found = self.reader.masks(self.source)
            except (FormatError, MaskError) as error:
                raise type(error)(f"read as {self.reader.name}: {error}") from None
        return self._found

    @cached_property
    def explicit(self) -> bool:
        """Whether masks are written down, not inferred from zeros."""
        if self.reader.name != "flax":  # which reads either
            return self.reader.name != GUESS
        try:
            return not all(tensor.inferred for tensor in self.found().values())
        except (FormatError, MaskError):
            return True

    def fit(self) -> int:
        """How many layers of the model it has masks for, by name and shape; -1 if it cannot be read."""
        wiring = self.source.wiring
        try:
            found, _ = renamed(self.found(), wiring.names if wiring is not None else None)
            names = aligned(found, wiring)
        except (FormatError, MaskError) as error:
            self.error = error
            return -1
        if wiring is None:
            return 0
        sizes = {name: layer for name, layer in wiring.shapes.items()}
        return sum(names[n] in sizes and tensor.size == _size(sizes[names[n]]) for n, tensor in found.items())


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def choose(source: Source, requested: Reader | None) -> Choice:
    """The place to read and its reader. asked: the only reader to try.

    Raises FormatError where nothing is recognised, or several places are and nothing tells which is meant.
    """
    tree = source.tree
    order = [requested] if requested else readers()
    found: list[Choice] = []
    lacks: list[tuple[Branch, Reader, str]] = []
    for branch in tree or [Branch((), {}, {})]:
        seen = source.at(branch)
        for entry in order:
            lack = entry.lacks(seen)
            if lack is None:
                found.append(Choice(entry, seen))
                break
            lacks.append((branch, entry, lack))
    guesses = [choice for choice in found if not choice.explicit]
    explicit = [choice for choice in found if choice.explicit and _belongs(choice, guesses)]
    if not found:
        raise FormatError(_nothing(source, lacks))
    chosen = _one(explicit or _with_zeros(guesses, requested), source)
    if requested is None and source.key is None:
        _refuse_what_is_pruned(chosen)
    if not chosen.explicit and requested is None:
        _refuse_unread_masks(chosen, tree)
    if chosen.explicit and requested is None and source.key is None:
        _refuse_strangers(chosen, guesses)
    chosen.source.notes += _passed_over(chosen, found)
    return chosen


def _refuse_strangers(chosen: Choice, guesses: Sequence[Choice]) -> None:
    """FormatError for a tree of 0 and 1 that no key calls masks, beside weights that are all sparse, and elsewhere."""
    if chosen.reader.name not in _PLAIN or chosen.branch.is_list or chosen.branch.named(_MASKS):
        return
    own = {unwrapped(name).removesuffix(".weight"): tensor for name, tensor in chosen.branch.state.items()}
    for guess in guesses:
        named = {unwrapped(name).removesuffix(".weight"): t for name, (_, t) in guess.branch.parameters.items()}
        both = [(mask, named[n]) for n, mask in own.items() if n in named and named[n].shape == mask.shape]
        both = [(mask, weight) for mask, weight in both if mask.ndim >= 2]
        if both and all(contradicted(mask, weight) for mask, weight in both):
            where = chosen.branch.key or "the top"
            raise FormatError(
                f"'{where}' holds 0 and 1 and is not called masks, and the zeros of the weights under "
                f"'{guess.branch.key or '(top)'}' are others; --key says which are meant"
            )


def _refuse_what_is_pruned(chosen: Choice) -> None:
    """FormatError for a tree of 0 and 1 whose key says that 1 is what was pruned: read as kept it would be the rest."""
    said = next((part for part in reversed(chosen.branch.path) if says_gone(part)), None)
    if chosen.reader.name in _PLAIN and said is not None:
        raise FormatError(
            f"under '{said}' 1 may stand for what was pruned; --key {chosen.branch.key} reads 1 as kept; otherwise "
            f"topo.MaskSet({{n: m == 0 for n, m in content['{said}'].items()}}), then topo.write_masks"
        )


def _belongs(choice: Choice, guesses: Sequence[Choice]) -> bool:
    """Whether a tree of 0 and 1 can be the masks of the weights beside it, by a key, or a name or a shape.

    Labels and adjacency matrices hold 0 and 1 too, and what was only just made (momenta) holds nothing but 0.
    """
    weights = [pair for guess in guesses for pair in guess.branch.parameters.items()]
    if choice.reader.name not in _PLAIN or not weights or choice.branch.named(_MASKS):
        return True
    names = {unwrapped(name).removesuffix(".weight") for name, _ in weights}
    shapes = {tensor.shape for _, (_, tensor) in weights if tensor.ndim >= 2}
    if not any(map(holds_both, choice.branch.tensors)):
        return False
    mine = {unwrapped(name).removesuffix(".weight") for name in choice.branch.state}
    if mine & names or not any(tensor.shape in shapes for tensor in choice.branch.wide):
        return bool(mine & names)
    numbered = all(NUMBERED.fullmatch(name) or name.isdecimal() for name in mine)
    ends = _ends(names) & mine or _ends(mine) & names  # but for a prefix
    return choice.branch.is_list or numbered or bool(ends) or bool(same_words(mine, names))


def _ends(names: set[str]) -> set[str]:
    return {name[place + 1 :] for name in names for place, letter in enumerate(name) if letter == "."}


def _with_zeros(guesses: list[Choice], requested: Reader | None) -> list[Choice]:
    """Where several places hold weights, those with a zero; one alone says itself that it has none.

    Places with nothing that is called a weight (a batch of inputs) stand behind.
    """
    if len(guesses) < 2 or requested is not None:
        return guesses
    called = [choice for choice in guesses if any(map(is_weight, choice.branch.parameters))]
    guesses = called or guesses
    return [choice for choice in guesses if _has_zero(choice)] or guesses


def _has_zero(choice: Choice) -> bool:
    try:
        return any(tensor.has_zero for tensor in choice.found().values())
    except (FormatError, MaskError):
        return True  # it says why it cannot be read when it is


def _one(choices: Sequence[Choice], source: Source) -> Choice:
    if len(choices) == 1:
        return choices[0]
    fits = [choice.fit() for choice in choices]
    best = [choice for choice, fit in zip(choices, fits) if fit == max(fits)]
    if max(fits) < 0:
        raise best[0].error or FormatError("it cannot be read")
    if len(best) == 1:
        return best[0]
    bits = [_bits(choice) for choice in best]
    largest = max(range(len(best)), key=lambda i: len(bits[i]))
    copies = all(all(bits[largest].get(name) == mask for name, mask in other.items()) for other in bits)
    listed = all(choice.branch.path and str(choice.branch.path[-1]).isdecimal() for choice in best)
    if copies and not listed:  # equal masks under '0' and '1' are two layers as likely as one twice
        return best[largest]
    plain = [choice for choice in best if not choice.branch.named(_AVERAGE)]
    if len(plain) == 1:
        others = some(choice.branch.key for choice in best if choice is not plain[0])
        taken = plain[0].branch.key or "the top"
        plain[0].source.notes.append(f"masks taken from '{taken}'; those of {others} differ (--key takes them)")
        return plain[0]
    keys = some((choice.branch.key or "(top)" for choice in best), 6)
    kind = "masks" if copies else "different masks"
    raise FormatError(f"it holds {kind} in {plural(len(best), 'place')}: {keys}; --key says which are meant")


def _bits(choice: Choice) -> dict[str, tuple[tuple[int, ...], bytes]]:
    names = aligned(choice.found(), choice.source.wiring)
    packed = {}
    for name, tensor in choice.found().items():
        if tensor.ndim >= 2:
            rows = tensor.bits(name)
            packed[names[name]] = rows.shape, rows.words.tobytes()
    return packed


def _refuse_unread_masks(chosen: Choice, tree: Sequence[Branch]) -> None:
    """FormatError if weights would be read by their zeros beside what is called a mask and is not understood."""
    shapes = {tensor.shape for tensor in chosen.branch.wide}
    for branch in tree:
        odd = [tensor for tensor in branch.wide if tensor.shape in shapes]
        if branch is chosen.branch:
            _refuse_added(chosen)
        if branch is not chosen.branch and odd and branch.named(_MASKS):
            signs = "-1 and 1" if all(tensor.is_signs for tensor in odd) else "values other than 0 and 1"
            raise FormatError(
                f"'{branch.key}' holds {signs}, so no masks, beside weights of their shapes; "
                f"--key {chosen.branch.key or 'PATH'} or --format zeros reads the weights"
            )


def _refuse_added(chosen: Choice) -> None:
    """FormatError for masks of 0 and -inf: under a key of masks, or read as weights (where -10 is a weight)."""
    branch = chosen.branch
    where = branch.key if branch.named(_MASKS) and any(map(_is_added, branch.wide)) else None
    if where is None:
        where = next((name for name, tensor in chosen.found().items() if _is_added(tensor, _ADDED)), None)
    if where is not None:
        raise FormatError(
            f"'{where}' holds 0 where a weight is kept, as masks that are added do; in Python: masks = "
            "topo.MaskSet({name: array == 0}); topo.write_masks(masks, 'masks.npz')"
        )


def _float8(bits: int) -> np.ndarray:
    """float64 (256,): what each byte stands for, with so many bits of exponent; infinities as large numbers."""
    codes, rest = np.arange(256), 7 - bits
    exponent, fraction = (codes & 127) >> rest, (codes & (1 << rest) - 1) / (1 << rest)
    bias = (1 << bits - 1) - 1
    size = np.where(exponent > 0, 1 + fraction, 2 * fraction) * 2.0 ** (exponent - bias)
    return np.where(codes < 128, size, -size)


_FLOAT8 = {"float8_e4m3fn": _float8(4), "float8_e5m2": _float8(5)}


def _is_added(tensor: Tensor, below: float = -1) -> bool:
    """Whether it holds 0 and one negative number below that alone, such as -inf: a mask that is added, to logits."""
    if not tensor.is_float or not tensor.size:
        return False
    numbers = _FLOAT8.get(tensor.dtype)
    if numbers is None and tensor.dtype.startswith("float8"):
        return False
    least = None
    first = next(iter(tensor.rows(1))).reshape(-1)[:64]  # weights mostly show here what they are
    if first.dtype.kind == "f" and (first[0] > 0 or np.maximum.reduce(first) > 0):
        return False
    for block in chain([first], tensor.blocks()):
        values = (block.astype(np.uint32) << 16).view(np.float32) if tensor.dtype == "bfloat16" else block
        values = values if numbers is None else numbers[values.view(np.uint8)]
        held = values[values != 0]
        if held.size:
            least = held[0] if least is None else least
            if not least < below or not (held == least).all():
                return False
    return least is not None and tensor.has_zero


def _passed_over(chosen: Choice, found: Sequence[Choice]) -> list[str]:
    """A note on the other places that hold a network."""
    named = [
        choice.branch.key
        for choice in found
        if choice is not chosen and choice.branch.path and len(choice.branch.wide) > 0
    ]
    if not named:
        return []
    said = f"read from '{chosen.branch.key or 'the top'}'; also in the file: {some(named)} (--key takes them)"
    return [] if chosen.explicit and all(not choice.explicit for choice in found if choice is not chosen) else [said]


def _nothing(source: Source, lacks: Sequence[tuple[Branch, Reader, str]]) -> str:
    """What the file holds, the nearest reader and what it lacked, and the way out in Python."""
    held = source.described
    signs = next((b for b in source.tree if b.wide and all(tensor.is_signs for tensor in b.wide)), None)
    nearest = _nearest(source, lacks)
    if signs is not None:
        nearest = "its tensors hold only -1 and 1; a mask holds 0 and 1"
    room = 300 - len(nearest)
    held = held if len(held) <= room else held[: max(room - 4, 60)] + " ..."
    return f"no masks found in it; it holds {held}; {nearest}; {WAY_OUT}"


def _nearest(source: Source, lacks: Sequence[tuple[Branch, Reader, str]]) -> str:
    """The reader whose words share most with the names of the file; reading by zeros if none does."""
    if len({entry.name for _, entry, _ in lacks}) == 1:
        return f"tried {lacks[0][1].name}: {lacks[0][2]}"
    places = [branch for branch in source.tree if branch.wide] or source.tree
    lists = all(branch.is_list for branch in places) and isinstance(source.container.content, (list, tuple))
    wanted = "ordered_list" if lists else GUESS
    said = [(entry.name, lack) for branch, entry, lack in lacks if not places or branch in places]
    name, lack = next((pair for pair in said if pair[0] == wanted), said[-1] if said else ("zeros", "no tensors"))
    return f"nearest is {name}: {lack}"
