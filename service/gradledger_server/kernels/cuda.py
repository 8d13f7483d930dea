"""The GPU as a device, through CuPy: CUDA source from the traced rule, one launch per update.

CuPy is imported only when a GPU is asked for; spelling the source needs neither. It allocates, copies and
launches, and does no arithmetic of its own: what it compiles flushes denormal numbers (`nvrtc.py`).

Everything goes to one stream, the default one of the whole process, in the order it was asked for: a thread
sees what another has launched, and memory given back is not reused before its last kernel is done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gradledger_server.blocks import Unlock, lock_in_place
from gradledger_server.errors import DeviceFull, DeviceUnavailable
from gradledger_server.kernels.arrays import address, require_fit, require_flat
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.kept import KERNELS, Kept
from gradledger_server.kernels.kernel import Bound, bound
from gradledger_server.kernels.nvrtc import function
from gradledger_server.kernels.operations import OPERATIONS
from gradledger_server.kernels.reductions import BLOCK, LANES, ROWS, halve
from gradledger_server.kernels.trace import Program

TYPES: dict[np.dtype[Any], str] = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
_THREADS = 256
_WARPS_PER_GROUP = 8


def entry(program: Program, dtype: np.dtype[Any]) -> str:
    """The kernel's name in the source, and in a profiler's list."""
    return re.sub(r"\W", "_", f"{program.name}_{dtype.name}")


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
    """A program in one dtype on the current GPU, compiled."""

    def __init__(self, cupy: Any, program: Program, dtype: np.dtype[Any]) -> None:
        self.program = program
        self.dtype = dtype
        self._launch = function(cupy, spell(program, dtype), entry(program, dtype))

    def __call__(self, out: Any, w: Any, g: Any, slots: Sequence[Any], scalars: Sequence[float]) -> None:
        """Write the new weight to `out`, which may be `w`, and the new slots in place."""
        require_fit(self.program, self.dtype, out, w, g, slots)
        for name, array in zip(("out", *self.program.inputs), (out, w, g, *slots), strict=True):
            if isinstance(array, np.ndarray):  # CuPy would pass its bytes for a pointer
                raise TypeError(
                    f"{self.program.name}: array {name!r} lies in host memory, expected the GPU's"
                )
        if out.size == 0:
            return
        with np.errstate(over="ignore"):
            cast = [self.dtype.type(x) for x in scalars]
        grid = (-(-out.size // _THREADS),)  # up to 2^31 - 1, so up to 5e11 elements
        self._launch(grid, (_THREADS,), (out, w, g, *slots, *cast, np.int64(out.size)))

    def bind(self, w: Any, slots: Sequence[Any]) -> Bound:
        """The kernel for arrays that stay where they are."""
        return bound(self, w, slots)


class CudaDevice:
    """The current GPU. Raises DeviceUnavailable if CuPy, NVRTC or the GPU is missing or will not do."""

    def __init__(self) -> None:
        try:
            import cupy

            self._model = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
            self._sums: dict[np.dtype[Any], Any] = {
                dtype: function(cupy, spell_sums(dtype), "sums") for dtype in TYPES
            }
            stream = cupy.cuda.get_current_stream().ptr
        except Exception as error:  # CuPy's own errors cannot be named before it is imported
            raise DeviceUnavailable(f"no GPU can be used: {type(error).__name__}: {error}") from error
        if stream > 1:  # 0 and 1 are the process's default stream
            hint = "Unset CUPY_CUDA_PER_THREAD_DEFAULT_STREAM: a model's arrays are used by several threads."
            raise DeviceUnavailable("CuPy gives every thread a stream of its own", hint=hint)
        self._cupy: Any = cupy
        self._kernels = Kept(self._made, KERNELS)
        self.host = CpuDevice()

    on_host = False  # whether arrays are NumPy's own

    @property
    def name(self) -> str:
        return f"gpu ({self._model})"

    def zeros(self, count: int, dtype: npt.DTypeLike) -> Any:
        with _room(self._model, count, dtype):
            return self._cupy.zeros(count, dtype)

    def full(self, count: int, dtype: npt.DTypeLike, value: float) -> Any:
        kind: type[Any] = np.dtype(dtype).type
        with np.errstate(over="ignore"), _room(self._model, count, dtype):
            return self._cupy.full(count, kind(value), dtype)  # cast here: CuPy's cast flushes denormals

    def empty(self, count: int, dtype: npt.DTypeLike) -> Any:
        with _room(self._model, count, dtype):
            return self._cupy.empty(count, dtype)

    def kernel(self, program: Program, dtype: npt.DTypeLike) -> CudaKernel:
        return self._kernels((program, np.dtype(dtype)))

    def _made(self, key: tuple[Program, np.dtype[Any]]) -> CudaKernel:
        return CudaKernel(self._cupy, *key)

    def sum_of_squares(self, array: Any) -> float:
        """Added up where the array lies, in host memory by the CPU: the order is the same, so are the bits.

        On the GPU: block sums there, the last halving on the host.
        """
        if isinstance(array, np.ndarray):
            return self.host.sum_of_squares(array)
        require_flat(array)
        blocks = -(-array.size // BLOCK)
        if blocks == 0:
            return 0.0
        sums = self.empty(blocks, np.float64)
        grid = (-(-blocks // _WARPS_PER_GROUP),)
        threads = (_WARPS_PER_GROUP * LANES,)
        self._sums[array.dtype](grid, threads, (array, sums, np.int64(array.size), np.int64(blocks)))
        return halve(sums.get())

    def to_device(self, array: Any) -> Any:
        """A copy of a flat host array, made before this returns: the host memory may be used again at once.

        CuPy's `asarray` would copy it once more on the way, into locked pages of its own.
        """
        if not isinstance(array, np.ndarray):
            return array
        lock_in_place(array, self._lock_pages)
        there, here = self.empty(array.size, array.dtype), np.ascontiguousarray(array)
        there.data.copy_from_host(address(here), here.nbytes)
        return there

    def at_home(self, array: Any) -> npt.NDArray[Any]:
        return array if isinstance(array, np.ndarray) else array.get()

    def to_host(self, array: Any, out: npt.NDArray[Any]) -> None:
        lock_in_place(out, self._lock_pages)
        array.get(out=out)

    def _lock_pages(self, address: int, nbytes: int) -> Unlock | None:
        """Locked pages are read and written by the GPU itself, past the driver's own."""
        runtime = self._cupy.cuda.runtime
        try:
            runtime.hostRegister(address, nbytes, 0)
        except runtime.CUDARuntimeError:
            return None
        return partial(_unlock, runtime, address)


def _unlock(runtime: Any, address: int) -> None:
    with suppress(runtime.CUDARuntimeError):  # at the process's end there may be no GPU any more
        runtime.hostUnregister(address)


@contextmanager
def _room(model: str, count: int, dtype: npt.DTypeLike) -> Iterator[None]:
    """Raises DeviceFull where CuPy finds no memory."""
    try:
        yield
    except MemoryError as full:
        raise DeviceFull(f"{model} has no room for {count} × {np.dtype(dtype)}: {full}") from full
