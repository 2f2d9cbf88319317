"""Results that several metrics need are computed once per graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from topo.graph.graph import LayeredGraph

_Graph = TypeVar("_Graph", bound=LayeredGraph)
_Found = TypeVar("_Found")


def shared(function: Callable[[_Graph], _Found]) -> Callable[[_Graph], _Found]:
    """Decorator: compute a function of the graph once per graph."""

    @functools.wraps(function)
    def remembered(graph: _Graph) -> _Found:
        if function not in graph.memo:
            graph.memo[function] = function(graph)
        return graph.memo[function]

    return remembered
