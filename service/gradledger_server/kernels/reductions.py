"""The canonical sum of squares: float64, in one fixed order, so every backend gets the same bits.

    elements --cut--> blocks of 1024 = 32 rows x 32 lanes, the last filled up with zeros
    block:   each lane adds its 32 squares from the first row to the last
             then the lanes are halved: [:16] + [16:], [:8] + [8:] … until one is left
    blocks:  their sums, filled up with zeros to a power of two, are halved in the same way

Lanes fit a CPU's vector registers and a GPU's warp, so the order that is fixed is also the fast one. Zeros
change nothing, so the order depends on the number of elements alone.

NaN or infinity among float32 elements makes the sum not finite, and finite ones never do: 2^128 squared is
far inside float64. Finite float64 elements beyond about 1e154 overflow it too, so there a sum that is not
finite needs a second look.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LANES = 32
ROWS = 32
BLOCK = LANES * ROWS
_LEAST = 2.0**-900  # a smaller sum may lack squares that vanished
_BLOCKS_AT_ONCE = 256  # 2 MiB of float64


def sum_of_squares(array: Array) -> float:
    """The canonical sum of the squares of a flat float32 or float64 array, in NumPy; 0.0 if it is empty."""
    whole = array.size // BLOCK
    sums = np.zeros(-(-array.size // BLOCK))
    for first in range(0, whole, _BLOCKS_AT_ONCE):
        last = min(first + _BLOCKS_AT_ONCE, whole)
        sums[first:last] = _block_sums(array[first * BLOCK : last * BLOCK])
    if whole < len(sums):
        sums[whole:] = _block_sums(filled(array[whole * BLOCK :]))
    return halve(sums)


def norm(
    array: Any,
    total: Callable[[Any], float] = sum_of_squares,
    at_home: Callable[[Any], Array] = np.asarray,
) -> float:
    """The Euclidean norm, float64. `total` and `at_home` are the array's own device's.

    Where float64 squares overflow or vanish, the elements are first scaled by a power of two, on the host.
    """
    squares = total(array)
    if _LEAST < squares < math.inf or (squares == 0.0 and array.dtype == np.float32):
        return math.sqrt(squares)
    host = at_home(array)
    largest = float(np.abs(host).max(initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    exponent = max(math.frexp(largest)[1] - 1, -1022)
    scaled = np.multiply(host, 2.0**-exponent, dtype=np.float64)
    return math.sqrt(sum_of_squares(scaled)) * 2.0**exponent


def filled(rest: Array) -> Array:
    """The elements of an unfinished block, followed by zeros."""
    block = np.zeros(BLOCK, rest.dtype)
    block[: rest.size] = rest
    return block


def halve(sums: Array) -> float:
    """Add the upper half of the block sums to the lower one until one is left."""
    with np.errstate(all="ignore"):
        width = 1 << (len(sums) - 1).bit_length() if len(sums) else 1
        lower = np.zeros(width)
        lower[: len(sums)] = sums
        while width > 1:
            width //= 2
            lower = lower[:width] + lower[width:]
    return float(lower[0])


def _block_sums(blocks: Array) -> Array:
    with np.errstate(all="ignore"):
        squares = blocks.astype(np.float64).reshape(-1, ROWS, LANES)
        np.multiply(squares, squares, out=squares)
        lanes = squares[:, 0].copy()
        for row in range(1, ROWS):
            lanes += squares[:, row]
        width = LANES
        while width > 1:
            width //= 2
            lanes = lanes[:, :width] + lanes[:, width:]
    return lanes[:, 0]
