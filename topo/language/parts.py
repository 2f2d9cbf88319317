"""Which part of a language model a parameter belongs to, by its name: a linear layer of the decoder's blocks, an
embedding, the head, or another."""

from __future__ import annotations

import re
from collections.abc import Iterable

from topo.formats.names import is_embedding
from topo.report.groups import place_of

DECODER, EMBEDDING, HEAD, OTHER = "decoder", "embedding", "head", "other"

_HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output|head|score|classifier|prediction_head)(?:\.weight)?$")
_TABLE = re.compile(r"relative_attention_bias|position_bias|(?:^|\.)shared(?:\.weight)?$")
# Who writes into the residual stream; every other linear layer of a block reads from it, or stands between the two.
_WRITERS = frozenset("o_proj out_proj out_lin down_proj dense_4h_to_h fc2 fc_out c_proj dense w2 wo o".split())


def part_of(name: str) -> str:
    """decoder, embedding, head or other.

    >>> [part_of(name) for name in ("model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight", "lm_head.weight")]
    ['decoder', 'embedding', 'head']
    """
    if _HEAD.search(name) and place_of(name) is None:
        return HEAD
    if is_embedding(name) or _TABLE.search(name):
        return EMBEDDING
    return DECODER if place_of(name) is not None else OTHER


def writes(path: str) -> bool:
    """Whether the layer under this path in a block writes into the residual stream.

    >>> writes("self_attn.o_proj"), writes("intermediate.dense"), writes("mlp.gate_proj")
    (True, False, False)
    """
    return path.rpartition(".")[2] in _WRITERS and not path.endswith("intermediate.dense")


def decoder_layers(names: Iterable[str]) -> list[str]:
    """Those of the names that are linear layers of the decoder's blocks."""
    return [name for name in names if part_of(name) == DECODER]
