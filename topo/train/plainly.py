"""What torch, numpy or a model raises becomes one line; the error itself stays its cause, for --debug."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from topo._support.doors import first_line
from topo.errors import TopoError, TrainingError

__all__ = ["first_line", "in_one_line", "out_of_memory", "told"]


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """TrainingError "what: kind: first line" for any other error inside, but for memory that ends."""
    try:
        yield
    except TopoError:
        raise
    except Exception as error:  # whatever a user's model, loss or data set raises
        if out_of_memory(error):
            raise
        raise TrainingError(f"{what}: {type(error).__name__}: {first_line(error)}") from error


@contextmanager
def told(what: str) -> Iterator[None]:
    """The same at a door: memory that ends is told too."""
    try:
        with in_one_line(what):
            yield
    except TopoError:
        raise
    except Exception as error:  # memory that ended
        ways = "smaller or fewer batches, or another device"
        raise TrainingError(f"{what}: memory ended ({type(error).__name__}: {first_line(error)}); {ways}") from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is that of memory that ended, on any device."""
    said = first_line(error)
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in said or "not enough memory" in said
