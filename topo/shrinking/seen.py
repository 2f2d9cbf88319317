"""What is known of a tensor of the network on every input: its slots, where it varies, and its value where it does not.

Masks and biases decide, never the data: an entry varies unless no kept weight joins it to an input. `varies` and
`value` are held with length 1 along every axis along which they do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from topo.masks import BitRows
from topo.shrinking.slots import Axis


@dataclass(frozen=True, eq=False)
class KeptBits:
    """What the mask of a large matrix (out, in) keeps, as bits: an eighth of the bytes, and of the time."""

    rows: BitRows

    def tensor(self) -> Tensor:
        """bool (out, in)."""
        return torch.from_numpy(self.rows.unpack().copy())

    def joined(self, outputs: np.ndarray) -> np.ndarray:
        """bool (out,) -> bool (in,): the inputs that a kept weight joins to one of these outputs."""
        words = np.bitwise_or.reduce(self.rows.words[outputs], axis=0)
        return np.unpackbits(words.view(np.uint8), count=self.rows.columns, bitorder="little").view(np.bool_)


@dataclass(frozen=True, eq=False)
class Seen:
    """axes: the slots along each axis. varies: bool, value: the entry where it does not vary (0 elsewhere).

    kept: of a parameter, where its mask keeps (bool, laid out as the parameter, maybe expanded; of a large matrix its
    bits); None for activations.
    name: of the parameter or buffer that it is, while it is that alone. fixed: made of parameters and constants only.
    """

    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    varies: Tensor
    value: Tensor
    kept: Tensor | KeptBits | None = None
    name: str | None = None
    fixed: bool = False
    sources: frozenset[str] = field(default=frozenset())

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def mask(self) -> Tensor | None:
        """`kept` as a tensor."""
        return self.kept.tensor() if isinstance(self.kept, KeptBits) else self.kept

    def whole(self, what: str = "value") -> Tensor:
        """`varies` or `value` as an expanded tensor of the full shape."""
        return getattr(self, what).expand(self.shape)  # type: ignore[no-any-return]

    def only(self, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Along one axis, with its full length: bool, constant and the same everywhere; its value; bool, constant."""
        axis %= self.dim
        others = [d for d in range(self.dim) if d != axis]
        length = self.shape[axis]
        varies, value = self.varies, self.value
        varies = varies.amax(others, keepdim=True) if others and varies.numel() else varies
        low = value.amin(others, keepdim=True) if others and value.numel() else value
        high = value.amax(others, keepdim=True) if others and value.numel() else value
        constant = ~_row(varies, length)
        uniform = constant & (_row(low, length) == _row(high, length))
        return uniform, np.where(uniform, _row(low, length), 0.0), constant


class Large(Seen):
    """A large matrix without a masked copy: its mask is put on it when its values are asked for."""

    def _masked(self) -> Tensor:
        own: Tensor = self.__dict__["own"]
        return own if self.mask is None else torch.where(self.mask, own, 0)

    def _hold(self, value: Tensor) -> None:
        self.__dict__["own"] = value

    value = property(_masked, _hold)  # type: ignore[assignment]


def _row(values: Tensor, length: int) -> np.ndarray:
    row = values.reshape(-1).numpy()
    return row if len(row) == length else np.broadcast_to(row, (length,))


def small(values: Tensor) -> Tensor:
    """The same values with length 1 along every axis along which they do not change."""
    for dim in range(values.dim()):
        if values.shape[dim] > 1:
            first = values.narrow(dim, 0, 1)
            if values.stride(dim) == 0 or bool((values.narrow(dim, 1, 1) == first).all() and (values == first).all()):
                values = first
    return values


def varying(shape: Sequence[int], axes: Sequence[Axis] | None = None, varies: Tensor | None = None) -> Seen:
    """A tensor that varies, everywhere unless `varies` says where."""
    flags = torch.ones((1,) * len(shape), dtype=torch.bool) if varies is None else varies
    zero = torch.zeros((1,) * len(shape), dtype=torch.float64)
    return Seen(tuple(shape), tuple(axes or (None,) * len(shape)), flags, zero)


def of(shape: Sequence[int], axes: Sequence[Axis], varies: Tensor, value: Tensor, fixed: bool = False) -> Seen:
    """What an operation made: values that are not numbers, or not finite, count as varying."""
    if value.dtype != torch.float64:
        value = value.to(torch.float64)
    odd = ~torch.isfinite(value)
    if bool(odd.any()):
        varies, value = varies | odd, torch.where(odd, 0.0, value)
    if value.numel() and bool((value != 0).any()):
        value = torch.where(varies, 0.0, value)
    return Seen(tuple(shape), tuple(axes), small(varies), small(value), fixed=fixed)
