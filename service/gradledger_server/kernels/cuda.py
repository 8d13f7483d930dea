"""The GPU as a device, through CuPy: CUDA source from the traced rule, one launch per update.

`--fmad=false` is what keeps the bits: without it a multiplication and an addition are fused and rounded
once. Division and square root round correctly unless fast-math is asked for, which it never is. CuPy is
imported only here, and only when a GPU is asked for; spelling the source needs neither.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradledger_server.errors import DeviceUnavailable
from gradledger_server.kernels.arrays import require_fit
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.operations import OPERATIONS
from gradledger_server.kernels.reductions import BLOCK, LANES, ROWS, halve
from gradledger_server.kernels.trace import Program

OPTIONS = ("--fmad=false",)
TYPES = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
_THREADS = 256
_WARPS_PER_GROUP = 8


def entry(program: Program, dtype: np.dtype[Any]) -> str:
    """The kernel's name in the source, and in a profiler's list."""
    return f"{program.name}_{dtype.name}"


def spell(program: Program, dtype: np.dtype[Any]) -> str:
    """The program as CUDA C++: `<rule>_<dtype>(out, w, g, slots…, scalars…, count)`, one thread each."""
    real = TYPES[dtype]
    changed = {"out", *(target for target, _ in program.assignments)}
    arrays = [f"{real}* out_at"]
    arrays += [f"{'' if name in changed else 'const '}{real}* {name}_at" for name in program.inputs]
    parameters = [*arrays, *(f"{real} {ref}" for ref in program.scalars), "long long count"]
    lines = [f'extern "C" __global__ void {entry(program, dtype)}({", ".join(parameters)}) {{']
    lines.append("  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;")
    lines.append("  if (i >= count) return;")
    lines += [f"  const {real} {name} = {name}_at[i];" for name in program.inputs]
    for step in program.steps:
        value = OPERATIONS[step.operation].cuda.format(*step.operands)
        lines.append(f"  const {real} {step.result} = {value};")
    lines += [f"  {target}_at[i] = {value};" for target, value in program.assignments]
    return "\n".join([*lines, "}", ""])


def spell_sums(dtype: np.dtype[Any]) -> str:
    """`sums(elements, sums, count, blocks)`: one warp per block, in the order `reductions.py` fixes."""
    real = TYPES[dtype]
    return f"""extern "C" __global__
void sums(const {real}* elements, double* sums, long long count, long long blocks) {{
  const long long block = (long long)blockIdx.x * {_WARPS_PER_GROUP} + threadIdx.x / {LANES};
  if (block >= blocks) return;
  const int lane = threadIdx.x % {LANES};
  double sum = 0.0;
  for (int row = 0; row < {ROWS}; ++row) {{
    const long long i = block * {BLOCK} + row * {LANES} + lane;
    const double x = i < count ? (double)elements[i] : 0.0;
    sum = sum + x * x;
  }}
  for (int half = {LANES // 2}; half > 0; half /= 2) sum = sum + __shfl_down_sync(0xffffffffu, sum, half);
  if (lane == 0) sums[block] = sum;
}}
"""


class CudaKernel:
    """A program in one dtype on the current GPU."""

    def __init__(self, cupy: Any, program: Program, dtype: np.dtype[Any]) -> None:
        self.program = program
        self.dtype = dtype
        self._kernel = cupy.RawKernel(spell(program, dtype), entry(program, dtype), options=OPTIONS)

    def __call__(self, out: Any, w: Any, g: Any, slots: Sequence[Any], scalars: Sequence[float]) -> None:
        """Write the new weight to `out`, which may be `w`, and the new slots in place."""
        require_fit(self.program, self.dtype, out, w, g, slots)
        if out.size == 0:
            return
        with np.errstate(over="ignore"):
            cast = [self.dtype.type(x) for x in scalars]
        grid = (-(-out.size // _THREADS),)
        self._kernel(grid, (_THREADS,), (out, w, g, *slots, *cast, np.int64(out.size)))


class CudaDevice:
    """The current GPU. Raises DeviceUnavailable if CuPy or the GPU is missing."""

    def __init__(self) -> None:
        try:
            import cupy

            self._count = cupy.cuda.runtime.getDeviceCount()
            self._model = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        except Exception as error:  # CuPy's own errors cannot be named before it is imported
            raise DeviceUnavailable(f"no GPU can be used: {type(error).__name__}: {error}") from error
        self._cupy: Any = cupy
        self._kernels: dict[tuple[Program, np.dtype[Any]], CudaKernel] = {}
        self._sums: dict[np.dtype[Any], Any] = {}
        self._making = threading.Lock()
        self.host = CpuDevice()

    on_host = False  # whether arrays are NumPy's own

    @property
    def name(self) -> str:
        return f"gpu ({self._model})"

    def zeros(self, count: int, dtype: npt.DTypeLike) -> Any:
        return self._cupy.zeros(count, dtype)

    def full(self, count: int, dtype: npt.DTypeLike, value: float) -> Any:
        return self._cupy.full(count, value, dtype)

    def empty(self, count: int, dtype: npt.DTypeLike) -> Any:
        return self._cupy.empty(count, dtype)

    def kernel(self, program: Program, dtype: npt.DTypeLike) -> CudaKernel:
        key = (program, np.dtype(dtype))
        with self._making:
            if key not in self._kernels:
                self._kernels[key] = CudaKernel(self._cupy, *key)
            return self._kernels[key]

    def sum_of_squares(self, array: Any) -> float:
        """Block sums on the GPU, the last halving on the host."""
        blocks = -(-array.size // BLOCK)
        if blocks == 0:
            return 0.0
        with self._making:
            if array.dtype not in self._sums:
                self._sums[array.dtype] = self._cupy.RawKernel(
                    spell_sums(array.dtype), "sums", options=OPTIONS
                )
        sums = self._cupy.empty(blocks, np.float64)
        grid = (-(-blocks // _WARPS_PER_GROUP),)
        threads = (_WARPS_PER_GROUP * LANES,)
        self._sums[array.dtype](grid, threads, (array, sums, np.int64(array.size), np.int64(blocks)))
        return halve(sums.get())

    def to_device(self, array: npt.NDArray[Any]) -> Any:
        return self._cupy.asarray(array)

    def to_host(self, array: Any, out: npt.NDArray[Any]) -> None:
        array.get(out=out)
