"""Where arrays live and kernels run.

    open_device("auto")                            the GPU if CuPy and one are there, else the CPU
    device.zeros, full, empty, to_device, to_host  flat arrays in the device's memory
    device.kernel(program, dtype)                  a traced rule, ready to run
    device.sum_of_squares(array)                   the canonical reduction

Which device it is changes the time a step takes, never its bits.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy.typing as npt

from gradledger_server.errors import DeviceUnavailable
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.kernel import Array, Kernel
from gradledger_server.kernels.trace import Program

__all__ = ["Array", "Device", "Kernel", "open_device"]


class Device(Protocol):
    """A CPU or a GPU. Safe to use from several threads, as long as they write to different arrays."""

    on_host: bool  # whether its arrays are NumPy's own, so that views of host memory can be computed on

    @property
    def name(self) -> str: ...

    def zeros(self, count: int, dtype: npt.DTypeLike) -> Array: ...

    def full(self, count: int, dtype: npt.DTypeLike, value: float) -> Array: ...

    def empty(self, count: int, dtype: npt.DTypeLike) -> Array: ...

    def kernel(self, program: Program, dtype: npt.DTypeLike) -> Kernel:
        """The program in that dtype; compiled at first, then remembered."""

    @property
    def host(self) -> CpuDevice:
        """The CPU beside it, where rules on matrices are computed; of a CPU, itself."""

    def sum_of_squares(self, array: Array) -> float:
        """float64, in the order `reductions.py` fixes."""

    def to_device(self, array: npt.NDArray[Any]) -> Array:
        """The host array's values on the device; on a CPU the very array, as is one that is there already."""

    def at_home(self, array: Array) -> npt.NDArray[Any]:
        """The array in host memory: itself if it lies there."""

    def to_host(self, array: Array, out: npt.NDArray[Any]) -> None:
        """Copy the values into `out`, of the same dtype and length, and wait for them."""


def open_device(
    kind: Literal["auto", "cpu", "gpu"], *, threads: int | None = None, compiled: bool = True
) -> Device:
    """The device asked for.

    `threads` and `compiled` are the CPU's: None means all it may use, False means NumPy alone.
    Raises DeviceUnavailable if a GPU is asked for by name and cannot be used.
    """
    if kind == "cpu":
        return CpuDevice(threads=threads, compiled=compiled)
    try:
        from gradledger_server.kernels.cuda import CudaDevice

        return CudaDevice()
    except DeviceUnavailable:
        if kind == "gpu":
            raise
        return CpuDevice(threads=threads, compiled=compiled)
