"""Layers as matrices: rows are outputs, columns are what one output reads, and what a layer reads as such columns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from topo.models.modules.stored import natural


def is_matrix(module: nn.Module) -> bool:
    """Whether the module is a linear layer or a convolution whose inputs can be laid out as columns."""
    kinds = type(module).__mro__
    conv1d = any(k.__name__ == "Conv1D" and k.__module__.startswith("transformers.") for k in kinds)
    return conv1d or isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)


@dataclass(eq=False)
class Matrix:
    """One layer. name: of its weight. Columns of a convolution lie kernel position by kernel position, so that those of
    one position are the input channels in order. sums: of the inputs so far, by group: squared norms or gram matrices.
    """

    name: str
    module: nn.Module
    gram: bool = False
    sums: Tensor | None = None
    count: int = 0

    @property
    def parameter(self) -> Tensor:
        """The weight as the module has it."""
        return self.module.weight  # type: ignore[return-value]

    @property
    def groups(self) -> int:
        """Groups of a convolution."""
        return int(getattr(self.module, "groups", 1))

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """Of the mask, output-first."""
        return natural(self.parameter.shape, self.module).mask_shape

    @property
    def turned(self) -> bool:
        """Whether the weight is stored input-first."""
        return natural(self.parameter.shape, self.module).turned

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return math.prod(self.mask_shape[2:])

    def rows(self) -> Tensor:
        """(out, columns) in float32, or float64 where the weight is."""
        weight = self.parameter.detach()
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        weight = weight.T if self.turned else weight
        return weight.reshape(*weight.shape[:2], -1).transpose(1, 2).reshape(len(weight), -1)

    def laid_out(self, rows: Tensor) -> Tensor:
        """A matrix of `rows` as the mask's shape."""
        out, per_group = self.mask_shape[:2]
        return rows.view(out, self.taps, per_group).transpose(1, 2).reshape(self.mask_shape)

    @torch.no_grad()
    def write(self, rows: Tensor) -> None:
        """Set the weight."""
        values = self.laid_out(rows)
        self.parameter.copy_(values.T if self.turned else values)

    @torch.no_grad()
    def see(self, x: Tensor) -> None:
        """Add what the layer reads."""
        columns = self._columns(x)  # (groups, columns, n)
        more = columns @ columns.transpose(1, 2) if self.gram else columns.square().sum(2)
        self.sums = more if self.sums is None else self.sums + more
        self.count += columns.shape[2]

    def _columns(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        part = self.module
        if not isinstance(part, nn.Conv1d | nn.Conv2d):
            return x.reshape(1, -1, x.shape[-1]).transpose(1, 2)
        flat = isinstance(part, nn.Conv1d)
        if x.dim() == (2 if flat else 3):
            x = x[None]
        padded = F.pad(
            x, part._reversed_padding_repeated_twice, "constant" if part.padding_mode == "zeros" else part.padding_mode
        )
        kernel, stride, dilation = part.kernel_size, part.stride, part.dilation
        if flat:
            padded, kernel, stride, dilation = padded[:, :, None], (1, *kernel), (1, *stride), (1, *dilation)
        found = F.unfold(padded, kernel, dilation=dilation, stride=stride)  # (batch, in * taps, places)
        batch, _, places = found.shape
        found = found.view(batch, part.groups, -1, self.taps, places).permute(1, 3, 2, 0, 4)
        return found.reshape(part.groups, -1, batch * places)

    def seen(self, group: int) -> Tensor:
        """What the inputs of a group came to: squared norms of its columns, or 2/n X X^T. Zeros where none came."""
        if self.sums is None:
            columns = self.rows().shape[1]
            return torch.zeros(
                (columns, columns) if self.gram else (columns,), dtype=self.rows().dtype, device=self.parameter.device
            )
        sums = self.sums[group]
        return sums * (2 / self.count) if self.gram else sums

    def forget(self) -> None:
        """Free what was seen."""
        self.sums, self.count = None, 0
