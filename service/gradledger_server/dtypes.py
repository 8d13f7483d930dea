"""The dtypes of the wire: their safetensors names, item sizes, NumPy forms, and the way up to a wider one.

Little-endian throughout, as safetensors says. NumPy lacks BF16 and the 8-bit floats: their bits appear as
unsigned integers of the same size. I8 is a float's when scales stand beside it, one for each block.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMPY_DTYPE: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        name: np.dtype(code)
        for name, code in {
            "BOOL": "?",
            "U8": "u1",
            "I8": "i1",
            "F8_E4M3": "u1",
            "F8_E5M2": "u1",
            "F8_E8M0": "u1",
            "U16": "<u2",
            "I16": "<i2",
            "F16": "<f2",
            "BF16": "<u2",
            "U32": "<u4",
            "I32": "<i4",
            "F32": "<f4",
            "U64": "<u8",
            "I64": "<i8",
            "F64": "<f8",
            "C64": "<c8",
        }.items()
    }
)
ITEM_BYTES: Mapping[str, int] = MappingProxyType(
    {name: dtype.itemsize for name, dtype in NUMPY_DTYPE.items()}
)

SCALE_BLOCK = 256  # elements that share a scale
SCALE_SUFFIX = "#scale"  # the scales of I8 `w` stand beside it under this name

_F32 = np.dtype("<f4")
_FLOATS = ("F16", "BF16", "F32", "F64")


def widen(
    raw: memoryview, dtype: str, target: np.dtype[Any], out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """The numbers in `raw` (F16, BF16, F32 or F64) as a flat array of `target` (float32 or float64).

    Exact on the way up. F64 to float32 rounds to nearest even and overflows to infinity, silently: the
    caller checks. Writes into `out` if given; otherwise the answer is a view of `raw` when `target` is its
    dtype and its bytes are aligned, else a new array. Raises ValueError if `raw` is not floats of that size.
    """
    if dtype not in _FLOATS:
        raise ValueError(f"cannot widen {dtype}; expected one of {', '.join(_FLOATS)}")
    bits = np.frombuffer(raw, NUMPY_DTYPE[dtype])
    if out is None and bits.dtype == target and bits.flags.aligned:
        return bits
    out = _room(out, bits.size, target)
    if dtype == "BF16" and target == _F32:
        # A bfloat16 is the upper half of a float32.
        np.left_shift(bits, 16, out=out.view(np.uint32), dtype=np.uint32)
        return out
    numbers = widen(raw, dtype, _F32) if dtype == "BF16" else bits
    with np.errstate(all="ignore"):
        np.copyto(out, numbers, casting="same_kind")
    return out


def dequantize(
    raw: memoryview, scales: memoryview, target: np.dtype[Any], out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """The numbers that I8 `raw` stands for: raw[i] * scales[i // 256], as a flat array of `target`.

    `scales` are F32; each is widened first, and each product rounded once, in `target` (float32 or float64).
    Overflows to infinity, silently: the caller checks. Writes into `out` if given, else into a new array.
    Raises ValueError unless there is one scale for each block of 256 elements; the last may be shorter.
    """
    wholes, factors = np.frombuffer(raw, np.int8), np.frombuffer(scales, _F32).astype(target)
    if factors.size != blocks_of(wholes.size):
        raise ValueError(
            f"{factors.size} scales; expected {blocks_of(wholes.size)} for {wholes.size} elements"
        )
    out = _room(out, wholes.size, target)
    full, grid = wholes.size // SCALE_BLOCK, (-1, SCALE_BLOCK)
    rest = full * SCALE_BLOCK
    with np.errstate(all="ignore"):
        np.multiply(wholes[:rest].reshape(grid), factors[:full, None], out=out[:rest].reshape(grid))
        np.multiply(wholes[rest:], factors[full:], out=out[rest:])
    return out


def blocks_of(elements: int) -> int:
    """How many scales so many elements have."""
    return -(-elements // SCALE_BLOCK)


def _room(out: NDArray[Any] | None, size: int, target: np.dtype[Any]) -> NDArray[Any]:
    """`out`, or a new array if there is none."""
    if out is None:
        return np.empty(size, target)
    if out.shape != (size,) or out.dtype != target:
        raise ValueError(f"out is {out.dtype} {out.shape}; expected {target} {(size,)}")
    return out
