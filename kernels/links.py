"""Which missing link of a bipartite graph has most paths of three links between its ends (CH3-L3)."""

from __future__ import annotations

import numba as nb


@nb.njit(cache=True, nogil=True)
def three_link_scores(indptr, indices, starts, ends, first, second, scores):
    """Links by unit (indptr, indices) and by input (starts, ends), first (inputs, inputs) and second (units, units)
    float32 -> scores (units, inputs) float32: sum over paths u - a - b - v of first[a, v] second[b, u].

    Paths may use the link u - v itself, so that a score has its meaning where there is none.

    links [[1, 0], [1, 1]], first and second all 1 -> scores [[2, 1], [3, 2]]
    """
    scores[:] = 0.0
    for u in range(len(indptr) - 1):
        row = scores[u]
        for a in indices[indptr[u] : indptr[u + 1]]:
            near = first[a]
            for b in ends[starts[a] : starts[a + 1]]:
                worth = second[b, u]
                for v in indices[indptr[b] : indptr[b + 1]]:
                    row[v] += worth * near[v]
