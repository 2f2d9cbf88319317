"""Pruned language models: their tensors counted in one pass, scopes, blocks, projections, and what in them is dead."""

from topo.language.adapter import Adapter, Filled, merged, read_adapter
from topo.language.config import Config, read_config
from topo.language.parts import DECODER, EMBEDDING, HEAD, OTHER, part_of
from topo.language.survey import PATTERNS, Scope, Survey, output_first, survey

__all__ = [
    "DECODER",
    "EMBEDDING",
    "HEAD",
    "OTHER",
    "PATTERNS",
    "Adapter",
    "Config",
    "Filled",
    "Scope",
    "Survey",
    "merged",
    "output_first",
    "part_of",
    "read_adapter",
    "read_config",
    "survey",
]
