"""Networks by name: every way of saying which network is meant, and the module or the wiring that it stands for.

    resnet20, resnet18:classes=200,stem=tiny, mlp:784-300-100-10     built in (topo.models)
    file.py:factory, package.module:factory                         gives a torch module, or (module, example inputs)
    file.py:factory:width=16,depth=2                                the same, called with arguments
    hf:FOLDER                                                       a folder with a transformers config.json
    shrunk:FILE, shrunk:FILE,model=file.py:factory                  a smaller model that topo shrink wrote
    wiring.json                                                     a wiring saved by Wiring.save (no module behind it)

Wirings of built-in networks and of folders are kept in a cache folder after their first trace, so that torch need not
be loaded again: $TOPO_CACHE_DIR, else $XDG_CACHE_HOME/topo, else ~/.cache/topo. A cache that is broken or cannot be
written is passed over.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from topo._support.names import unknown
from topo._version import __version__
from topo.errors import TopoError, WiringError
from topo.input_spec import Input, Spec, parse_inputs, plain_shape, read_inputs
from topo.models import build as build_named
from topo.models import input_shape as named_shape
from topo.models import names, prunable
from topo.wiring import Wiring
from topo.wiring.maps import Maps

if TYPE_CHECKING:
    from torch import nn

    from topo.masks import MaskSet

# A file may ask for the wiring of a network of about its own size or of a common one, and for no input larger than
# this many numbers.
_LARGEST_INPUT = 1 << 24
_LARGEST_NETWORK = 1 << 28
_LARGEST_DRAWN = 10**9  # parameters of a folder without weights
_OWN = re.compile(r"(?P<head>.+?):(?P<factory>[^\W\d]\w*)(?::(?P<arguments>.*))?")


def parse_input(text: str) -> tuple[int, ...] | tuple[Input, ...]:
    """The input of a network, without the batch, as it is written on the command line: a shape, or several inputs.

    >>> parse_input("3x32x32")
    (3, 32, 32)
    >>> [str(item) for item in parse_input("a=1x8,b=ids:16")]
    ['a=1x8', 'b=ids:16']

    TopoError if `text` is not a valid shape.
    """
    inputs = parse_inputs(text)
    return plain_shape(inputs) or inputs


def build(model: str, seed: int | None = None) -> nn.Module:
    """The torch module that `model` names; a transformers folder gives one on the meta device, without weights.

    seed: draw the weights as after torch.manual_seed(seed), and leave torch's global generator as it was. Masks that
    are scored on a network and the run that trains it draw the same weights from the same seed.

    TopoError, one line, if the name is unknown, a file or function is missing, or a factory fails or gives no module.
    """
    if seed is not None:
        import torch

        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            return build(model)
    head, colon, tail = model.partition(":")
    if head.strip() in names():
        return build_named(model)
    if head == "hf" and colon:
        return _transformer(Path(tail).expanduser(), model)
    if head == "shrunk" and colon:
        return _shrunk(tail)
    own = _OWN.fullmatch(model)
    if own is None:
        raise TopoError(
            f"{unknown('built-in model', model, names())}. Your own are written file.py:factory, "
            "package.module:factory (with arguments: file.py:factory:width=16), hf:FOLDER or shrunk:FILE"
        )
    return _own(own["head"], own["factory"], own["arguments"], model)


def with_weights(model: str) -> nn.Module:
    """The network of `hf:FOLDER` with the folder's own weights, from safetensors files; no code of it is run.

    TopoError, one line, if the folder has no such weights, or not all of the network's.
    """
    folder = Path(model.partition(":")[2]).expanduser()
    kind = type(build(model))
    import transformers

    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    def load() -> Any:
        how = {"local_files_only": True, "use_safetensors": True, "dtype": "auto", "output_loading_info": True}
        return kind.from_pretrained(folder, **how)  # type: ignore[attr-defined]

    try:
        module, told = _run(load, f"'{model}'")
    finally:
        transformers.logging.set_verbosity(level)
    if missing := sorted(told["missing_keys"]):
        raise TopoError(f"'{folder}' has no weights for '{missing[0]}' ({len(missing)} tensors are missing)")
    return module


def ready(model: str, seed: int) -> nn.Module:
    """As `build`, with weights in any case: those of a transformers folder where it has some, else drawn by the seed.

    Those of a folder come in float32 and in training mode. TopoError for a folder with weights of another kind than
    safetensors, and for one of more than a thousand million parameters and no weights: drawing them takes minutes and
    tells nothing.
    """
    head, colon, tail = model.partition(":")
    if head != "hf" or not colon:
        return build(model, seed)
    if _stored(Path(tail).expanduser()):
        return with_weights(model).float().train()
    size = sum(parameter.numel() for parameter in build(model).parameters())
    if size > _LARGEST_DRAWN:
        raise TopoError(
            f"'{model}' has {size:,} parameters and no weights (*.safetensors); they are not drawn at random"
        )
    import torch

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return _transformer(Path(tail).expanduser(), model, "cpu").train()


def drawn_at_random(model: Any) -> tuple[str, ...]:
    """A line on weights that `ready` draws for a transformers folder which has none; nothing for any other model."""
    head, _, tail = str(model).partition(":") if isinstance(model, str | Path) else ("", "", "")
    folder = Path(tail).expanduser()
    return (
        (f"the weights are drawn from the seed: '{folder}' has none",) if head == "hf" and not _stored(folder) else ()
    )


def _stored(folder: Path) -> bool:
    """Whether a folder of transformers holds weights, of any kind."""
    kinds = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.ckpt", "*.index.json", "*.gguf")
    return any(path for kind in kinds for path in folder.glob(kind) if path.name != "training_args.bin")


def find_wiring(
    model: str | Path | Wiring | nn.Module,
    input_shape: Spec | None = None,
    *,
    inputs: str | Path | None = None,
    largest: int | None = None,
) -> Wiring:
    """The wiring of a network: by name, of a torch module, or from a wiring's JSON file; a Wiring is given back.

    input_shape: of one input, or of several, without the batch, as `topo.trace` takes it; built-in networks, most of
    transformers and those whose factory gives example inputs have their own. inputs: a file of example inputs in its
    place (.json, .npz, .pt).
    largest: refuse to trace a built-in network with more parameters in its layers, for names that a stranger chose.

    TopoError if the name is unknown or the file is none; TraceError if the module cannot be traced.
    """
    if isinstance(model, Wiring):
        return model
    if isinstance(model, str | Path) and str(model).endswith(".json"):
        return _saved(Path(model).expanduser())
    if isinstance(model, str | Path) and str(model).partition(":")[0].strip() in names() and inputs is None:
        shape = plain_shape(read_inputs(input_shape)) if input_shape is not None else named_shape(str(model))
        if shape is not None:
            return _built_in(str(model), shape, largest)
    if isinstance(model, str | Path) and str(model).startswith("hf:") and inputs is None:
        return _of_folder(str(model), input_shape)
    from topo.trace import trace
    from topo.trace.inputs import inputs_in

    module = build(str(model)) if isinstance(model, str | Path) else model
    if inputs is not None:
        if input_shape is not None:
            raise TopoError("a shape and a file of example inputs are given; one of them says what the network takes")
        args, kwargs = inputs_in(inputs)
        found = trace(module, args=args, kwargs=kwargs)
    else:
        found = trace(module, input_shape)
    return found.named(str(model)) if isinstance(model, str | Path) else found


def named_in(masks: MaskSet, input_shape: Spec | None = None) -> tuple[Wiring | None, list[str]]:
    """The wiring of the model that masks themselves name (`provenance["model"]`), and what is to be said about that.

    Only built-in names count: a file must not choose code to run, nor how much memory a wiring takes. None where the
    masks name no model, or one that is not built in or that they do not fit.
    """
    model = masks.provenance.get("model")
    if not isinstance(model, str) or not model:
        return None, []
    numbers = [int(number) for number in re.findall(r"\d{1,12}", model)]
    fitting = max(numbers, default=0) <= max(masks.size, 1000) and len(numbers) <= len(masks) + 8
    if model.partition(":")[0] not in names() or not fitting:
        return None, [f"the file names the model '{model}', no built-in one of its size; give --model to use it"]
    try:
        default = named_shape(model)  # also sees to it that this is a built-in name with options it takes
        shape = input_shape or _told_shape(masks.provenance.get("input_shape")) or default
        wiring = find_wiring(model, shape, largest=max(8 * masks.size, _LARGEST_NETWORK))
        wiring.check(masks)
    except TopoError as error:
        return None, [f"the file names the model '{model}', but: {error}"]
    return wiring, [f"the file itself names the model {model}"]


def _told_shape(value: Any) -> tuple[int, ...] | None:
    if not value:
        return None
    try:
        shape = tuple(int(n) for n in (parse_input(value) if isinstance(value, str) else value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        shape = (0,)
    if min(shape, default=0) < 1 or math.prod(shape) > _LARGEST_INPUT:
        raise TopoError(f"its input_shape {value} is not a size of an input; give --input")
    return shape


MASKED_KINDS = ("linear", "conv")


def maskable(wiring: Wiring, layers: str | Sequence[str] | None = None) -> dict[str, tuple[int, ...]]:
    """Name and mask shape of the layers that every method masks, in the wiring's order.

    They are the linear layers and convolutions; or those that `layers` names, by name or pattern (`"blocks.*"`),
    embeddings included. TopoError if there is none, or if a name or pattern is none of the wiring's layers.
    """
    if layers is None:
        shapes = {name: shape for name, shape in wiring.shapes.items() if wiring.layer(name).kind in MASKED_KINDS}
        if not shapes:
            raise TopoError(f"the network {wiring.model or ''} has no linear layer and no convolution to mask")
        return shapes
    chosen = set(matching(layers, wiring.names))
    return {name: shape for name, shape in wiring.shapes.items() if name in chosen}


def left_unmasked(wiring: Wiring) -> list[str]:
    """A line on the weights of the model that no method masks, since no output of the traced way depends on them."""
    if not wiring.unused:
        return []
    named = ", ".join(f"'{name}'" for name in wiring.unused[:3]) + (", ..." if len(wiring.unused) > 3 else "")
    return [f"not masked, since no output depends on them on the way that was traced: {named}"]


def matching(layers: str | Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of `names` that are named by `layers` or match a pattern in it; TopoError if one stands for none.

    >>> matching(["a.*", "c"], ["a.x", "b", "c"])
    ['a.x', 'c']
    """
    patterns = [layers] if isinstance(layers, str) else list(layers)
    if not patterns:
        raise TopoError("layers names no layer; leave it out for all linear layers and convolutions")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise TopoError(unknown("layer", pattern, names))
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


# -- built in, with a cache


def _built_in(name: str, input_shape: tuple[int, ...], largest: int | None) -> Wiring:
    path = _cache_path(name, input_shape)
    if path is not None:
        try:
            wiring = Wiring.load(path)
        except (OSError, ValueError, TopoError):
            pass
        else:
            if wiring.model == name and wiring.input_shape == input_shape:
                return replace(wiring, maps=cache(partial(_maps, name, input_shape)))
    import torch

    from topo.trace import trace

    with torch.device("meta"):
        module = build_named(name)
    size = sum(map(math.prod, prunable(module).values()))
    if largest is not None and size > largest:
        raise TopoError(f"'{name}' has {size:,} parameters; up to {largest:,} are looked at")
    wiring = trace(module, input_shape).named(name)
    _keep(wiring, path)
    return wiring


def _maps(name: str, input_shape: tuple[int, ...]) -> Maps:
    """The maps of a built-in network whose wiring was kept."""
    import torch

    from topo.trace import trace_maps

    with torch.device("meta"):
        module = build_named(name)
    return trace_maps(module, input_shape)


def _of_folder(model: str, input_shape: Spec | None) -> Wiring:
    """The wiring of a transformers folder, kept under a digest of its config.json: neither torch nor transformers need
    be loaded again, which together take more memory than the bits of a model of a thousand million parameters."""
    from topo.models.config_json import check_config

    config = Path(model.removeprefix("hf:")).expanduser() / "config.json"
    path = None
    if config.is_file():
        check_config(config, model)
        said = hashlib.sha256(config.read_bytes()).hexdigest()
        path = _cache_path(f"hf:{said}:{_installed('transformers')}:{_installed('torch')}", input_shape)
    if path is not None:
        try:
            return Wiring.load(path).named(model)
        except (OSError, ValueError, TopoError):
            pass
    from topo.trace import trace

    wiring = trace(build(model), input_shape).named(model)
    _keep(wiring, path)
    return wiring


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _keep(wiring: Wiring, path: Path | None) -> None:
    """Save a wiring in the cache; a cache that cannot be written is passed over."""
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            wiring.save(path)
        except (OSError, TopoError):
            pass


def _cache_path(name: str, input_shape: Spec | None) -> Path | None:
    """Where the wiring is kept: under a digest of its name, its input shape and the code that makes it."""
    try:
        folder = Path(os.environ.get("TOPO_CACHE_DIR") or _user_cache())
        digest = hashlib.sha256(repr((name, input_shape, __version__)).encode())
        here = Path(__file__).parent
        for source in sorted([*here.glob("wiring/*.py"), *here.glob("trace/*.py"), *here.glob("models/**/*.py")]):
            digest.update(source.read_bytes())
    except (OSError, RuntimeError):  # no home folder, or the code is not in plain files
        return None
    return folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)[:40]}-{digest.hexdigest()[:24]}.json"


def _user_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "topo"


def _saved(path: Path) -> Wiring:
    try:
        return Wiring.load(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise TopoError(f"cannot read the wiring '{path}': {reason}") from None
    except WiringError as error:
        said = str(error)
        raise WiringError(said if str(path) in said else f"'{path}': {said}") from None


# -- a user's own


def _own(head: str, factory: str, arguments: str | None, model: str) -> nn.Module:
    """What the factory of a Python file or module gives. A file may import its neighbours."""
    from torch import nn

    from topo.trace.inputs import own_inputs

    path = Path(head).expanduser() if head.endswith(".py") else None
    with _importing_from(path.parent.resolve()) if path is not None else nullcontext():
        module = _file(path) if path is not None else _module(head)
        make = getattr(module, factory, None)
        if not callable(make):
            own = [key for key, thing in vars(module).items() if callable(thing) and not key.startswith("_")]
            raise TopoError(f"'{model}' names no function '{factory}'; the module has: {', '.join(own) or 'none'}")
        given = _arguments(arguments or "", model)
        if isinstance(make, nn.Module):
            if given:
                raise TopoError(f"'{model}' names a module that is there already, which takes no arguments")
            made = make
        else:
            _check_arguments(make, given, model)
            made = _run(partial(make, **given), f"the factory '{model}'")
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        made, inputs = made
        _run(lambda: own_inputs(inputs), f"what the factory '{model}' gives beside its module")
        made.topo_inputs = inputs  # type: ignore[assignment]
    if not isinstance(made, nn.Module):
        raise TopoError(
            f"the factory '{model}' gave a {type(made).__name__}; it should give a torch.nn.Module, "
            "or (module, example inputs)"
        )
    return made


def _arguments(text: str, model: str) -> dict[str, Any]:
    """The arguments of a factory, written width=16,act=relu; numbers, True, False, None and brackets are Python's."""
    given: dict[str, Any] = {}
    for item in re.split(r",(?![^\[(]*[\])])", text) if text else ():
        key, sign, value = (part.strip() for part in item.partition("="))
        if not sign or not key.isidentifier():
            raise TopoError(f"'{model}': '{item.strip()}' is not a valid argument; write name=value, such as width=16")
        if key in given:
            raise TopoError(f"'{model}' has '{key}' twice; an argument is given once")
        try:
            given[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            given[key] = value
    return given


def _check_arguments(make: Callable[..., Any], given: dict[str, Any], model: str) -> None:
    """TopoError that names an argument of the factory which is missing, or one that it does not take."""
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):
        return
    taken = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [name for name in taken if parameters[name].default is inspect.Parameter.empty]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in given:
            if name not in taken:
                raise TopoError(
                    f"the factory '{model}' takes no argument '{name}'; it takes {', '.join(taken) or 'none'}"
                )
    absent = [name for name in needed if name not in given]
    if absent:
        plain = model if not given else model.rpartition(":")[0]
        written = ",".join([*(f"{n}={v}" for n, v in given.items()), *(f"{name}=VALUE" for name in absent)])
        raise TopoError(
            f"the factory '{model}' needs its argument{'s' * (len(absent) > 1)} {', '.join(map(repr, absent))}: "
            f"write {plain}:{written}"
        )


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def _file(path: Path) -> ModuleType:
    """The module in a Python file, under a name of its own (torch.py would hide torch)."""
    if not path.is_file():
        raise TopoError(f"there is no file '{path}'; a model of your own is written file.py:factory")
    name = f"_network_in_{path.stem}"
    loader = SourceFileLoader(name, str(path))
    module = ModuleType(name)
    module.__file__, module.__loader__ = str(path), loader
    sys.modules[name] = module  # dataclasses look their module up
    _run(lambda: loader.exec_module(module), f"'{path}'")
    return module


def _module(name: str) -> ModuleType:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise TopoError(f"there is no Python module '{name}', and no built-in model of that name: {', '.join(names())}")
    return _run(lambda: importlib.import_module(name), f"module '{name}'")


def _run(function: Callable[[], Any], what: str) -> Any:
    """Call the user's code; what it raises becomes one line."""
    try:
        return function()
    except TopoError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        said = (str(error).strip().splitlines() or [""])[0]
        raise TopoError(f"{what} raised {type(error).__name__}: {said}") from error


def _shrunk(text: str) -> nn.Module:
    """The model of a file of topo shrink: the one that it was cut from, cut as its map says, with the file's tensors.

    A file must not choose code to run: one that is not built in the user names, `shrunk:FILE,model=file.py:factory`.
    """
    from topo.shrinking import stored

    path, _, named = text.partition(",model=")
    model, document, state = stored.read(path)
    if not named and model.partition(":")[0] not in names():
        raise TopoError(
            f"'{path}' was cut from '{model}', which is not built in; to run it write shrunk:{path},model={model}"
        )
    module = build(named or model)
    stored.apply_map(module, document)
    stored.given(module, state, path)
    return module


def _transformer(folder: Path, model: str, device: str = "meta") -> nn.Module:
    """The network of a config.json, by its `architectures`; no code of the folder is run."""
    if not (folder / "config.json").is_file():
        raise TopoError(f"'{model}' should name a folder with a config.json; there is none in '{folder}'")
    from topo.models.config_json import bounded, check_config

    check_config(folder / "config.json", model)
    try:
        import transformers
    except ImportError:
        raise TopoError(f"'{model}' needs the package transformers, which is not installed") from None
    import torch

    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        # Left open, trust_remote_code asks on the terminal whether to run Python files of the folder.
        read = partial(transformers.AutoConfig.from_pretrained, local_files_only=True, trust_remote_code=False)
        with bounded(model):
            config = _run(lambda: read(folder), f"'{model}'")
        named = (getattr(config, "architectures", None) or [""])[0]
        make: Any = partial(transformers.AutoModel.from_config, trust_remote_code=False)
        if named:
            make = getattr(transformers, str(named), None)
            if not (isinstance(make, type) and issubclass(make, transformers.PreTrainedModel)):
                raise TopoError(f"'{model}' has architecture '{named}', which the installed transformers does not know")
        with torch.device(device), bounded(model):
            return _run(lambda: make(config), f"'{model}'")
    finally:
        transformers.logging.set_verbosity(level)
