"""The canonical sum of squares: its order is what the module says, and NumPy and LLVM agree on every bit."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.llvm_reductions import SumOfSquares
from gradledger_server.kernels.reductions import BLOCK, sum_of_squares

DTYPES = (np.float32, np.float64)
COMPILED = {np.dtype(dtype): SumOfSquares(np.dtype(dtype), Crew(3)) for dtype in DTYPES}


def literal(numbers: list[float]) -> float:
    """The module's description, word by word, in Python floats."""

    def halved(parts: list[float]) -> float:
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [low + high for low, high in zip(parts[:half], parts[half:], strict=True)]
        return parts[0]

    numbers = numbers + [0.0] * (-len(numbers) % 1024)
    sums = []
    for first in range(0, len(numbers), 1024):
        lanes = [0.0] * 32
        for row in range(32):
            for lane in range(32):
                x = numbers[first + row * 32 + lane]
                lanes[lane] += x * x
        sums.append(halved(lanes))
    width = 1
    while width < len(sums):
        width *= 2
    return halved(sums + [0.0] * (width - len(sums)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 1023, 1024, 1025, 3 * 1024, 5 * 1024 + 17])
def test_the_order_is_the_one_described(count: int, dtype: npt.DTypeLike) -> None:
    array = np.random.default_rng(count).standard_normal(count).astype(dtype)
    expected = literal([float(x) for x in array])
    assert sum_of_squares(array) == expected
    assert COMPILED[np.dtype(dtype)](array) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [255 * BLOCK, 256 * BLOCK + 1, 700 * BLOCK + 5, 3_000_001])
def test_numpy_and_llvm_agree_on_large_arrays(count: int, dtype: npt.DTypeLike) -> None:
    array = np.random.default_rng(count).standard_normal(count).astype(dtype)
    total = sum_of_squares(array)
    assert COMPILED[np.dtype(dtype)](array) == total
    assert total == pytest.approx(float(np.sum(array.astype(np.float64) ** 2)), rel=1e-13)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1023, 1024, 5000])
def test_one_bad_number_anywhere_shows(bad: float, place: int) -> None:
    array = np.ones(5001, np.float32)
    array[place] = bad
    assert not math.isfinite(sum_of_squares(array))
    assert not math.isfinite(COMPILED[np.dtype(np.float32)](array))


def test_finite_float32_never_overflows_and_float64_may() -> None:
    largest = np.full(100_000, np.finfo(np.float32).max)
    assert math.isfinite(sum_of_squares(largest)) and sum_of_squares(largest) == COMPILED[
        np.dtype(np.float32)
    ](largest)
    assert sum_of_squares(np.array([1e200])) == COMPILED[np.dtype(np.float64)](np.array([1e200])) == math.inf


def test_slices_and_read_only_arrays_at_any_byte() -> None:
    array = np.random.default_rng(1).standard_normal(3000).astype(np.float32)
    expected = sum_of_squares(array[5:2900].copy())
    assert COMPILED[np.dtype(np.float32)](array[5:2900]) == expected
    view = np.frombuffer(b"x" + array[5:2900].tobytes(), np.float32, offset=1)
    assert COMPILED[np.dtype(np.float32)](view) == expected == sum_of_squares(view)


def test_what_is_not_flat_is_refused() -> None:
    with pytest.raises(ValueError, match="expected contiguous"):
        COMPILED[np.dtype(np.float32)](np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="expected contiguous"):
        COMPILED[np.dtype(np.float32)](np.ones(8, np.float32)[::2])
