"""Canonical sums of the rows and of the columns of matrices: float64, in one fixed order.

    row:     cut and folded as the sum of squares is (`reductions.py`): blocks of 1024 = 32 rows x 32 lanes
    column:  its elements in blocks of 32, each added from the first to the last; the blocks' sums, filled
             up with zeros to a power of two, are halved until one is left

Every addition is one ufunc over many rows or columns at once, in an order that the shape alone decides, so
these have the same bits on every processor. Leading axes are so many matrices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradledger_server.kernels.reductions import BLOCK, LANES, ROWS

Array = npt.NDArray[Any]

_AT_ONCE = 1 << 18  # elements: their float64 sums stay in the cache


def row_sums(matrix: Array) -> Array:
    """The sums over the last axis: [..., rows, columns] → [..., rows], float64."""
    lengths, width = matrix.shape[:-1], matrix.shape[-1]
    rows = np.ascontiguousarray(matrix).reshape(-1, width) if width else np.zeros((0, 0))
    sums = np.zeros(len(rows))
    stride = max(1, _AT_ONCE // max(width, 1))
    with np.errstate(all="ignore"):
        for first in range(0, len(rows), stride):
            sums[first : first + stride] = _fold_rows(rows[first : first + stride])
    return sums.reshape(lengths) if width else np.zeros(lengths)


def column_sums(matrix: Array) -> Array:
    """The sums over the last axis but one: [..., rows, columns] → [..., columns], float64."""
    *many, rows, columns = matrix.shape
    if not matrix.size:
        return np.zeros((*many, columns))
    matrices = np.ascontiguousarray(matrix).reshape(-1, rows, columns)
    sums = np.zeros((len(matrices), columns))
    stride = max(1, _AT_ONCE // (rows * columns))
    with np.errstate(all="ignore"):
        for first in range(0, len(matrices), stride):
            sums[first : first + stride] = _fold_columns(matrices[first : first + stride])
    return sums.reshape(*many, columns)


def _fold_rows(rows: Array) -> Array:
    count, width = rows.shape
    whole, rest = divmod(width, BLOCK)
    lanes = np.zeros((count, whole + (rest > 0), LANES))
    blocks = rows[:, : whole * BLOCK].reshape(count, whole, ROWS, LANES)
    for row in range(ROWS):
        lanes[:, :whole] += blocks[:, :, row]
    for start in range(whole * BLOCK, width, LANES):
        part = rows[:, start : start + LANES]
        lanes[:, whole, : part.shape[1]] += part
    return _halved(_halved(lanes.transpose(2, 1, 0)))


def _fold_columns(matrices: Array) -> Array:
    count, rows, columns = matrices.shape
    whole, rest = divmod(rows, ROWS)
    sums = np.zeros((whole + (rest > 0), count, columns))
    blocks = matrices[:, : whole * ROWS].reshape(count, whole, ROWS, columns).transpose(1, 0, 2, 3)
    for row in range(ROWS):
        sums[:whole] += blocks[:, :, row]
    for row in range(whole * ROWS, rows):
        sums[whole] += matrices[:, row]
    return _halved(sums)


def _halved(parts: Array) -> Array:
    """The first axis folded: its upper half is added to its lower half until one is left."""
    width = 1 << (len(parts) - 1).bit_length()
    if width > len(parts):
        filled = np.zeros((width, *parts.shape[1:]))
        filled[: len(parts)] = parts
        parts = filled
    while len(parts) > 1:
        half = len(parts) // 2
        parts = parts[:half] + parts[half:]
    folded: Array = parts[0]
    return folded
