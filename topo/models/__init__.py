"""The networks of the papers, in plain torch, each under a name with options.

    resnet20                          a name
    resnet18:classes=200,stem=tiny    a name and its options, key=value, in any order
    mlp:784-300-100-10                sizes stand alone

Names, options and input shapes are known without torch; only `build` and `prunable` load it. Adding a network is one
function under `@model(...)` in a file of this folder: its arguments are the options, its docstring the description, and
its body imports the torch module from `topo.models.nets`.

Weights start as the lottery-ticket and SynFlow repositories start theirs: Kaiming normal (He et al. 2015), that is
N(0, 2 / fan_in), with zero biases and batch norms at scale 1 and shift 0. torch's global generator draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from topo._support.doors import called, check_function, check_text, summary
from topo._support.registry import Registry
from topo.errors import TopoError
from topo.models.options import STEMS, Choice, Count, Option, Sizes

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Model", "build", "input_shape", "model", "models", "names", "prunable"]


@dataclass(frozen=True)
class Model:
    """A network by name: its maker, its options, where it was published, and the shape of one input without the batch.

    shape is None where the options `stem` or `sizes` decide it.
    """

    name: str
    make: Callable[..., nn.Module]
    source: str
    options: Mapping[str, Option]
    shape: tuple[int, ...] | None = None

    @property
    def description(self) -> str:
        """One line: what the network is, and where it comes from."""
        title = (summary(self.make) or self.name).rstrip(".")
        return f"{title} ({self.source})"

    @property
    def usage(self) -> str:
        """The options and what each may hold, as one writes them: 'classes=COUNT, stem=imagenet|tiny|cifar'."""
        return ", ".join(
            option.usage if isinstance(option, Sizes) else f"{key}={option.usage}"
            for key, option in self.options.items()
        )

    def read(self, text: str = "") -> dict[str, Any]:
        """The value of every option: those in `text` ('classes=200,stem=tiny'), and defaults for the rest.

        TopoError that names the option, what it holds and what it may hold.
        """
        given: dict[str, Any] = {}
        for item in text.split(",") if text else ():
            key, sign, value = (part.strip() for part in item.partition("="))
            if not sign and "sizes" in self.options:
                key, value = "sizes", key
            elif not sign or key not in self.options:
                raise TopoError(f"model '{self.name}' has no option '{item.strip()}'; it takes {self.usage}")
            if key in given:
                raise TopoError(f"model '{self.name}' has '{key}' twice; an option is given once")
            given[key] = self.options[key].read(value)
            if given[key] is None:
                raise TopoError(f"model '{self.name}' has {key}='{value}'; {key} is {self.options[key].allowed}")
        values = {key: option.default for key, option in self.options.items()} | given
        if "stem" in values and "classes" not in given:
            values["classes"] = STEMS[values["stem"]].classes
        return values

    def input_shape(self, text: str = "") -> tuple[int, ...]:
        """Shape of one input, without the batch, under these options."""
        values = self.read(text)
        if self.shape is not None:
            return self.shape
        return (values["sizes"][0],) if "sizes" in values else STEMS[values["stem"]].shape


models = Registry("model", __name__)


def model(source: str, *, shape: tuple[int, ...] | None = None, **options: Option) -> Callable[[Any], Any]:
    """Decorator: enter a function of these options, which makes a torch module, under its own name.

    source: where the network was published. shape: of one input, without the batch. A network with the option `stem`
    has its input shape and its default of `classes` from `STEMS`, and needs neither here.
    """

    def enter(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        plugin = f"model '{getattr(make, '__name__', make)}'"
        check_text(plugin, source=source)
        if odd := [key for key, option in options.items() if not isinstance(option, Option)]:
            raise TopoError(f"{plugin} has {odd[0]}={options[odd[0]]!r}; an option is a Count, a Choice or Sizes")
        counts = isinstance(shape, tuple) and all(isinstance(n, int) and n > 0 for n in shape)
        if not (counts or (shape is None and options.keys() & {"stem", "sizes"})):
            raise TopoError(f"{plugin} has shape={shape!r}; it is the shape of one input, such as (3, 32, 32)")
        stem = options.get("stem")
        known = {"classes": Count(STEMS[stem.default].classes), **options} if isinstance(stem, Choice) else options
        check_function(plugin, make, "*, " + ", ".join(known))
        models.add(make.__name__)(Model(make.__name__, make, source, MappingProxyType(known), shape))
        return make

    return enter


def names() -> tuple[str, ...]:
    """The names of the built-in networks."""
    return tuple(models)


def _split(spec: str) -> tuple[Model, str]:
    name, _, text = spec.partition(":")
    return models[name.strip()], text


def input_shape(spec: str) -> tuple[int, ...]:
    """Shape of one input of the network `spec`, without the batch; the network itself is not built.

    >>> input_shape("resnet18:stem=tiny")
    (3, 64, 64)

    TopoError if `spec` names no network, or holds an option that its network does not take.
    """
    entry, text = _split(spec)
    return entry.input_shape(text)


def build(spec: str) -> nn.Module:
    """The network `spec` with fresh weights, in training mode; under `torch.device("meta")`, without memory for them.

    It carries its name and its input shape (`topo_name`, `topo_inputs`), so that `topo.trace(build("resnet20"))` needs
    no shape.

    TopoError if `spec` names no network, or holds an option that its network does not take.
    """
    entry, text = _split(spec)
    values = entry.read(text)
    from torch import nn

    from topo.models.nets.initial import kaiming_normal

    network = called(f"model '{entry.name}'", "", entry.make, **values)
    if not isinstance(network, nn.Module):
        raise TopoError(f"model '{entry.name}' makes {type(network).__name__}; it makes a torch module")
    network = kaiming_normal(network)
    network.topo_name, network.topo_inputs = spec.strip(), entry.input_shape(text)  # type: ignore[assignment]
    network.topo_shapes = sorted(tuple(p.shape) for p in network.parameters())  # type: ignore[assignment]
    return network


def prunable(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of each weight of a linear layer or convolution, in the module's order: masked by default."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    from topo.models.modules.calling import require_shapes

    require_shapes(module)
    return {
        f"{name}.weight" if name else "weight": tuple(part.weight.shape)
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | _ConvNd)
    }
