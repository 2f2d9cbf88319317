"""Pruned language models: their tensors counted in one pass, scopes, blocks, projections, and what in them is dead."""

from topo.language.config import Config, read_config
from topo.language.parts import DECODER, EMBEDDING, HEAD, OTHER, part_of
from topo.language.survey import PATTERNS, Scope, Survey, survey

__all__ = [
    "DECODER",
    "EMBEDDING",
    "HEAD",
    "OTHER",
    "PATTERNS",
    "Config",
    "Scope",
    "Survey",
    "part_of",
    "read_config",
    "survey",
]
