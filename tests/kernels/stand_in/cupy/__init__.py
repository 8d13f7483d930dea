"""A stand-in for CuPy on a machine without a GPU: as much of it as Gradledger uses, and no more.

Its arrays can be cut, copied and cleared; its kernels are the CUDA source that it is given, run by this
processor (`cuda_on_host.py`). With this folder's parent in PYTHONPATH everything that asks for a GPU finds
one, and what goes over to it and back is written down, a line each, in the file that CUPY_STAND_IN_LOG names.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.elsewhere import There

from . import cuda

__version__ = "a stand-in"
__all__ = ["cuda", "empty", "full", "get_default_memory_pool", "ndarray", "zeros"]

Host = npt.NDArray[Any]


class Pointer:
    """Where an array lies on the device."""

    def __init__(self, values: Host) -> None:
        self._values = values

    def copy_from_host(self, source: int, nbytes: int) -> None:
        """Waits for it, as cudaMemcpy does."""
        assert nbytes == self._values.nbytes
        cuda.moved("h2d", source, nbytes)
        ctypes.memmove(self._values.ctypes.data, source, nbytes)

    def copy_from_device_async(self, source: Pointer, nbytes: int) -> None:
        """As much of another array."""
        self._values.view(np.uint8)[:nbytes] = source._values.view(np.uint8)[:nbytes]


class ndarray(There):  # noqa: N801
    """A flat array of the device."""

    @property
    def data(self) -> Pointer:
        return Pointer(self._values)

    def get(self, out: Host | None = None) -> Host:
        """A copy in host memory."""
        copy = np.empty(self.shape, self.dtype) if out is None else out
        if copy.dtype != self.dtype:
            raise TypeError(f"{self.dtype} array cannot be obtained to {copy.dtype} array")
        if copy.shape != self.shape:
            raise ValueError(f"shape mismatch: {self.shape} and {copy.shape}")
        assert copy.flags.c_contiguous and copy.flags.writeable
        cuda.moved("d2h", copy.ctypes.data, copy.nbytes)
        copy[:] = self._values
        return copy


def zeros(count: int, dtype: npt.DTypeLike) -> ndarray:
    return ndarray(np.zeros(count, dtype))


def empty(count: int, dtype: npt.DTypeLike) -> ndarray:
    values = np.empty(count, dtype)
    values.view(np.uint8)[:] = 0xFF  # NaN: what is read before it is written shows
    return ndarray(values)


def full(count: int, value: np.generic, dtype: npt.DTypeLike) -> ndarray:
    assert value.dtype == np.dtype(dtype), "cast by CuPy, which flushes denormal numbers"
    return ndarray(np.full(count, value, dtype))


class _Pool:
    def free_all_blocks(self) -> None:
        """Nothing is kept."""


def get_default_memory_pool() -> _Pool:
    return _Pool()
