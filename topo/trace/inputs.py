"""Example inputs: what a model is run on to be traced, from what the user says, the model carries or its config says.

A model says what it takes by two attributes, which `topo.models.build` and factories that return (model, inputs) set:
`topo_name`, and `topo_inputs`, a shape or whatever `own_inputs` takes.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topo._support.text_files import read_text
from topo.errors import TopoError, TraceError
from topo.input_spec import Input, Spec, input_text, plain_shape, read_inputs
from topo.trace.capture import unwrapped

TOKENS = 8
_FRAMES = 4

Example = tuple[tuple[Any, ...], dict[str, Any]]


def examples(
    module: nn.Module, spec: Spec | None, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> list[tuple[Example, str | None]]:
    """Ways to call the model, the likeliest first, each with a note on what was assumed, if anything.

    They are those given; or of the shapes in `spec`; or of the inputs that the model carries; or, for a model of the
    transformers library, of its signature and config. TraceError names the arguments that are missing.
    """
    if args is not None or kwargs is not None:
        args = () if args is None else (args,) if isinstance(args, Tensor) else tuple(args)
        return [(_fitting(module, (args, dict(kwargs or {}))), None)]
    carried = getattr(module, "topo_inputs", None)
    if spec is None and carried is not None:
        found = own_inputs(carried)
        if not isinstance(found, list):
            return [(_fitting(module, found), None)]
        spec = found
    inputs = read_inputs(spec) if spec is not None else ()
    if getattr(module, "config", None) is not None and getattr(module, "main_input_name", None):
        made = _of_config(module, inputs)
        if made:
            return made
    if not inputs:
        raise TraceError(_missing(module, ()))
    ways = [(_fitting(module, _zeros(module, inputs)), None)]
    if any(item.name for item in inputs) and any(_batched(item) for item in inputs):
        bare = [Input(i.shape[1:], i.tokens, i.name) if _batched(i) else i for i in inputs]
        note = f"the sides of 1 in front of the inputs {input_text(inputs)} were taken for the batch"
        ways.append((_zeros(module, bare), note))  # type: ignore[arg-type]
    return ways  # type: ignore[return-value]


def own_inputs(given: Any) -> Any:
    """Inputs that a factory returned beside its model: (args, kwargs) of a call, or the list of shapes they stand for.

    given: a tensor; a tuple of tensors; a mapping of tensors by argument; (args, kwargs); a shape, or a text as
    `--input` takes it. TopoError if it is none of these.
    """
    if isinstance(given, Tensor):
        return (given,), {}
    if isinstance(given, Mapping) and any(isinstance(value, Tensor) for value in given.values()):
        return (), dict(given)
    if isinstance(given, list | tuple):
        if len(given) == 2 and isinstance(given[0], list | tuple) and isinstance(given[1], Mapping):
            return tuple(given[0]), dict(given[1])
        if any(isinstance(value, Tensor) for value in given):
            return tuple(given), {}
    if isinstance(given, str | Mapping | list | tuple):
        return list(read_inputs(given))
    raise TopoError(
        f"example inputs are a {type(given).__name__}; they should be a tensor, tensors in order or by name, or a shape"
    )


def carried_name(module: nn.Module) -> str:
    """The name that a built-in model carries, unless its layers were changed since; else the name of its class."""
    module = unwrapped(module)
    name, shapes = getattr(module, "topo_name", None), sorted(tuple(p.shape) for p in module.parameters())
    return name if isinstance(name, str) and getattr(module, "topo_shapes", shapes) == shapes else type(module).__name__


def carried_shape(module: nn.Module) -> tuple[int, ...] | None:
    """The input shape that a model carries, if it takes one input of floating-point numbers."""
    carried = getattr(module, "topo_inputs", None)
    found = own_inputs(carried) if carried is not None else None
    return plain_shape(found) if isinstance(found, list) else None


def inputs_in(path: str | Path) -> Example:
    """(args, kwargs) of the example inputs in a file, with their batch.

    .json: an object of lists by argument, or a list of them; a text in place of a list is a shape as `--input` takes
    it. .npz: arrays by argument; arr_0, arr_1, ... go by place. .pt: a tensor, tensors in order or by name (read
    without running code). TopoError, one line, if the file holds something else.
    """
    path = Path(path).expanduser()
    readers = {".json": _json, ".npz": _npz, ".pt": _pt, ".pth": _pt}
    if path.suffix not in readers:
        raise TopoError(f"inputs '{path}': the file's name should end in .json, .npz or .pt")
    if not path.is_file():
        raise TopoError(f"inputs '{path}': there is no such file")
    try:
        held = readers[path.suffix](path)
        values = held if isinstance(held, Mapping) else {f"arr_{i}": value for i, value in enumerate(held)}
        tensors = {str(name): _tensor(value) for name, value in values.items()}
    except Exception as error:  # whatever a broken file makes its reader raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TopoError(f"inputs '{path}' cannot be read: {said}") from None
    if not tensors:
        raise TopoError(f"inputs '{path}' holds no array")
    by_place = {name for name in tensors if name.removeprefix("arr_").isdecimal()}
    order = sorted(by_place, key=lambda name: int(name.removeprefix("arr_")))
    return tuple(tensors[name] for name in order), {k: v for k, v in tensors.items() if k not in by_place}


# -- files


def _json(path: Path) -> Any:
    held = json.loads(read_text(path, "inputs in JSON"))
    if isinstance(held, dict) and held:
        return held
    if isinstance(held, list) and held:
        return held if isinstance(held[0], list | str) and _nested(held) else [held]
    raise ValueError("it should hold an object of arrays by argument, or a list of arrays")


def _nested(values: list[Any]) -> bool:
    """Whether a list is one of arrays, not one array: its parts differ in shape, or are texts, or have two axes."""
    return any(isinstance(v, str) for v in values) or isinstance(values[0][0], list)


def _npz(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as held:
        return {name: held[name] for name in held.files}


def _pt(path: Path) -> Any:
    held = torch.load(path, map_location="cpu", weights_only=True)
    return [held] if isinstance(held, Tensor) else held


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, str):
        (item,) = read_inputs(value)
        return _example(item, torch.device("cpu"), torch.float32)
    made = torch.from_numpy(np.array(value))
    return made.float() if made.is_floating_point() else made


# -- shapes


def _batched(item: Input) -> bool:
    return item.shape[0] == 1 and len(item.shape) > 1


def _example(item: Input, device: torch.device, dtype: torch.dtype) -> Tensor:
    if item.tokens:
        return torch.ones(1, *item.shape, dtype=torch.long, device=device)
    return torch.zeros(1, *item.shape, dtype=dtype, device=device)


def _kind(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the model is, and in what precision."""
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    return device, next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


def _zeros(module: nn.Module, inputs: Sequence[Input]) -> Example:
    kind = _kind(module)
    return tuple(_example(i, *kind) for i in inputs if not i.name), {
        i.name: _example(i, *kind) for i in inputs if i.name
    }


# -- what forward takes


def _fitting(module: nn.Module, given: Example) -> Example:
    """The same; TraceError names an argument of forward that is missing, or one that it does not take."""
    args, kwargs = given
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return given
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        taken = [name for name, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD]
        strange = [name for name in kwargs if name not in taken]
        if strange:
            raise TraceError(
                f"{type(module).__name__} takes no argument '{strange[0]}'; its forward takes {', '.join(taken)}"
            ) from None
        if len(args) > len(taken):
            raise TraceError(
                f"{len(args)} inputs are given by place; the forward of {type(module).__name__} takes "
                f"{', '.join(taken) or 'none'}"
            ) from None
        absent = [*_required(signature)][len(args) :]
        if not [name for name in absent if name not in kwargs]:
            raise TraceError(f"{type(module).__name__} cannot be called with these inputs: {error}") from None
        raise TraceError(_missing(module, args, kwargs)) from None
    return given


def _required(signature: inspect.Signature) -> list[str]:
    sorts = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [n for n, p in signature.parameters.items() if p.kind in sorts and p.default is p.empty]


def _missing(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> str:
    """Which arguments of forward have no example, and how to give them."""
    try:
        required = _required(inspect.signature(module.forward))
    except (TypeError, ValueError):
        required = []
    absent = [name for name in required[len(args) :] if name not in (kwargs or {})]
    what = f"tracing a {type(module).__name__} needs an example of its argument"
    if len(required) < 2:
        return (
            f"{what} '{(absent or ['input'])[0]}': the shape of one input, such as (3, 32, 32) or --input 3x32x32 "
            "(ids:16 for tokens), or example inputs (args=, kwargs=, --inputs FILE)"
        )
    named = ",".join(f"{name}=SHAPE" for name in required)
    return (
        f"{what}{'s' * (len(absent) > 1)} {', '.join(map(repr, absent))}: give --input {named} (shapes without the "
        "batch such as 3x32x32, ids:16 for tokens), or example inputs (args=, kwargs=, --inputs FILE)"
    )


# -- models of the transformers library


def _of_config(module: nn.Module, inputs: Sequence[Input]) -> list[tuple[Example, str | None]]:
    """Calls by the model's signature and config: with everything that it can take, then with its main input alone."""
    takes = inspect.signature(module.forward).parameters
    main = str(module.main_input_name)
    given = {item.name or main: item for item in inputs}
    wanted = [name for name in ("input_ids", "pixel_values", "input_features", "input_values") if name in takes]
    wanted = [name for name in wanted if name == main or _part(module.config, name) is not None]
    wanted += [name for name in _required(inspect.signature(module.forward)) if name not in wanted]
    wanted += [main] * (main not in wanted)
    if getattr(module.config, "is_encoder_decoder", False) and "decoder_input_ids" in takes:
        wanted.append("decoder_input_ids")
    fixed = {"use_cache": False} if "use_cache" in takes else {}
    ways: list[tuple[Example, str | None]] = []
    alone = [name for name in wanted if name in (main, "decoder_input_ids")]
    for names in dict.fromkeys((tuple(dict.fromkeys([*wanted, *given])), tuple(dict.fromkeys([*alone, *given])))):
        made = {name: _by_name(module, name, given.get(name)) for name in names}
        absent = [name for name, value in made.items() if value is None]
        if absent and main in absent and not given:
            return []
        known = {name: value for name, value in made.items() if value is not None}
        left = sorted(set(wanted) - set(known))
        note = f"traced with {', '.join(known)} alone, without {', '.join(left)}" if left else None
        ways.append((((), _fitting(module, ((), known | fixed))[1]), note))
    return ways


def _part(config: Any, name: str) -> Any:
    """The part of a config of several models that an input belongs to; None if there is none."""
    parts = {
        "input_ids": ("text_config",),
        "pixel_values": ("vision_config",),
        "input_features": ("audio_config", "speech_config"),
        "input_values": ("audio_config", "speech_config"),
    }
    return next((getattr(config, p) for p in parts.get(name, ()) if getattr(config, p, None) is not None), None)


def _by_name(module: nn.Module, name: str, item: Input | None) -> Tensor | None:
    """An example of an argument of a transformers model; None if its config does not tell its shape."""
    device, dtype = _kind(module)
    config: Any = _part(module.config, name) or module.config
    tokens = name.endswith("_ids") or (item is not None and item.tokens)
    if tokens and name.endswith(("position_ids", "token_type_ids")) and item is None:
        return torch.zeros(1, TOKENS, dtype=torch.long, device=device)
    if item is not None:
        return _example(Input(item.shape, tokens), device, dtype)
    if tokens:
        return torch.ones(1, TOKENS, dtype=torch.long, device=device)
    shape = _SHAPES[name](config) if name in _SHAPES else None
    if name == "inputs" and getattr(config, "vocab_size", None) and getattr(config, "max_position_embeddings", None):
        return torch.ones(1, config.max_position_embeddings, dtype=torch.long, device=device)
    if name == "bbox":
        return torch.zeros(1, TOKENS, 4, dtype=torch.long, device=device)
    return torch.zeros(1, *shape, device=device, dtype=dtype) if shape is not None else None


def _pixels(config: Any) -> tuple[int, ...]:
    side = getattr(config, "image_size", None) or 224
    height, width = side if isinstance(side, list | tuple) else (side, side)
    frames = getattr(config, "num_frames", None)
    return (*([frames] if frames else []), getattr(config, "num_channels", None) or 3, height, width)


def _features(config: Any) -> tuple[int, ...] | None:
    """Log-mel features: Whisper has (mels, time), others (time, features)."""
    if getattr(config, "num_mel_bins", None) and getattr(config, "max_source_positions", None):
        return config.num_mel_bins, 2 * config.max_source_positions
    for key in ("input_feat_per_channel", "feature_projection_input_dim"):
        if getattr(config, key, None):
            return 32, getattr(config, key)
    return None


def _samples(config: Any) -> tuple[int, ...] | None:
    """Sound: samples for a few frames of a stack of convolutions, or a spectrogram (time, mels)."""
    strides, kernels = getattr(config, "conv_stride", None), getattr(config, "conv_kernel", None)
    if strides and kernels:
        length = _FRAMES
        for stride, kernel in zip(reversed(list(strides)), reversed(list(kernels))):
            length = (length - 1) * stride + kernel
        return (length,)
    if getattr(config, "max_length", None) and getattr(config, "num_mel_bins", None):
        return config.max_length, config.num_mel_bins
    return None


def _series(config: Any) -> tuple[int, ...] | None:
    length, channels = (getattr(config, key, None) for key in ("context_length", "num_input_channels"))
    return (length, channels) if length and channels else None


_SHAPES: dict[str, Any] = {
    "pixel_values": _pixels,
    "pixel_values_videos": _pixels,
    "input_features": _features,
    "input_values": _samples,
    "past_values": _series,
}
