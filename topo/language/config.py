"""What the config.json of a model's folder says: sizes of attention, and which sparsity it claims to have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topo.errors import FormatError

_LARGEST = 25_000_000
# Architectures whose weights in blocks are stored (in, out), as `transformers.pytorch_utils.Conv1D` has them.
_INPUT_FIRST = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "ctrl"})
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
_HIDDEN = ("hidden_size", "n_embd", "d_model")


@dataclass(frozen=True)
class Config:
    """Sizes and claims of a config.json; a size that it does not hold is None.

    kind: its model_type. value_dim: of the values of a head, where its keys have another (DeepSeek). grouped: Falcon's
    way to lay query, key and value out, one group behind the other. claim: the `sparsity_config`, {} where there is
    none.
    """

    kind: str = ""
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    value_dim: int | None = None
    hidden: int | None = None
    grouped: bool = False
    claim: Mapping[str, Any] = field(default_factory=dict)

    @property
    def input_first(self) -> bool:
        """Whether linear layers of the blocks are stored (in, out)."""
        return self.kind in _INPUT_FIRST


def read_config(folder: str | Path) -> Config | None:
    """What a folder's config.json says; None where there is none. No code of the folder is run.

    Raises FormatError for a config.json that is not a JSON object.
    """
    path = Path(folder) / "config.json"
    if not Path(folder).is_dir() or not path.is_file():
        return None
    try:
        if path.stat().st_size > _LARGEST:
            raise FormatError(f"'{path}' is larger than the {_LARGEST:,} bytes that are read")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"'{path}' is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise FormatError(f"'{path}' holds a {type(document).__name__}; a config.json holds an object")
    text = document.get("text_config")
    about = {**document, **text} if isinstance(text, dict) else document
    heads, hidden = _size(about, _HEADS), _size(about, _HIDDEN)
    kind = str(about.get("model_type") or "")
    return Config(
        kind=kind,
        heads=heads,
        kv_heads=_kv_heads(about, kind, heads),
        head_dim=_size(about, ("head_dim", "kv_channels")),
        value_dim=_size(about, ("v_head_dim",)),
        hidden=hidden,
        grouped=kind == "falcon" and about.get("new_decoder_architecture") is True,
        claim=_claim(document),
    )


def _size(about: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = about.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31:
            return value
    return None


def _kv_heads(about: Mapping[str, Any], kind: str, heads: int | None) -> int | None:
    if kind == "falcon":
        if about.get("new_decoder_architecture") is True:
            return _size(about, _KV_HEADS) or heads
        return 1 if about.get("multi_query", True) else heads
    if about.get("multi_query") is True:
        return 1
    return _size(about, _KV_HEADS) or heads


def _claim(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The sparsity_config, wherever llm-compressor and SparseML put it."""
    for key in ("quantization_config", "compression_config"):
        inner = document.get(key)
        if isinstance(inner, dict) and isinstance(inner.get("sparsity_config"), dict):
            return dict(inner["sparsity_config"])
    claim = document.get("sparsity_config")
    return dict(claim) if isinstance(claim, dict) else {}
