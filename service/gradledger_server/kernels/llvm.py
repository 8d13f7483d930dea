"""The kernel compiled for this processor: the program is spelt as LLVM IR and compiled with llvmlite.

Why not Numba: what it would do with a rule is what is done here, and the rest of it would be in the way.
Spelling the IR directly needs no generated Python to exec, compiles in about 25 ms instead of a second, and
leaves nothing to a front end's taste: plain fmul, fadd, fdiv and sqrt without fast-math flags, which LLVM
may neither reorder nor fuse, so the bits are NumPy's. Elements are independent, and
`llvm.loop.parallel_accesses` says so: the loop is vectorised without run-time checks for overlap, also when
the new weight is written over the old one. ctypes calls the result without the GIL.
"""

from __future__ import annotations

import ctypes
import threading
from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from gradledger_server.kernels.arrays import CACHE_LINE_BYTES, Array, address, require_fit, require_flat
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.kernel import Bound, bound
from gradledger_server.kernels.operations import OPERATIONS
from gradledger_server.kernels.trace import Program, Step

PART_BYTES = 1024 * 1024  # of one array: smaller parts would cost more in waking threads than they gain
TYPES = {np.dtype(np.float32): ("float", "f32"), np.dtype(np.float64): ("double", "f64")}

_compiling = threading.Lock()  # LLVM's global state is not ours to share
llvm.initialize_native_target()
llvm.initialize_native_asmprinter()


class Compiled:
    """Machine code for one IR module. The code lives as long as this object."""

    def __init__(self, ir: str) -> None:
        with _compiling:
            self.machine = llvm.Target.from_default_triple().create_target_machine(
                cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
            )
            self.module = llvm.parse_assembly(ir)
            self.module.verify()
            tuning = llvm.create_pipeline_tuning_options(speed_level=3)
            tuning.loop_vectorization = True
            tuning.loop_unrolling = True
            passes = llvm.create_pass_builder(self.machine, tuning)
            passes.getModulePassManager().run(self.module, passes)
            self._engine = llvm.create_mcjit_compiler(self.module, self.machine)
            self._engine.finalize_object()

    def function(self, name: str, *arguments: Any) -> Any:
        """The C function `void name(arguments)`; calling it releases the GIL."""
        return ctypes.CFUNCTYPE(None, *arguments)(self._engine.get_function_address(name))

    def assembly(self) -> str:
        """What was compiled, for people and for the test that looks for fused multiply-adds."""
        return self.machine.emit_assembly(self.module)  # type: ignore[no-any-return]


class LlvmKernel:
    """A program in one dtype, compiled. Safe to call from several threads on different arrays."""

    def __init__(self, program: Program, dtype: np.dtype[Any], crew: Crew) -> None:
        self.program = program
        self.dtype = dtype
        self.crew = crew
        self.compiled = Compiled(spell(program, dtype))
        pointers = [ctypes.c_void_p] * (len(program.inputs) + 2)
        self._typecode = self.dtype.char
        self.run = self.compiled.function("rule", *pointers, ctypes.c_int64)

    def __call__(
        self, out: Array, w: Array, g: Array, slots: Sequence[Array], scalars: Sequence[float]
    ) -> None:
        """Write the new weight to `out`, which may be `w`, and the new slots in place."""
        require_fit(self.program, self.dtype, out, w, g, slots)
        cast = array(self._typecode, scalars)  # rounds to nearest; what is too large is infinite
        numbers, _ = cast.buffer_info()
        starts = [address(array) for array in (out, w, g, *slots)]
        size = self.dtype.itemsize

        def run(start: int, stop: int) -> None:
            self.run(*(base + start * size for base in starts), numbers, stop - start)

        if out.nbytes < 2 * PART_BYTES:
            run(0, out.size)
        else:
            self.crew.spread(run, parts(starts[0], out.size, size))

    def bind(self, w: Array, slots: Sequence[Array]) -> Bound:
        """The kernel for arrays that stay where they are; what does not change is checked once."""
        require_fit(self.program, self.dtype, w, w, w, slots)
        if w.nbytes >= 2 * PART_BYTES:
            return bound(self, w, slots)
        return _LlvmBound(self, w, slots)


class _LlvmBound:
    """One thread's pass over arrays whose addresses are known; it keeps them alive."""

    def __init__(self, kernel: LlvmKernel, w: Array, slots: Sequence[Array]) -> None:
        self._kernel, self._held = kernel, (w, *slots)
        self._w, *self._slots = (address(array) for array in self._held)
        self._dtype, self._size, self._run = kernel.dtype, w.size, kernel.run

    def __call__(self, g: Array, scalars: Sequence[float]) -> None:
        """One update of `w` in place."""
        if g.size != self._size:
            raise ValueError(f"the gradient has {g.size} elements, expected {self._size}")
        require_flat(g, self._dtype)
        cast = array(self._dtype.char, scalars)
        numbers, _ = cast.buffer_info()
        self._run(self._w, self._w, address(g), *self._slots, numbers, self._size)


def parts(base: int, count: int, itemsize: int) -> list[tuple[int, int]]:
    """Ranges of about PART_BYTES with their inner edges on cache lines: no two threads write to one."""
    lead = -base % CACHE_LINE_BYTES // itemsize
    edges = [0, *range(lead + PART_BYTES // itemsize, count, PART_BYTES // itemsize), count]
    return [(start, stop) for start, stop in pairwise(edges) if start < stop]


def spell(program: Program, dtype: np.dtype[Any]) -> str:
    """The program as LLVM IR: `void rule(out, w, g, slots…, scalars, count)`."""
    real, suffix = TYPES[dtype]
    arrays = ("out", *program.inputs)
    bases = ", ".join(f"ptr %{name}.base" for name in arrays)
    lines = [
        *(f"declare {real} @llvm.{name}.{suffix}({real})" for name in ("sqrt", "fabs")),
        f"define void @rule({bases}, ptr %scalars, i64 %count) {{",
        "entry:",
    ]
    for i, ref in enumerate(program.scalars):
        lines += [
            f"  %{ref}.at = getelementptr {real}, ptr %scalars, i64 {i}",
            f"  %{ref} = load {real}, ptr %{ref}.at",
        ]
    lines += ["  %none = icmp sle i64 %count, 0", "  br i1 %none, label %done, label %loop", "loop:"]
    lines.append("  %i = phi i64 [0, %entry], [%next, %loop]")
    lines += [f"  %{name}.at = getelementptr {real}, ptr %{name}.base, i64 %i" for name in arrays]
    # A gradient lies wherever its body's header ended, so no alignment is promised; that costs nothing.
    lines += [
        f"  %{name} = load {real}, ptr %{name}.at, align 1, !llvm.access.group !0" for name in program.inputs
    ]
    for step in program.steps:
        lines += [f"  {line}" for line in instructions(step, real, suffix)]
    lines += [
        f"  store {real} %{value}, ptr %{target}.at, align 1, !llvm.access.group !0"
        for target, value in program.assignments
    ]
    lines += ["  %next = add nuw i64 %i, 1", "  %last = icmp eq i64 %next, %count"]
    lines += ["  br i1 %last, label %done, label %loop, !llvm.loop !1", "done:", "  ret void", "}"]
    return "\n".join([*lines, *INDEPENDENT])


def instructions(step: Step, real: str, suffix: str) -> list[str]:
    operands = [f"%{operand}" for operand in step.operands]
    result = f"%{step.result}"
    template = OPERATIONS[step.operation].llvm
    *parts, last = template.format(*operands, type=real, suffix=suffix, result=result).split("\n")
    return [*parts, f"{result} = {last}"]


INDEPENDENT = (
    "!0 = distinct !{}",
    "!1 = distinct !{!1, !2, !3}",
    '!2 = !{!"llvm.loop.parallel_accesses", !0}',
    '!3 = !{!"llvm.loop.vectorize.enable", i1 true}',
)
