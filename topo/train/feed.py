"""Images on their way to the network: uint8 on the device, cropped, mirrored and normalised there; no worker processes.

What is drawn for an epoch depends on the seed and the epoch alone, for the whole batch over all processes: a resumed
run, a streamed one and one on several devices all see the same images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_AHEAD = 3  # batches that the streaming thread is ahead


def mixed(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Plan:
    """An epoch, drawn beforehand: which images in which order, where each is cropped and which are mirrored."""

    order: Tensor
    top: Tensor | None = None
    left: Tensor | None = None
    mirror: Tensor | None = None

    @classmethod
    def drawn(cls, count: int, seed: int, epoch: int, padding: int, flip: bool) -> Plan:
        generator = torch.Generator().manual_seed(mixed(seed, epoch))
        order = torch.randperm(count, generator=generator)
        top, left = (
            torch.randint(2 * padding + 1, (2, count), generator=generator).unbind() if padding else (None, None)
        )
        return cls(order, top, left, torch.rand(count, generator=generator) < 0.5 if flip else None)

    @classmethod
    def straight(cls, count: int) -> Plan:
        return cls(torch.arange(count))

    def to(self, device: torch.device) -> Plan:
        return self._each(lambda part: part.to(device))

    def part(self, places: slice) -> Plan:
        return self._each(lambda part: part[places])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Plan:
        others = (None if part is None else change(part) for part in (self.top, self.left, self.mirror))
        return Plan(change(self.order), *others)


class Feed:
    """One part of a data set as batches of (normalised images, labels) on a device.

    resident: all images, padded, lie on the device; otherwise a thread gathers the next batches and sends them.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
        padding: int = 0,
        resident: bool = True,
        channels_last: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.source, self.device, self.padding, self.resident = images, device, padding, resident
        self.height, self.width = images.shape[2:]
        self.labels = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
        moments = torch.tensor([mean, std], dtype=torch.float64).reshape(2, 1, -1, 1, 1)
        self.dtype = dtype
        self.scale = (1 / (255 * moments[1])).to(dtype).to(device)
        self.shift = (-moments[0] / moments[1]).to(dtype).to(device)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.images = self._padded(torch.from_numpy(np.array(images))).to(device) if resident else None

    def __len__(self) -> int:
        return len(self.source)

    def _padded(self, images: Tensor) -> Tensor:
        return F.pad(images, [self.padding] * 4) if self.padding else images  # black, as in the papers' loaders

    def batches(self, plan: Plan, places: list[slice]) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of the plan at these places, one batch after another."""
        here = plan.to(self.device)
        if self.images is not None:
            for place in places:
                part = here.part(place)
                yield self._finished(self.images, part.order, part), self.labels[part.order]
            return
        with ThreadPoolExecutor(1) as pool:
            coming: deque[Future[Tensor]] = deque()
            for number, place in enumerate(places):
                while len(coming) <= _AHEAD and number + len(coming) < len(places):
                    coming.append(pool.submit(self._gathered, plan.order[places[number + len(coming)]]))
                part = here.part(place)
                images = self._padded(coming.popleft().result().to(self.device, non_blocking=True))
                yield self._finished(images, None, part), self.labels[part.order]

    def _gathered(self, order: Tensor) -> Tensor:
        images = torch.from_numpy(np.ascontiguousarray(self.source[order.numpy()]))
        return images.pin_memory() if self.device.type == "cuda" else images

    def _finished(self, images: Tensor, places: Tensor | None, plan: Plan) -> Tensor:
        """Crop and mirror by one gather; then x * scale + shift."""
        if plan.top is not None or plan.mirror is not None:
            count = len(plan.order)
            if places is None:
                places = torch.arange(count, device=self.device)
            rows = torch.arange(self.height, device=self.device).expand(count, -1)
            columns = torch.arange(self.width, device=self.device).expand(count, -1)
            if plan.mirror is not None:
                columns = torch.where(plan.mirror[:, None], self.width - 1 - columns, columns)
            if plan.top is not None and plan.left is not None:
                rows, columns = rows + plan.top[:, None], columns + plan.left[:, None]
            channels = torch.arange(images.shape[1], device=self.device)
            images = images[places[:, None, None, None], channels[:, None, None], rows[:, None, :, None],
                            columns[:, None, None, :]]  # fmt: skip
        elif places is not None:
            images = images[places]
        return images.to(self.dtype, memory_format=self.layout).mul_(self.scale).add_(self.shift)


def fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes of images may lie on the device: half of what a GPU has free; on a CPU they do already."""
    return device.type != "cuda" or size <= torch.cuda.mem_get_info(device)[0] // 2
