"""NVRTC's binding; what it makes of a source is the source."""

from __future__ import annotations

from gradledger_server.kernels.nvrtc import OPTIONS


class NVRTCError(Exception):
    """As in CuPy."""


def getVersion() -> tuple[int, int]:  # noqa: N802
    return (13, 0)


def getSupportedArchs() -> tuple[int, ...]:  # noqa: N802
    return (75, 90)


def createProgram(source: str, *_: object) -> list[str]:  # noqa: N802
    return [source]


def compileProgram(program: list[str], options: tuple[str, ...]) -> None:  # noqa: N802
    assert options == (*OPTIONS, "--gpu-architecture=sm_90")


def getCUBIN(program: list[str]) -> bytes:  # noqa: N802
    return program[0].encode()


def getPTX(program: list[str]) -> bytes:  # noqa: N802
    return program[0].encode()


def destroyProgram(program: list[str]) -> None:  # noqa: N802
    program.clear()
