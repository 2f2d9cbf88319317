"""Sizes, by laying the formats out: lists of values, of columns, of starts, of blocks; their bytes counted."""

from __future__ import annotations

import math

import numpy as np

from naive.net import Net


def _matrix(net: Net, name: str) -> np.ndarray:
    mask = net.masks[name]
    return mask.reshape(len(mask), -1)


def layer_bytes_dense(net: Net, name: str):
    return len(_matrix(net, name).astype(np.float32).tobytes())


def layer_bytes_bitmask(net: Net, name: str):
    matrix = _matrix(net, name)
    return len(matrix[matrix].astype(np.float32).tobytes()) + len(np.packbits(matrix).tobytes())


def _csr(net: Net, name: str, columns: type):
    matrix = _matrix(net, name)
    starts = np.cumsum([0, *(int(row.sum()) for row in matrix)]).astype(np.int32)
    at = np.concatenate([np.flatnonzero(row) for row in matrix]).astype(columns)
    return len(np.ones(len(at), np.float32).tobytes()) + len(at.tobytes()) + len(starts.tobytes())


def layer_bytes_csr(net: Net, name: str):
    return _csr(net, name, np.int32)


def layer_bytes_csr_int16(net: Net, name: str):
    return math.nan if _matrix(net, name).shape[1] > 65536 else _csr(net, name, np.uint16)


def _fours(net: Net, name: str) -> list[int]:
    """Kept weights of every four consecutive inputs."""
    mask = net.masks[name].reshape(*net.masks[name].shape[:2], -1)
    return [
        int(mask[o, i : i + 4, k].sum())
        for o in range(mask.shape[0])
        for i in range(0, mask.shape[1], 4)
        for k in range(mask.shape[2])
    ]


def layer_bytes_2_4(net: Net, name: str):
    fours = _fours(net, name)
    return math.nan if max(fours) > 2 else 8 * len(fours) + math.ceil(len(fours) / 2)


def layer_bytes_block(net: Net, name: str):
    matrix = _matrix(net, name)
    tops, lefts = range(0, matrix.shape[0], 4), range(0, matrix.shape[1], 4)
    blocks = sum(bool(matrix[i : i + 4, j : j + 4].any()) for i in tops for j in lefts)
    return blocks * (64 + 4) + 4 * (len(tops) + 1)


def _crossing(dense: int, fixed: int, each: int, size: int) -> float:
    return max(0.0, (dense - fixed) / (each * size))


def layer_break_even_bitmask(net: Net, name: str):
    size = _matrix(net, name).size
    return _crossing(4 * size, math.ceil(size / 8), 4, size)


def layer_break_even_csr(net: Net, name: str):
    matrix = _matrix(net, name)
    return _crossing(4 * matrix.size, 4 * (len(matrix) + 1), 8, matrix.size)


def layer_break_even_csr_int16(net: Net, name: str):
    matrix = _matrix(net, name)
    wide = matrix.shape[1] > 65536
    return math.nan if wide else _crossing(4 * matrix.size, 4 * (len(matrix) + 1), 6, matrix.size)


def layer_break_even_2_4(net: Net, name: str):
    fours = len(_fours(net, name))
    return (8 * fours + math.ceil(fours / 2)) / (4 * _matrix(net, name).size)


def _sum(net: Net, layer) -> float:
    return sum(layer(net, name) for name in net.masks)


def bytes_dense(net: Net):
    return _sum(net, layer_bytes_dense)


def bytes_bitmask(net: Net):
    return _sum(net, layer_bytes_bitmask)


def bytes_csr(net: Net):
    return _sum(net, layer_bytes_csr)


def bytes_csr_int16(net: Net):
    return _sum(net, layer_bytes_csr_int16)


def bytes_2_4(net: Net):
    return _sum(net, layer_bytes_2_4)


def bytes_block(net: Net):
    return _sum(net, layer_bytes_block)


def _whole(net: Net) -> tuple[int, int]:
    """Weights, and bytes of row starts."""
    matrices = [_matrix(net, name) for name in net.masks]
    return sum(m.size for m in matrices), sum(4 * (len(m) + 1) for m in matrices)


def break_even_bitmask(net: Net):
    size, _ = _whole(net)
    return _crossing(4 * size, sum(math.ceil(_matrix(net, name).size / 8) for name in net.masks), 4, size)


def break_even_csr(net: Net):
    size, starts = _whole(net)
    return _crossing(4 * size, starts, 8, size)


def break_even_csr_int16(net: Net):
    size, starts = _whole(net)
    wide = any(_matrix(net, name).shape[1] > 65536 for name in net.masks)
    return math.nan if wide else _crossing(4 * size, starts, 6, size)


def break_even_2_4(net: Net):
    fours = [len(_fours(net, name)) for name in net.masks]
    return sum(8 * n + math.ceil(n / 2) for n in fours) / (4 * _whole(net)[0])
