"""Launches, copies and clocks of the GPU that is not there."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.elsewhere import There
from tests.kernels.cuda_on_host import HostLibrary

from . import nvrtc, runtime
from .runtime import note

__all__ = ["Device", "Event", "function", "get_current_stream", "get_elapsed_time", "nvrtc", "runtime"]

THREADS, LANES = 256, 32


def moved(way: str, address: int, nbytes: int) -> None:
    """A copy between host and device, whose host memory may be locked."""
    if nbytes:
        note(way, nbytes, "locked" if runtime.is_locked(address, nbytes) else "pageable")


class Device:
    compute_capability = "90"


class _Stream:
    ptr = 0


def get_current_stream() -> _Stream:
    return _Stream()


class Event:
    def record(self) -> None:
        self.at_s = time.perf_counter()

    def synchronize(self) -> None:
        """All is done already."""


def get_elapsed_time(start: Event, stop: Event) -> float:
    return 1e3 * (stop.at_s - start.at_s)


class Function:
    """A kernel, `kernel(grid, block, arguments)`: arrays of the device, numbers of the parameters' types."""

    def __init__(self, source: str, name: str) -> None:
        self._name, self._lanes = name, LANES if "__shfl" in source else 1
        with tempfile.TemporaryDirectory() as folder:
            self._library = HostLibrary(Path(folder), {name: source})

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
        threads = int(arguments[-1]) * self._lanes
        assert (grid, block) == ((-(-threads // THREADS),), (THREADS,)), (grid, block, threads)
        note("launch", self._name)
        self._library(self._name, *map(_passed, arguments))


def _passed(argument: Any) -> Any:
    if isinstance(argument, There):
        return argument._values
    assert isinstance(argument, np.float32 | np.float64 | np.int64), argument
    return int(argument) if isinstance(argument, np.int64) else float(argument)


class _Module:
    def load(self, code: bytes) -> None:
        self._source = code.decode()

    def get_function(self, name: str) -> Function:
        return Function(self._source, name)


class function:  # noqa: N801
    Module = _Module
