"""TorchScript archives: the parameters of the module, by the names that its state dict would have; its code is not
read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from topo.containers.container import Container, File, container
from topo.containers.pickle_machine import Admitted, Unfinished, corrupt, resolved
from topo.containers.rebuild import Allowance, admitted
from topo.containers.tensors import Tensor
from topo.containers.torch_file import machine_of, pickle_in


def _recognise(file: File) -> str | None:
    if not file.is_zip:
        return "it is not a zip archive"
    if not pickle_in(file) or not pickle_in(file, "constants.pkl"):
        return "it holds no 'data.pkl' beside 'constants.pkl'"
    return None


class _ScriptObject(Unfinished):
    """An object of a compiled class, which is the dict of its attributes."""

    def __init__(self) -> None:
        self.state: Any = None

    def build(self, state: Any) -> None:
        if self.state is not None:
            raise corrupt("a module that is filled twice")
        self.state = state

    def finish(self, resolve: Callable[[Any], Any]) -> Any:
        return resolve(self.state)


class _Table(dict[tuple[str, str], Admitted]):
    """The names of the fixed list, those of TorchScript's own lists, and every compiled class."""

    def __init__(self, names: dict[tuple[str, str], Admitted]) -> None:
        super().__init__(names)
        for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"):
            self["torch.jit._pickle", name] = Admitted(f"torch.jit._pickle.{name}", lambda values: values)
        self["torch.jit._pickle", "restore_type_tag"] = Admitted("restore_type_tag", lambda value, kind: value)

    def get(self, key: Any, default: Any = None) -> Any:
        module, name = key
        if module.startswith("__torch__"):
            return Admitted(f"{module}.{name}", new=_ScriptObject)
        return super().get(key, default)


@container("torchscript", "a TorchScript archive: the module's parameters", recognise=_recognise, before="torch")
def open_script(file: File) -> Container:
    """Parameters and buffers by name; constants, where a frozen module has its weights, by their number."""
    allowance, notes = Allowance(len(file.data)), list[str]()

    def read(pickle: str, storages_in: str) -> Any:
        machine = machine_of(file, pickle, storages_in, _Table(admitted(allowance)))
        content, said = resolved(machine, machine.run(), allowance.spend)
        notes.extend(said)
        return content

    content = dict(_named("", read(pickle_in(file) or "", "data/")))
    constants = dict(_named("CONSTANTS", read(pickle_in(file, "constants.pkl") or "", "constants/")))
    if any(tensor.ndim >= 2 for tensor in constants.values()):
        notes.append(f"{len(constants)} constants without a parameter's name; a frozen module keeps its weights there")
        content |= constants
    return Container("torchscript", content, notes=tuple(notes))


def _named(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors in dicts and lists by the keys that lead to them, with dots between."""
    if isinstance(value, Tensor):
        yield name, value
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, entry in entries:
        yield from _named(f"{name}.{key}" if name else str(key), entry)
