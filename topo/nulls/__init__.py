"""Null models: masks drawn at random that keep one part of what given masks hold, and are named by that part.

    same_total < same_layers < same_rows    < same_degrees
                 same_layers < same_columns < same_degrees
                               same_rows    < same_kernels
                                              same_degrees < same_effective
                               same_kernels, same_degrees  < same_kernels_degrees

a < b: b keeps strictly more. `relabelled`, the last, changes nothing but the numbering of hidden units: a number that
it changes is not a property of the graph.

A number of masks is compared with the same number of such samples (`score`): where its rank among them is not an
extreme one (p >= 0.05, both tails), what the null keeps is enough to explain it.
"""

from topo.nulls.models import Null, null, nulls, requested, seeds
from topo.nulls.score import Score, score

__all__ = ["Null", "Score", "requested", "null", "nulls", "score", "seeds"]
