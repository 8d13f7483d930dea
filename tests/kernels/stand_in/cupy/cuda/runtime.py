"""What is asked of CUDA's runtime."""

from __future__ import annotations

import os
from pathlib import Path


def note(*words: object) -> None:
    """A line in the log, if there is one; lines of several threads do not mix."""
    if log := os.environ.get("CUPY_STAND_IN_LOG"):
        with Path(log).open("a") as lines:
            lines.write(" ".join(map(str, words)) + "\n")


_locked: dict[int, int] = {}


class CUDARuntimeError(RuntimeError):
    """As in CuPy."""


def getDeviceProperties(_: int) -> dict[str, object]:  # noqa: N802
    return {"name": b"no GPU at all", "totalGlobalMem": 1 << 30}


def driverGetVersion() -> int:  # noqa: N802
    return 13000


def hostRegister(address: int, nbytes: int, flags: int) -> None:  # noqa: N802
    assert flags == 0
    if any(start < address + nbytes and address < start + length for start, length in _locked.items()):
        raise CUDARuntimeError("cudaErrorHostMemoryAlreadyRegistered")
    _locked[address] = nbytes
    note("lock", nbytes)


def hostUnregister(address: int) -> None:  # noqa: N802
    if address not in _locked:
        raise CUDARuntimeError("cudaErrorHostMemoryNotRegistered")
    note("unlock", _locked.pop(address))


def is_locked(address: int, nbytes: int) -> bool:
    return any(start <= address and address + nbytes <= start + length for start, length in _locked.items())
