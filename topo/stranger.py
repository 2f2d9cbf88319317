"""Running a model that somebody else wrote: what it changes is set back, and what it raises becomes one line.

A forward pass is code of its user's, which may turn gradients off or change the default type and leave it so. After
each pass topo sets back what its own next step depends on (`PassKept`), and at its doors the settings listed here
and random numbers (`torch_kept`), so that the user's program goes on as if nothing had run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch._functorch.eager_transforms import exit_jvp_nesting
from torch.autograd import forward_ad

from topo._support.doors import first_line
from topo.errors import TopoError, TrainingError


def _default_device() -> torch.device | None:
    """The one of torch.set_default_device; None if none was set."""
    context = getattr(getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None), "device_context", None)
    return None if context is None else context.device


def _of(place: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return lambda: getattr(place, name), lambda value: setattr(place, name, value)


def _autocast(kind: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    def put(value: tuple[bool, torch.dtype]) -> None:
        torch.set_autocast_enabled(kind, value[0])
        torch.set_autocast_dtype(kind, value[1])

    return lambda: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)), put


def _precision() -> tuple[str | None, ...]:
    """Of products in float32: torch's older setting (None where a newer one was set), and the newer ones."""
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:
        older = None
    return older, *(getattr(place, "fp32_precision", None) for place in _NEWER)


def _put_precision(value: tuple[str | None, ...]) -> None:
    if value[0] is not None:
        torch.set_float32_matmul_precision(value[0])
    for place, held in zip(_NEWER, value[1:]):
        if held is not None and place.fp32_precision != held:
            place.fp32_precision = held


_cudnn, _cuda = torch.backends.cudnn, cast(Any, torch.backends.cuda)
_NEWER: tuple[Any, ...] = (torch.backends, _cuda.matmul, cast(Any, torch.backends.mkldnn).matmul)
# What a setting is called, how it is read and how it is written.
_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "default type": (torch.get_default_dtype, torch.set_default_dtype),
    "default device": (_default_device, torch.set_default_device),
    "deterministic kernels": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "anomaly mode": (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.set_anomaly_enabled(*value),
    ),
    "autocast": _autocast("cpu"),
    "autocast on a GPU": _autocast("cuda"),
    "precision of products": (_precision, _put_precision),
    "threads": (torch.get_num_threads, torch.set_num_threads),
    **{f"cudnn.{name}": _of(_cudnn, name) for name in ("enabled", "benchmark", "deterministic")},
    "flash attention": (_cuda.flash_sdp_enabled, _cuda.enable_flash_sdp),
    "attention in blocks": (_cuda.mem_efficient_sdp_enabled, _cuda.enable_mem_efficient_sdp),
    "plain attention": (_cuda.math_sdp_enabled, _cuda.enable_math_sdp),
}


class PassKept:
    """Around one forward pass: gradients, default type and device as they were, afterwards. What topo computes next
    depends on these; to look at them takes 2 microseconds, at all settings 90.

    left_off: whether a pass left gradients off. It is a context that serves many passes.
    """

    def __init__(self) -> None:
        self.left_off = False

    def __enter__(self) -> PassKept:
        self.before = torch.is_grad_enabled(), torch.get_default_dtype(), _default_device()
        return self

    def __exit__(self, *_: Any) -> None:
        gradients, kind, device = self.before
        if torch.is_grad_enabled() != gradients:
            self.left_off |= gradients
            torch.set_grad_enabled(gradients)
        if torch.get_default_dtype() != kind:
            torch.set_default_dtype(kind)
        if _default_device() != device:
            torch.set_default_device(device)

    @property
    def notes(self) -> list[str]:
        """A line, where gradients were left off."""
        said = "the model's forward pass turns gradients off and leaves them so; they were on again after each pass"
        return [said] if self.left_off else []

    def why_no_gradient(self) -> str:
        """Why an answer may have no gradient."""
        if self.left_off:
            return "the model's forward pass turns gradients off (torch.set_grad_enabled(False))"
        return "the model's answer has no gradient: it is detached, made under torch.no_grad(), or of no parameter"


def _transforms() -> int:
    """How many transforms of torch.func (grad, jvp, vmap) are entered."""
    inner = torch._C._functorch.peek_interpreter_stack()
    return 0 if inner is None else inner.level()


def _leave_transforms(before: int, dual: int) -> None:
    """Leave the transforms, and the levels of forward differentiation, that a pass entered and did not leave: no
    parameter can be moved while one is entered."""
    functorch = cast(Any, torch._C._functorch)
    leave = {
        "Grad": functorch._grad_decrement_nesting,
        "Jvp": exit_jvp_nesting,
        "Vmap": functorch._vmap_decrement_nesting,
        "Functionalize": functorch._func_decrement_nesting,
    }
    while _transforms() > before:
        leave[functorch.peek_interpreter_stack().key().name]()
    while forward_ad._current_level > dual:
        forward_ad.exit_dual_level()


@contextmanager
def torch_kept() -> Iterator[None]:
    """A door: all settings, entered transforms and the random numbers of torch as they were, afterwards. Also a
    decorator."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    before = {name: read() for name, (read, _) in _SETTINGS.items()}
    entered = _transforms(), forward_ad._current_level
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        _leave_transforms(*entered)
        for name, (read, write) in _SETTINGS.items():
            if read() != before[name]:
                write(before[name])


@contextmanager
def in_one_line(what: str, kind: type[TopoError] = TrainingError) -> Iterator[None]:
    """An error of this kind, "what: its type: its first line", for any other inside, but for memory that ends."""
    try:
        yield
    except TopoError:
        raise
    except Exception as error:  # whatever a user's model, loss or data set raises
        if out_of_memory(error):
            raise
        raise kind(f"{what}: {type(error).__name__}: {first_line(error)}") from error


@contextmanager
def told(what: str, kind: type[TopoError] = TrainingError) -> Iterator[None]:
    """The same at a door: memory that ends is told too."""
    try:
        with in_one_line(what, kind):
            yield
    except TopoError:
        raise
    except Exception as error:  # memory that ended
        ways = "smaller or fewer batches, or another device"
        raise kind(f"{what}: memory ended ({type(error).__name__}: {first_line(error)}); {ways}") from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is that of memory that ended, on any device."""
    said = first_line(error)
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in said or "not enough memory" in said
