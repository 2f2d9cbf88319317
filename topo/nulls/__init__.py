"""Null models: masks drawn at random that keep one part of what given masks hold, and numbers held against them."""

from topo.nulls.models import Null, asked, null, nulls, seeds
from topo.nulls.score import Score, score

__all__ = ["Null", "Score", "asked", "null", "nulls", "score", "seeds"]
