"""Arrays in host memory: where they start, and whether they fit a kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradledger_server.kernels.trace import Program

Array = npt.NDArray[Any]

CACHE_LINE_BYTES = 64


def zeros(count: int, dtype: npt.DTypeLike) -> Array:
    """A flat array of zeros that starts on a cache line; its pages are claimed when first written."""
    return _aligned(np.zeros, count, np.dtype(dtype))


def empty(count: int, dtype: npt.DTypeLike) -> Array:
    """A flat array of whatever was there, starting on a cache line."""
    return _aligned(np.empty, count, np.dtype(dtype))


def _aligned(allocate: Any, count: int, dtype: np.dtype[Any]) -> Array:
    memory = allocate(count * dtype.itemsize + CACHE_LINE_BYTES, np.uint8)
    start = -address(memory) % CACHE_LINE_BYTES
    return memory[start : start + count * dtype.itemsize].view(dtype)  # type: ignore[no-any-return]


def address(array: Array) -> int:
    """Where a contiguous array starts."""
    if array.size and array.flags.writeable and array.flags.c_contiguous:  # a third of the time
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]  # faster than array.ctypes


def require_fit(
    program: Program, dtype: np.dtype[Any], out: Any, w: Any, g: Any, slots: Sequence[Any]
) -> None:
    """Raise ValueError unless all arrays are flat, contiguous, of `dtype` and as long as `out`.

    A compiled kernel trusts its pointers; this is what it trusts them by.
    """
    if len(slots) != len(program.slots):
        raise ValueError(f"{program.name} has slots {program.slots}, got {len(slots)} arrays")
    length = out.size
    for name, array in zip(("out", *program.inputs), (out, w, g, *slots), strict=True):
        if array.ndim != 1 or array.dtype != dtype or array.size != length or not array.flags.c_contiguous:
            raise ValueError(
                f"{program.name}: array {name!r} is {array.dtype}{list(array.shape)}, "
                f"expected contiguous {dtype}[{length}]"
            )
        if name != "g" and name != "w" and isinstance(array, np.ndarray) and not array.flags.writeable:
            raise ValueError(f"{program.name}: array {name!r} is read-only and would be written")


def require_flat(array: Any, dtype: npt.DTypeLike | None = None) -> None:
    """Raise ValueError unless the array is flat and contiguous, and of `dtype` if one is named."""
    if array.ndim != 1 or array.dtype != np.dtype(dtype or array.dtype) or not array.flags.c_contiguous:
        expected = np.dtype(dtype or array.dtype)
        raise ValueError(f"the array is {array.dtype}{list(array.shape)}, expected contiguous {expected}[n]")
