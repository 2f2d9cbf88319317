"""The folder of a run: what is written there and how it is read back.

config.toml        what was asked for: [run] and [recipe]; a run is resumed only under the same
environment.json   versions and device
metrics.jsonl      an object per epoch; curves.csv the same as a table
checkpoint.pt      the last finished epoch, loads with torch.load(weights_only=True)
final.safetensors  the weights whose accuracy is reported, by name: averaged ones if asked for, zeros in place
best.safetensors   those of the best epoch, where there is a validation part to choose it on
masks.safetensors  the masks, if there are any; where they move, those at the end
masks/             where they move, epoch_0000.safetensors, ...: those after the recipe's mask_epochs
summary.json       final and best accuracy, written when the run is done
"""

from __future__ import annotations

import json
import os
import platform
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from topo._support.atomic import PREFIX, made_folder, replacing, write_text
from topo._support.text_files import read_text, tables_of
from topo._version import __version__
from topo.containers.safetensors import steady
from topo.errors import TopoError, TrainingError
from topo.files import write_masks
from topo.masks import MaskSet

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

SCHEMA = "topo-run/2"
_CONTENT = {"images", "labels", "content", "structure"}  # keys of config.toml that hold hashes


def _toml(config: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables as `tomllib` reads them back; what is None has no line."""
    return tomli_w.dumps({name: {k: v for k, v in table.items() if v is not None} for name, table in config.items()})


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and device: what a figure in a paper should say of its run."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "topo": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda if gpu else None,
        "device": str(device),
        "device_name": gpu or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "platform": platform.platform(),
    }


class Folder:
    """One run folder; made if it is not there. TopoError if it cannot be written."""

    def __init__(self, path: str | Path) -> None:
        self.path = made_folder(path, "the run folder")

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it this process alone writes here; TrainingError if another one does.

        The lock is on the folder itself and goes with the process, however that ends. What a killed process left
        half-written is removed. Filesystems without locks go without.
        """
        if fcntl is None:
            yield
            return
        opened = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TrainingError(
                    f"another process is writing the run in '{self.path}'; wait for it, or choose another folder"
                ) from None
            except OSError:  # some network filesystems
                pass
            else:
                for left in self.path.glob(f"{PREFIX}*"):
                    left.unlink(missing_ok=True)
            yield
        finally:
            os.close(opened)

    @property
    def started(self) -> bool:
        """Whether a run was begun here."""
        return (self / "checkpoint.pt").exists() or (self / "config.toml").exists()

    def check(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        """TrainingError that names the first thing in which this folder's run was started otherwise."""
        path = self / "config.toml"
        try:
            known = tables_of(read_text(path, "configuration"), f"'{path}'")
        except (TopoError, ValueError) as error:
            raise TrainingError(f"'{path}' cannot be read, so the run cannot be resumed: {error}") from None
        requested = tomllib.loads(_toml(config))
        for table in requested:
            there = known.get(table, {})
            for key in dict.fromkeys([*requested[table], *there]):
                if requested[table].get(key) != there.get(key):
                    if key in _CONTENT and key in there:
                        what = "a module of another structure" if key == "structure" else f"other data ({key})"
                        raise TrainingError(
                            f"'{self.path}' holds a run on {what}, by its hash in config.toml: it is resumed as it was "
                            "started, or started in another folder"
                        )
                    raise TrainingError(
                        f"'{self.path}' holds a run with {table}.{key} = {there.get(key)!r}, not "
                        f"{requested[table].get(key)!r}: it is resumed as it was started, or started in another folder"
                    )

    def write_config(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        """config.toml: what was asked for."""
        write_text(self / "config.toml", _toml(config))

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """A JSON document under this name."""
        write_text(self / name, json.dumps(document, indent=2) + "\n")

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Both tables anew, whole: a run that was killed between two files never leaves a line twice."""
        write_text(self / "metrics.jsonl", "".join(json.dumps(dict(row)) + "\n" for row in history))
        columns = list(history[0]) if history else []
        lines = [",".join(columns), *(",".join(_cell(row[name]) for name in columns) for row in history)]
        write_text(self / "curves.csv", "\n".join(lines) + "\n")

    def write_checkpoint(self, state: Mapping[str, Any], name: str = "checkpoint.pt") -> None:
        """Tensors, numbers and texts, whole or not at all."""
        # Into a file, not to its name: torch writes the name into the file, and a full disk would be a RuntimeError.
        with replacing(self / name) as temporary, open(temporary, "wb") as file:
            torch.save(dict(state), file)

    def write_weights(self, state: Mapping[str, torch.Tensor], name: str) -> None:
        """A state dict as safetensors, whole or not at all."""
        with replacing(self / name) as temporary:
            try:
                save_file(dict(state), temporary, {"format": "pt", "created_by": f"topo {__version__}"})
            except SafetensorError as error:  # a full disk
                raise TrainingError(f"cannot write '{self / name}': {error}") from None
            steady(temporary)

    def write_moved(self, masks: MaskSet, epoch: int) -> None:
        """The masks after an epoch, where they move."""
        Folder(self / "masks")
        write_masks(masks, self / "masks" / f"epoch_{epoch:04d}.safetensors")

    def read_checkpoint(self, name: str = "checkpoint.pt") -> dict[str, Any]:
        """TrainingError if it is not there or broken."""
        path = self / name
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise TrainingError(f"there is no '{path}' to go on from") from None
        except Exception as error:  # torch lets out whatever its readers meet
            said = str(error).strip().partition("\n")[0]
            raise TrainingError(f"'{path}' is not a checkpoint that can be read: {said}") from None
        if not isinstance(state, dict) or state.get("schema") != SCHEMA:
            raise TrainingError(f"'{path}' is not a checkpoint of topo train")
        return state


def _cell(value: Any) -> str:
    return "" if value is None else repr(value)
