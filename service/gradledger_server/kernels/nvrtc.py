"""CUDA source becomes machine code: NVRTC, through CuPy's binding, with our options and no others.

CuPy's own `RawKernel` will not do. It ends every list of options with `-ftz=true`, and the last word wins:
denormal float32 numbers would become zeros on a GPU, and on nothing else.
"""

from __future__ import annotations

from typing import Any

# What the bits depend on, spelled out even where it is the default: no multiplication and addition rounded as
# one, denormal numbers kept, division and square root rounded correctly.
OPTIONS = ("--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")


class NotCompiled(RuntimeError):
    """NVRTC refused; the message holds its log."""


def function(cupy: Any, source: str, name: str) -> Any:
    """The `extern "C"` kernel of that name, loaded on the current GPU: `kernel(grid, block, arguments)`.

    Raises NotCompiled.
    """
    from cupy.cuda import nvrtc

    module = cupy.cuda.function.Module()
    module.load(machine_code(nvrtc, source, int(cupy.cuda.Device().compute_capability)))
    return module.get_function(name)


def machine_code(nvrtc: Any, source: str, capability: int) -> bytes:
    """What a GPU of this compute capability (90 means 9.0) runs; for one newer than NVRTC itself, PTX.

    Machine code rather than PTX wherever there is a choice: an older driver may not read a newer NVRTC's PTX.
    Either keeps the bits, since all arithmetic in the PTX says how it rounds. Raises NotCompiled.
    """
    known = sorted(nvrtc.getSupportedArchs())
    if capability in known:
        return compiled(nvrtc, source, f"--gpu-architecture=sm_{capability}", nvrtc.getCUBIN)
    older = [arch for arch in known if arch < capability]
    if not older:
        raise NotCompiled(
            f"this GPU has compute capability {capability}; NVRTC compiles for {known[0]} and up"
        )
    return compiled(nvrtc, source, f"--gpu-architecture=compute_{older[-1]}", nvrtc.getPTX)


def compiled(nvrtc: Any, source: str, architecture: str, result: Any) -> bytes:
    """`result(program)` of the compiled source. Raises NotCompiled."""
    program = nvrtc.createProgram(source, "rule.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*OPTIONS, architecture))
        return result(program)  # type: ignore[no-any-return]
    except nvrtc.NVRTCError as refused:
        raise NotCompiled(f"{refused}: {nvrtc.getProgramLog(program)}") from refused
    finally:
        nvrtc.destroyProgram(program)
