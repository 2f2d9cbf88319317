"""Results that several metrics need are computed once per graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from topo.graph.graph import LayeredGraph


def shared(function: Callable[[LayeredGraph], Any]) -> Callable[[LayeredGraph], Any]:
    """Decorator: compute a function of the graph once per graph."""

    @functools.wraps(function)
    def remembered(graph: LayeredGraph) -> Any:
        if function not in graph.memo:
            graph.memo[function] = function(graph)
        return graph.memo[function]

    return remembered
