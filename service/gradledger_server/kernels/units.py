"""What changes a gradient unit by unit: functions of arrays in their shape, with canonical sums.

A unit is what one output is made from. Where rows are inputs (`[in, out]`, JAX and Keras) it is a column;
where rows are outputs (`[out, in]`, PyTorch) it is a row. A vector or scalar is one unit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradledger_server.kernels.sums import column_sums, row_sums

Array = npt.NDArray[Any]

_LEAST_NORM = 1e-6  # of a gradient's unit, where one is divided by it


def centralized(g: Array) -> Array:
    """The gradient less its mean over all axes but the first; a vector or scalar stays as it is."""
    if np.ndim(g) < 2 or not g.size:
        return g
    rows = g.reshape(len(g), -1)
    means = (row_sums(rows) / rows.shape[1]).astype(g.dtype)
    with np.errstate(all="ignore"):
        centred: Array = g - means.reshape(-1, *[1] * (g.ndim - 1))
    return centred


def clipped_columns(w: Array, g: Array, clipping: float, eps: float) -> Array:
    """The gradient with units, `[in, out]`, no longer than `clipping` times their weights' or `eps`."""
    return _clipped(g, column_norms(w), column_norms(g), clipping, eps)


def clipped_rows(w: Array, g: Array, clipping: float, eps: float) -> Array:
    """The same for `[out, in]`."""
    return _clipped(g, row_norms(w), row_norms(g), clipping, eps)


def column_norms(x: Array) -> Array:
    """Float64, ready to be broadcast: over the first axis of two or three, over all but the last of more."""
    if _is_one_unit(x):
        return _whole(x)
    kept = x.shape[1:] if x.ndim <= 3 else x.shape[-1:]
    sums = column_sums(_squares(x).reshape(-1, int(np.prod(kept))))
    return np.sqrt(sums).reshape([1] * (x.ndim - len(kept)) + list(kept))


def row_norms(x: Array) -> Array:
    """Float64, ready to be broadcast: over all axes but the first."""
    if _is_one_unit(x):
        return _whole(x)
    sums = row_sums(_squares(x).reshape(len(x), -1))
    return np.sqrt(sums).reshape(-1, *[1] * (x.ndim - 1))


def _is_one_unit(x: Array) -> bool:
    return sum(extent > 1 for extent in x.shape) <= 1 or not x.size


def _whole(x: Array) -> Array:
    return np.sqrt(row_sums(_squares(x).reshape(1, -1))).reshape([1] * x.ndim)


def _squares(x: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.multiply(x, x, dtype=np.float64)


def _clipped(g: Array, w_norms: Array, g_norms: Array, clipping: float, eps: float) -> Array:
    limits = clipping * np.maximum(w_norms, eps)
    with np.errstate(all="ignore"):
        factors = np.where(g_norms < limits, 1.0, limits / np.maximum(g_norms, _LEAST_NORM))
        clipped: Array = g * factors.astype(g.dtype)
    return clipped
