"""Widening: exact on the way up, nearest even on the way down, a view where nothing is to do.

Dequantizing: one product for each element, by the scale of its block.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from gradledger_server.dtypes import ITEM_BYTES, NUMPY_DTYPE, SCALE_BLOCK, dequantize, widen

F32, F64 = np.dtype("<f4"), np.dtype("<f8")
HALVES = np.arange(1 << 16, dtype="<u2")  # every bit pattern there is


def raw(array: NDArray[Any]) -> memoryview:
    return memoryview(array.tobytes())


def bits(array: NDArray[Any]) -> list[int]:
    """The bit patterns, with every NaN the same: its payload is nobody's business."""
    unified = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return [int(bit) for bit in unified.view(f"u{array.dtype.itemsize}")]


@pytest.mark.parametrize("target", [F32, F64])
@pytest.mark.parametrize(("dtype", "form"), [("F16", np.float16), ("BF16", ml_dtypes.bfloat16)])
def test_every_half_is_widened_exactly(dtype: str, form: type, target: np.dtype[Any]) -> None:
    wide = widen(raw(HALVES), dtype, target)
    with np.errstate(all="ignore"):
        expected = HALVES.view(form).astype(target)
    assert wide.dtype == target
    assert bits(wide) == bits(expected)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
@pytest.mark.parametrize("target", [F32, F64])
def test_into_an_array_of_the_callers(dtype: str, target: np.dtype[Any]) -> None:
    sent = np.frombuffer(raw(np.arange(24, dtype="<u4") << 20), NUMPY_DTYPE[dtype])
    block = np.full(sent.size + 2, 7, target)
    out = block[1:-1]
    assert widen(raw(sent), dtype, target, out=out) is out
    assert bits(out) == bits(widen(raw(sent), dtype, target))
    assert block[0] == block[-1] == 7


def test_a_view_where_nothing_is_to_do() -> None:
    for dtype, form in (("F32", F32), ("F64", F64)):
        sent = np.arange(8, dtype=form).data.cast("B")
        same = widen(sent, dtype, form)
        assert np.shares_memory(same, np.frombuffer(sent, np.uint8))
        assert not widen(sent.toreadonly(), dtype, form).flags.writeable


def test_unaligned_bytes_are_copied_into_place() -> None:
    block = np.zeros(17, np.uint8)
    block[1:] = np.arange(4, dtype=F32).view(np.uint8)
    array = widen(block.data[1:], "F32", F32)
    assert array.flags.aligned
    assert array.tolist() == [0, 1, 2, 3]


def test_float64_rounds_to_nearest_even_and_overflows_in_silence() -> None:
    half = 2.0**-24  # half a unit in the last place of 1.0 in float32
    sent = np.array([1 + half, 1 + 3 * half, 1 + half + 2.0**-50, 1e39, -1e39, 1e-50, np.nan])
    expected = [1.0, 1 + 4 * half, 1 + 2 * half, np.inf, -np.inf, 0.0, np.nan]
    assert np.array_equal(widen(raw(sent), "F64", F32), np.array(expected, F32), equal_nan=True)


def test_nothing_is_a_tensor_too() -> None:
    for dtype in ("F16", "BF16", "F32", "F64"):
        assert widen(memoryview(b""), dtype, F32).shape == (0,)


def test_what_cannot_be_widened() -> None:
    with pytest.raises(ValueError, match="cannot widen I64"):
        widen(memoryview(bytes(8)), "I64", F64)
    with pytest.raises(ValueError, match="multiple of element size"):
        widen(memoryview(bytes(7)), "F32", F64)
    with pytest.raises(ValueError, match="expected float32"):
        widen(memoryview(bytes(8)), "F32", F32, out=np.empty(3, F32))
    with pytest.raises(ValueError, match="expected float64"):
        widen(memoryview(bytes(8)), "F32", F64, out=np.empty(2, F32))


def test_sizes_agree_with_names() -> None:
    for dtype, size in ITEM_BYTES.items():
        assert NUMPY_DTYPE[dtype].itemsize == size
        digits = "".join(filter(str.isdigit, dtype.split("_")[0]))
        assert size == (int(digits) // 8 if digits else 1)


def whole(size: int, seed: int = 0) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Every whole number there is, and scales of all sizes."""
    generator = np.random.default_rng(seed)
    scales = 10.0 ** generator.uniform(-30, 30, -(-size // SCALE_BLOCK))
    return generator.integers(-128, 128, size, dtype=np.int8), scales.astype(np.float32)


@pytest.mark.parametrize("target", [F32, F64])
@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 513, 1000, 70_000])
def test_each_whole_number_is_multiplied_by_the_scale_of_its_block(size: int, target: np.dtype[Any]) -> None:
    wholes, scales = whole(size)
    form = target.type
    plain = [form(wholes[i]) * form(scales[i // 256]) for i in range(size)]
    numbers = dequantize(raw(wholes), raw(scales), target)
    assert numbers.dtype == target
    assert bits(numbers) == bits(np.array(plain, target))
    block = np.full(size + 2, 7, target)
    out = block[1:-1]
    assert dequantize(raw(wholes), raw(scales), target, out) is out
    assert bits(out) == bits(numbers)
    assert block[0] == block[-1] == 7


def test_scales_and_whole_numbers_may_lie_anywhere() -> None:
    wholes, scales = whole(300)
    behind = memoryview(b"x" + scales.tobytes())[1:]
    assert bits(dequantize(raw(wholes), behind, F32)) == bits(dequantize(raw(wholes), raw(scales), F32))


def test_what_is_too_large_for_float32_overflows_in_silence() -> None:
    scales = np.array([3e38], F32)
    assert dequantize(raw(np.array([-1, 2], np.int8)), raw(scales), F32).tolist() == [-scales[0], np.inf]
    assert np.isfinite(dequantize(raw(np.array([-1, 2], np.int8)), raw(scales), F64)).all()


@pytest.mark.parametrize(("size", "scales"), [(0, 1), (1, 0), (256, 2), (257, 1)])
def test_every_block_has_one_scale(size: int, scales: int) -> None:
    with pytest.raises(ValueError, match=f"{scales} scales; expected"):
        dequantize(memoryview(bytes(size)), memoryview(bytes(4 * scales)), F32)
    with pytest.raises(ValueError, match="expected float64"):
        dequantize(memoryview(bytes(1)), memoryview(bytes(4)), F64, np.empty(1, F32))
