"""torch.export archives (.pt2): parameters, buffers and constants by name; the program is not read."""

from __future__ import annotations

import json
from typing import Any

from topo.containers.container import Container, File, container
from topo.containers.opening import take_apart
from topo.containers.rebuild import Allowance, Storage, TorchTensor
from topo.containers.safetensors import without_repeats
from topo.containers.torch_file import pickle_in
from topo.containers.unpacking import unpacked
from topo.containers.zip import open_member, stored_span
from topo.errors import FormatError

_CONFIGS = {"weights": "model_weights_config.json", "constants": "model_constants_config.json"}
_OLD = "serialized_state_dict.pt"
_LARGEST_CONFIG = 25_000_000
# torch._export.serde.schema.ScalarType
_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn",
    30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz",
}  # fmt: skip


def _recognise(file: File) -> str | None:
    if not file.is_zip:
        return "it is not a zip archive"
    if pickle_in(file, _CONFIGS["weights"]) or pickle_in(file, _OLD):
        return None
    return f"it holds neither '{_CONFIGS['weights']}' nor '{_OLD}'"


@container("torch_export", "torch.export.save: the program's parameters", recognise=_recognise, before="torchscript")
def open_export(file: File) -> Container:
    """Parameters and buffers by name, and constants."""
    entries = {entry.filename: entry for entry in file.entries}
    if old := pickle_in(file, _OLD):
        with open_member(file.archive, entries[old]) as stream:
            return take_apart(file.part(_OLD, unpacked(stream, entries[old].compress_size)))
    allowance = Allowance(len(file.data))
    content: dict[str, Any] = {}
    for folder, name in _CONFIGS.items():
        place = pickle_in(file, name)
        for key, entry in _config(file, place).items() if place else ():
            where = entry.get("path_name") if isinstance(entry, dict) else None
            home = f"{(place or '').removesuffix(name)}{where}"
            if not isinstance(where, str) or home not in entries:
                raise FormatError(f"it is truncated: the values of '{key}' are missing")
            if entry.get("use_pickle"):
                raise FormatError(f"its '{key}' is pickled with its class; export the program with plain parameters")
            if entry.get("tensor_meta") is not None or folder == "weights":
                start, stop = stored_span(file.data, entries[home])
                content[key] = _tensor(key, entry.get("tensor_meta"), memoryview(file.data)[start:stop], allowance)
    return Container("torch_export", content)


def _config(file: File, name: str) -> dict[str, Any]:
    entry = next(entry for entry in file.entries if entry.filename == name)
    if entry.file_size > _LARGEST_CONFIG:
        raise FormatError(f"its '{name}' of {entry.file_size:,} bytes is larger than the {_LARGEST_CONFIG:,} read")
    with open_member(file.archive, entry) as stream:
        try:
            document = json.loads(stream.read(_LARGEST_CONFIG), object_pairs_hook=without_repeats)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"its '{name}' is not JSON: {error}") from None
    found = document.get("config") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise FormatError(f"its '{name}' has no 'config'")
    return found


def _tensor(key: str, meta: Any, data: memoryview, allowance: Allowance) -> Any:
    try:
        dtype = _DTYPES[meta["dtype"]]
        sizes, strides = ([number["as_int"] for number in meta[word]] for word in ("sizes", "strides"))
        offset = meta["storage_offset"]["as_int"]
    except (KeyError, TypeError):
        raise FormatError(f"its '{key}' is described as {str(meta)[:200]}") from None
    return TorchTensor(allowance, Storage(dtype, data), offset, sizes, strides).finish(lambda part: part)
