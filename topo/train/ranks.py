"""Several processes on one training run, as torchrun starts them: who we are, and what we agree on."""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from topo.errors import TrainingError
from topo.masks import BitRows, MaskSet

# A process that waits for a dead one gives up after this; then the run is resumed from its checkpoint. torchrun's
# elastic restarts were seen to hang, so nothing here relies on them.
_PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Ranks:
    """This process among `world` of them; rank 0 writes the files."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, start: int, stop: int) -> slice:
        """This process's part of the places start .. stop - 1 of a batch."""
        count = stop - start
        return slice(start + count * self.rank // self.world, start + count * (self.rank + 1) // self.world)

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()

    def require_same(self, what: str, text: str) -> None:
        """TrainingError on every process if `text` is not the same on all of them."""
        if self.world == 1:
            return
        digest = torch.frombuffer(bytearray(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)
        own = digest.to(self.device)
        all_ = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(all_, own)
        if odd := [rank for rank, other in enumerate(all_) if not torch.equal(other, all_[0])]:
            raise TrainingError(f"{what} of process {odd[0]} differ from those of process 0; they should be the same")

    def from_first(self, tensors: list[Tensor]) -> None:
        """Overwrite tensors by those of process 0."""
        if self.world > 1:
            for tensor in tensors:
                held = tensor.detach().to(self.device).contiguous()
                dist.broadcast(held, 0)
                tensor.detach().copy_(held)

    def same_masks(self, masks: MaskSet | None) -> MaskSet | None:
        """The masks of process 0 on every process, checked by content hash afterwards."""
        if self.world == 1:
            return masks
        self.require_same("the names and shapes of the masks", repr(masks.shapes if masks is not None else None))
        if masks is None:
            return None
        words = {name: torch.from_numpy(masks.rows(name).words.copy().view("int64")) for name in masks}
        self.from_first(list(words.values()))
        rows = {name: BitRows(masks.rows(name).shape, held.numpy().view("uint64")) for name, held in words.items()}
        found = MaskSet(rows, provenance=masks.provenance)
        self.require_same("the masks", found.content_hash)
        return found


@contextmanager
def ranks(device: str) -> Iterator[Ranks]:
    """Join the other processes if torchrun started us (RANK, WORLD_SIZE), with nccl on GPUs and gloo otherwise.

    device: auto, cpu, cuda or cuda:N; "auto" is the GPU if there is one. TrainingError if there is no such device.
    """
    where = _device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    ours = world > 1 and not dist.is_initialized()
    gpu = where.type == "cuda"
    with torch.cuda.device(where) if gpu else nullcontext():  # nccl's barrier is on the current device
        if ours:
            dist.init_process_group("nccl" if gpu else "gloo", timeout=_PATIENCE, device_id=where if gpu else None)
        try:
            if dist.is_initialized():
                yield Ranks(dist.get_rank(), dist.get_world_size(), where)
            else:
                yield Ranks(0, 1, where)
        finally:
            if ours:
                gc.collect()  # wrappers that hold the group: its threads must end before the interpreter does
                dist.destroy_process_group()


def _device(device: str) -> torch.device:
    there = torch.cuda.is_available()
    try:
        wanted = torch.device(("cuda" if there else "cpu") if device == "auto" else device)
    except RuntimeError:
        raise TrainingError(f"'{device}' is not a device; it is auto, cpu, mps, cuda or cuda:0, cuda:1, ...") from None
    if wanted.type not in ("cpu", "cuda", "mps"):
        raise TrainingError(
            f"'{device}' is not a device to train on; it is auto, cpu, mps, cuda or cuda:0, cuda:1, ..."
        )
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise TrainingError("device 'mps' is not there; torch sees no Apple GPU")
    if wanted.type == "cuda" and (not there or (wanted.index or 0) >= torch.cuda.device_count()):
        raise TrainingError(f"device '{device}' is not there; torch sees {torch.cuda.device_count()} GPUs")
    if wanted.type == "cuda" and wanted.index is None:
        wanted = torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
    return wanted
