"""The pruned weights on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from topo._support.atomic import replacing
from topo.errors import TopoError


def write_weights(module: Any, path: Path, folder: bool) -> None:
    """A transformers folder (config.json and safetensors), or a state dict as .safetensors or .pt.

    TopoError if it cannot be written.
    """
    try:
        if folder:
            module.save_pretrained(path)
            return
        state = {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}
        with replacing(path) as temporary:
            if path.suffix == ".pt":
                with open(temporary, "wb") as file:  # a full disk is an OSError then
                    torch.save(state, file)
            else:
                from safetensors.torch import save_file

                save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary)
    except OSError as error:
        raise TopoError(f"'{path}' cannot be written: {error}") from None
