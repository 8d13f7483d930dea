"""The canonical matrix product: each element is one float64 sum, over k from the first to the last.

    c[i, j] = cast(((0 + a[i, 0] b[0, j]) + a[i, 1] b[1, j]) + …)

BLAS adds in an order that depends on the processor and on the number of threads; this does not, and the
order along k is the only thing it fixes: rows and columns may be tiled and shared out at will. The product
of two float32 numbers is exact in float64, so there a fused multiply-add gives the same bits as two
operations and may be used. Of float64 numbers it is not, so there it may not.

This is the reference; `llvm_products.py` has to give its bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_ROWS_AT_ONCE = 64


def product(a: Array, b: Array) -> Array:
    """[m, k] times [k, n], both float32 or both float64 → [m, n] of the same dtype."""
    require_fit(a, b)
    c: Array = np.empty((a.shape[0], b.shape[1]), a.dtype)
    wide = b.astype(np.float64)
    with np.errstate(all="ignore"):
        for first in range(0, len(a), _ROWS_AT_ONCE):
            rows = a[first : first + _ROWS_AT_ONCE].astype(np.float64)
            sums, term = np.zeros((2, len(rows), b.shape[1]))
            for k in range(b.shape[0]):
                np.multiply(rows[:, k, None], wide[k], out=term)
                np.add(sums, term, out=sums)
            c[first : first + _ROWS_AT_ONCE] = sums
    return c


def require_fit(a: Array, b: Array) -> None:
    """Raise ValueError unless the matrices can be multiplied."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or a.dtype != b.dtype:
        raise ValueError(f"{a.dtype}{list(a.shape)} cannot be multiplied by {b.dtype}{list(b.shape)}")
