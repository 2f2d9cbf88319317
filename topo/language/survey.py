"""Every tensor of a language model counted, and what follows from the counts: scopes, numbers of blocks, dead parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from topo.containers.counting import Counts, count
from topo.containers.tensors import Rows, Tensor
from topo.errors import MaskError
from topo.formats import Reading
from topo.formats.coverage import size_of
from topo.formats.fitting import aligned
from topo.formats.names import FUSED
from topo.language.config import Config
from topo.language.parts import DECODER, EMBEDDING, part_of
from topo.masks import BitRows
from topo.report.groups import place_of

PATTERNS = ((2, 4), (4, 8))
# A layer counts as pruned from this share of zeros on: rounding to 16 bits alone makes a few.
_PRUNED = 1e-3
# Bytes from which on it is of interest how fast they are read.
WORTH_SAYING = 1 << 27

Progress = Callable[[str], Any]


@dataclass(frozen=True)
class Scope:
    """A choice of layers, and how dense they are together. scope: "pruned", "decoder" or "all"."""

    scope: str
    layers: int
    params: int
    kept: int

    @property
    def density(self) -> float:
        """kept / params."""
        return self.kept / self.params if self.params else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        density = self.density if self.params else None
        return {
            "scope": self.scope, "layers": self.layers, "params": self.params, "kept": self.kept, "density": density,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Survey:
    """What one pass over a language model's tensors found.

    counts: parameter -> its counts, output-first; experts in one tensor lie one below the other. experts: how many lie
    in such a tensor. left_out: parameter -> size of what could not be counted. config: what the folder says. bytes,
    files, seconds: what was read, and how long it took. masks: of tensors that were to be kept, by their `rows`, the
    mask and how many weights are NaN.
    """

    counts: Mapping[str, Counts]
    left_out: Mapping[str, int]
    config: Config | None = None
    experts: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0
    files: int = 1
    seconds: float = 0.0
    masks: Mapping[Rows, tuple[BitRows, int]] = field(default_factory=dict)

    @cached_property
    def decoder(self) -> dict[str, Counts]:
        """Linear layers of the decoder's blocks, block by block."""
        names = [name for name in self.counts if part_of(name) == DECODER]
        return {name: self.counts[name] for name in sorted(names, key=_block)}

    @cached_property
    def pruned(self) -> dict[str, Counts]:
        """Layers with at least one zero in a thousand; rows of an embedding that are zero as a whole are padding."""
        return {name: held for name, held in self.counts.items() if _is_pruned(name, held)}

    @cached_property
    def scopes(self) -> tuple[Scope, Scope, Scope]:
        """The pruned layers, the decoder's linear layers, and everything that was counted."""
        chosen = {"pruned": self.pruned, DECODER: self.decoder, "all": self.counts}
        first, second, third = (
            Scope(name, len(held), sum(c.size for c in held.values()), sum(c.kept for c in held.values()))
            for name, held in chosen.items()
        )
        return first, second, third

    @property
    def size(self) -> int:
        """Parameters that were counted."""
        return self.scopes[2].params

    @property
    def dtypes(self) -> list[str]:
        """Types of the tensors, the most frequent first."""
        sizes: dict[str, int] = {}
        for held in self.counts.values():
            sizes[held.dtype] = sizes.get(held.dtype, 0) + held.size
        return sorted(sizes, key=lambda name: -sizes[name])

    @property
    def coverage(self) -> dict[str, Any]:
        """{"read", "left_out", "names"}: parameters of two or more dimensions."""
        return {"read": self.size, "left_out": sum(self.left_out.values()), "names": list(self.left_out)}

    @property
    def odd(self) -> list[str]:
        """Notes on numbers that are not ordinary: NaN, infinite, -0.0 and denormal ones."""
        said = []
        for word, verb in (("nan", "NaN (kept)"), ("infinite", "infinite (kept)"), ("minus_zeros", "-0.0 (not kept)"),
                           ("denormals", "denormal (kept)")):  # fmt: skip
            found = {name: getattr(held, word) for name, held in self.counts.items() if getattr(held, word)}
            if found:
                names = ", ".join(f"'{name}'" for name in list(found)[:3]) + (", ..." if len(found) > 3 else "")
                many = f"{len(found)} layer{'s' * (len(found) > 1)}"
                count = sum(found.values())
                weights = "1 weight is" if count == 1 else f"{count:,} weights are"
                said.append(f"{weights} {verb}, in {many}: {names}")
        return said

    def only(self, names: Sequence[str]) -> Survey:
        """The same survey of these parameters alone."""
        return replace(self, counts={name: self.counts[name] for name in names if name in self.counts})

    def under(self, prefix: str) -> Survey:
        """The same survey with a prefix on every name."""
        counts = {prefix + name: held for name, held in self.counts.items()}
        left_out = {prefix + name: size for name, size in self.left_out.items()}
        experts = {prefix + name: number for name, number in self.experts.items()}
        return replace(self, counts=counts, left_out=left_out, experts=experts)


def _block(name: str) -> tuple[str, int]:
    """Blocks come in their order, also where shards mix them; within one the file's order stays."""
    place = place_of(name)
    return (place.stack, place.block) if place else ("", -1)


def _is_pruned(name: str, held: Counts) -> bool:
    zeros = held.size - held.kept
    if part_of(name) == EMBEDDING:
        zeros -= held.dead_rows * len(held.columns)
    return zeros >= max(1, _PRUNED * held.size)


def survey(
    reading: Reading,
    config: Config | None = None,
    *,
    patterns: Sequence[tuple[int, int]] = PATTERNS,
    threads: int | None = None,
    progress: Progress | None = None,
    beside: bool = True,
    keep: Collection[str] = (),
) -> Survey:
    """Count every tensor of two or more dimensions of a file that was understood, in one pass; no mask is kept.

    patterns: N:M patterns to look at, beside those of the default. beside: count what the reader takes for no mask too
    (embeddings, the head). progress: called with a line that says how far it is, how fast, and how long it will take.
    keep: parameters whose masks are kept all the same, where they are inferred from zeros and lie as the file has them.

    >>> np.savez("layer.npz", **{"layers.0.mlp.up_proj.weight": np.array([[0.5, 0, 0, 2], [0, 0, 0, 1]])})
    >>> from topo import formats, language
    >>> found = language.survey(formats.opened("layer.npz"))
    >>> [(scope.scope, scope.kept, scope.params) for scope in found.scopes]
    [('pruned', 3, 8), ('decoder', 3, 8), ('all', 3, 8)]

    Raises FormatError for a file that cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    left_out: dict[str, int] = dict(reading.lost)
    for name, tensor in reading.tensors.items():
        tensors[name] = tensor
    outside = reading.outside if beside else {}
    if reading.wiring is None:  # under names like those of the rest
        names = aligned(outside, None, reading.source.state)
        outside = {names[name]: held for name, held in outside.items()}
    for name, (stored, tensor) in outside.items():
        size = size_of(reading.source, stored, tensor)
        if size != tensor.size or not tensor.is_number or 0 in tensor.shape:  # packed, or none
            left_out[name] = size
        else:
            tensors[name] = tensor
    total = sum(_bytes(tensor) for tensor in tensors.values())
    wanted = tuple(dict.fromkeys([*PATTERNS, *patterns]))
    counts: dict[str, Counts] = {}
    experts: dict[str, int] = {}
    masks: dict[Rows, tuple[BitRows, int]] = {}
    started, done = time.perf_counter(), 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        if progress and total >= WORTH_SAYING:
            progress(f"read {_speed(done, total, time.perf_counter() - started)}")

    for name, tensor in tensors.items():
        laid_out = _laid_out(name, tensor, config, reading)
        if laid_out is not tensor and tensor.ndim == 3:
            experts[name] = tensor.shape[0]
        bits = None
        if name in keep and tensor.inferred and laid_out is tensor and tensor.is_number and tensor.ndim > 1:
            bits = np.empty((tensor.shape[0], -(-prod(tensor.shape[1:]) // 64)), np.uint64)
        try:
            counts[name] = count(laid_out, wanted, threads, advance, bits)
        except MaskError:
            left_out[name] = tensor.size
        else:
            if bits is not None:
                masks[tensor.rows] = BitRows(tensor.shape, bits), counts[name].nan
    files = max(1, len(reading.source.container.files))
    seconds = time.perf_counter() - started
    return Survey(counts, left_out, config, experts, total, files, seconds, masks)


def _laid_out(name: str, tensor: Tensor, config: Config | None, reading: Reading) -> Tensor:
    """A tensor output-first, and experts in one tensor one below the other."""
    return tensor.output_first() if _is_input_first(name, tensor, config, reading) else as_matrix(name, tensor)


def as_matrix(name: str, tensor: Tensor) -> Tensor:
    """Experts in one tensor (experts, out, in) one below the other, so that N:M lies along their inputs; others as they
    are."""
    return tensor.stacked() if tensor.ndim == 3 and FUSED.search(name) else tensor


def _is_input_first(name: str, tensor: Tensor, config: Config | None, reading: Reading) -> bool:
    """Whether a file stores this weight (in, out), as its config.json tells and no wiring has told before."""
    stored_so = config is not None and config.input_first and reading.wiring is None and reading.inferred
    return bool(stored_so) and place_of(name) is not None and tensor.ndim == 2


def output_first(reading: Reading, config: Config | None) -> Reading:
    """The same file with the layers that its config.json tells to be stored (in, out) turned."""
    turned = {
        name: tensor.output_first() if _is_input_first(name, tensor, config, reading) else tensor
        for name, tensor in reading.tensors.items()
    }
    return replace(reading, tensors=turned)


def _bytes(tensor: Tensor) -> int:
    itemsize = {"bfloat16": 2, "float16": 2, "float64": 8, "int64": 8, "float32": 4, "int32": 4}.get(tensor.dtype, 1)
    return tensor.size * itemsize


def _speed(done: int, total: int, seconds: float) -> str:
    """As in "3.2 of 13.5 GB, 11.2 GB/s, 1 s left"."""
    rate = done / max(seconds, 1e-9)
    left = (total - done) / rate if rate else 0.0
    return f"{done / 1e9:.1f} of {total / 1e9:.1f} GB, {rate / 1e9:.1f} GB/s, {left:.0f} s left"
