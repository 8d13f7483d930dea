"""The canonical sum of squares (`reductions.py` fixes the order) compiled with LLVM, at the speed of memory.

The lanes of a block are one wide vector in the IR; LLVM spreads it over as many registers as the processor
needs.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from gradledger_server.kernels.arrays import Array, address, require_flat
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.llvm import PART_BYTES, TYPES, Compiled
from gradledger_server.kernels.reductions import BLOCK, LANES, ROWS, filled, halve


class SumOfSquares:
    """The compiled sum for one dtype. Safe to call from several threads."""

    def __init__(self, dtype: np.dtype[Any], crew: Crew) -> None:
        self.dtype = dtype
        self.crew = crew
        self.compiled = Compiled(spell(dtype))
        self._run = self.compiled.function("sums", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)

    def __call__(self, array: Array) -> float:
        """The canonical sum of the squares of a flat, contiguous array."""
        require_flat(array, self.dtype)
        whole = array.size // BLOCK
        if whole == 1 and array.size == BLOCK:
            total = ctypes.c_double()
            self._run(address(array), ctypes.byref(total), 1)
            return total.value
        sums = np.empty(-(-array.size // BLOCK))
        self._sum_blocks(array, sums, whole)
        if whole < sums.size:
            self._sum_blocks(filled(array[whole * BLOCK :]), sums[whole:], 1)
        return halve(sums) if sums.size != 1 else float(sums[0])

    def _sum_blocks(self, array: Array, sums: Array, count: int) -> None:
        source, target = address(array), address(sums)
        block_bytes = BLOCK * array.itemsize

        def run(start: int, stop: int) -> None:
            self._run(source + start * block_bytes, target + start * sums.itemsize, stop - start)

        stride = PART_BYTES // block_bytes
        if count < 2 * stride:
            run(0, count)
        else:
            self.crew.spread(run, [(at, min(at + stride, count)) for at in range(0, count, stride)])


def spell(dtype: np.dtype[Any]) -> str:
    """`void sums(elements, sums, count)` in LLVM IR: one float64 per block of elements."""
    real, _ = TYPES[dtype]
    wide = f"<{LANES} x double>"
    load = f"load <{LANES} x {real}>, ptr %at, align 1"
    widened = [f"  %x = {load}"]
    if real == "float":
        widened = [f"  %raw = {load}", f"  %x = fpext <{LANES} x float> %raw to {wide}"]
    lines = [
        "define void @sums(ptr %elements, ptr %sums, i64 %count) {",
        "entry:",
        "  %none = icmp sle i64 %count, 0",
        "  br i1 %none, label %done, label %block",
        "block:",
        "  %b = phi i64 [0, %entry], [%b.next, %fold]",
        f"  %b.first = mul i64 %b, {BLOCK}",
        "  br label %row",
        "row:",
        "  %r = phi i64 [0, %block], [%r.next, %row]",
        f"  %lanes = phi {wide} [zeroinitializer, %block], [%lanes.next, %row]",
        f"  %r.first = mul i64 %r, {LANES}",
        "  %first = add i64 %b.first, %r.first",
        f"  %at = getelementptr {real}, ptr %elements, i64 %first",
        *widened,
        f"  %square = fmul {wide} %x, %x",
        f"  %lanes.next = fadd {wide} %lanes, %square",
        "  %r.next = add nuw i64 %r, 1",
        f"  %r.last = icmp eq i64 %r.next, {ROWS}",
        "  br i1 %r.last, label %fold, label %row",
        "fold:",
        *_fold("%lanes.next"),
        "  %sum.at = getelementptr double, ptr %sums, i64 %b",
        "  store double %sum, ptr %sum.at",
        "  %b.next = add nuw i64 %b, 1",
        "  %b.last = icmp eq i64 %b.next, %count",
        "  br i1 %b.last, label %done, label %block",
        "done:",
        "  ret void",
        "}",
    ]
    return "\n".join(lines)


def _fold(lanes: str) -> list[str]:
    """Halve the lanes until one is left, `%sum`."""
    lines, width = [], LANES
    while width > 1:
        half = width // 2
        for side, first in (("low", 0), ("high", half)):
            order = ", ".join(f"i32 {i}" for i in range(first, first + half))
            source = f"<{width} x double> {lanes}, <{width} x double> poison"
            lines.append(f"  %{side}{half} = shufflevector {source}, <{half} x i32> <{order}>")
        lines.append(f"  %lanes{half} = fadd <{half} x double> %low{half}, %high{half}")
        lanes, width = f"%lanes{half}", half
    return [*lines, f"  %sum = extractelement <1 x double> {lanes}, i32 0"]
