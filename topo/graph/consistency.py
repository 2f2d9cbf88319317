"""Structural consistency: how well the eigenvectors of a graph without some edges tell which those were."""

from __future__ import annotations

import math

import numpy as np

from topo.graph.whole import WholeGraph

_EQUAL = 1e-8  # eigenvalues nearer than this share of the largest are one; so are scores


def consistency(whole: WholeGraph, taken: np.ndarray) -> float:
    """Share of the edges `taken` (places in the list) among as many pairs of highest score, of equal scores in part.

    With the eigenvectors X and eigenvalues of the graph without them, the score of a pair is that of
    X (lambda + X' D X) X', where D holds the edges taken and X' D X counts within equal eigenvalues alone: what is left
    if D changes eigenvalues and no eigenvector. Pairs are those of a unit that feeds a group of a layer and one that
    the group feeds, not joined by what is left. NaN where these are the edges taken alone: they could not rank lower.

    Source: Lü et al., PNAS 2015.
    """
    on, place = np.unique(np.concatenate([whole.begins, whole.outgoing[1]]), return_inverse=True)
    begin, end = np.split(place, 2)
    gone = np.zeros(whole.size, np.bool_)
    gone[taken] = True
    rest, lost = np.zeros((len(on), len(on))), np.zeros((len(on), len(on)))
    for matrix, edges in ((rest, ~gone), (lost, gone)):
        matrix[begin[edges], end[edges]] = matrix[end[edges], begin[edges]] = 1.0
    values, vectors = np.linalg.eigh(rest)
    space = np.cumsum(np.diff(values, prepend=values[0]) > _EQUAL * max(np.abs(values).max(), 1.0))
    moved = np.where(space[:, None] == space, vectors.T @ lost @ vectors, 0.0)
    score = vectors @ (np.diag(values) + moved) @ vectors.T
    could = np.zeros_like(rest, np.bool_)
    for number in np.unique(whole.made_by[whole.of_layers[whole.made_by]]):
        here = whole.made_by == number
        could[np.ix_(np.unique(begin[here]), np.unique(end[here]))] = True
    pairs = np.nonzero(could & (rest == 0))
    if len(pairs[0]) <= len(taken):
        return math.nan
    scores, wanted = score[pairs], lost[pairs] > 0
    last = np.sort(scores)[-len(taken)]
    equal = np.abs(scores - last) <= _EQUAL * max(np.abs(scores).max(), 1.0)
    above = (scores > last) & ~equal
    room = len(taken) - int(above.sum())
    found = int((wanted & above).sum()) + room * float(wanted[equal].mean())
    return found / len(taken)
