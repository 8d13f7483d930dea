"""The kernel on rows (`rows.py`) compiled with LLVM: the rule walks w and the slots where they lie.

    for each row:   ask for the memory of the row that comes AHEAD rows later
                    load what depends on the row's t, once
                    for each element: the rule, vectorised

Rows are reached in no order, so a row's first bytes are seldom in the cache, and waiting for them would take
longer than all the arithmetic. Nothing is gathered, scattered or spread.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradledger_server.kernels.arrays import CACHE_LINE_BYTES, Array, address
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.llvm import INDEPENDENT, PART_BYTES, TYPES, Compiled, instructions
from gradledger_server.kernels.per_row import per_row
from gradledger_server.kernels.rows import Visit, require_visit
from gradledger_server.kernels.trace import Program

AHEAD = 8  # rows
AHEAD_BYTES = 1024  # of a row: the processor itself asks for what comes behind them


class LlvmRowKernel:
    """A program in one dtype, compiled. Safe to call from several threads on different rows."""

    def __init__(self, program: Program, dtype: np.dtype[Any], crew: Crew) -> None:
        self.program = program
        self.dtype = dtype
        self.crew = crew
        self.compiled = Compiled(spell(program, dtype))
        pointers = [ctypes.c_void_p] * (len(program.inputs) + 4)
        self._typecode = dtype.char
        self._run = self.compiled.function("rows", *pointers, *[ctypes.c_int64] * 2)

    def __call__(
        self, visit: Visit, w: Array, g: Array, slots: Sequence[Array], scalars: Sequence[float]
    ) -> None:
        """Move the rows and their slots in place."""
        require_visit(self.program, self.dtype, visit, w, g, slots)
        shared = array(self._typecode, scalars)  # rounds to nearest; what is too large is infinite
        places, which, start_of_g = (address(held) for held in (visit.places, visit.which, g))
        tables = [address(table) for table in (w, *slots)]
        rest = (shared.buffer_info()[0], address(visit.moments))
        width, row_bytes = visit.width, visit.width * self.dtype.itemsize

        def run(start: int, stop: int) -> None:
            here = (places + 4 * start, which + 8 * start, tables[0], start_of_g + start * row_bytes)
            self._run(*here, *tables[1:], *rest, stop - start, width)

        stride = max(PART_BYTES // row_bytes, 1)
        if visit.places.size < 2 * stride:
            run(0, visit.places.size)
        else:
            edges = range(0, visit.places.size, stride)
            self.crew.spread(run, [(at, min(at + stride, visit.places.size)) for at in edges])


def spell(program: Program, dtype: np.dtype[Any]) -> str:
    """`void rows(places, which, w, g, slots…, scalars, moments, count, width)` in LLVM IR."""
    real, suffix = TYPES[dtype]
    varied, varying = per_row(program)
    bases = ", ".join(f"ptr %{name}.base" for name in program.inputs)
    tables = ("w", *program.slots)
    lines = [
        *(f"declare {real} @llvm.{name}.{suffix}({real})" for name in ("sqrt", "fabs")),
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
        f"define void @rows(ptr %places, ptr %which, {bases}, ptr %scalars, ptr %moments,"
        " i64 %count, i64 %width) {",
        "entry:",
        *_loads(tuple(varied.scalars), "%scalars", real),
        f"  %row.bytes = mul i64 %width, {dtype.itemsize}",
        f"  %far = icmp ugt i64 %row.bytes, {AHEAD_BYTES}",
        f"  %ahead.bytes = select i1 %far, i64 {AHEAD_BYTES}, i64 %row.bytes",
        "  %final = sub i64 %count, 1",
        "  %none = icmp sle i64 %count, 0",
        "  %flat = icmp sle i64 %width, 0",
        "  %idle = or i1 %none, %flat",
        "  br i1 %idle, label %done, label %row",
        "row:",
        "  %r = phi i64 [0, %entry], [%r.next, %row.end]",
        *_ahead(tables),
        "begin:",
        *_place("here", "%r"),
        *(f"  %{name}.row = getelementptr i8, ptr %{name}.base, i64 %here.bytes" for name in tables),
        "  %g.bytes = mul i64 %r, %row.bytes",
        "  %g.row = getelementptr i8, ptr %g.base, i64 %g.bytes",
        "  %which.at = getelementptr i64, ptr %which, i64 %r",
        "  %line = load i64, ptr %which.at, align 1",
        f"  %line.bytes = mul i64 %line, {len(varying) * dtype.itemsize}",
        "  %moment = getelementptr i8, ptr %moments, i64 %line.bytes",
        *_loads(tuple(varying), "%moment", real),
        "  br label %loop",
        *_loop(program, real, suffix),
        "row.end:",
        "  %r.next = add nuw i64 %r, 1",
        "  %r.last = icmp eq i64 %r.next, %count",
        "  br i1 %r.last, label %done, label %row",
        "done:",
        "  ret void",
        "}",
    ]
    return "\n".join([*lines, *INDEPENDENT])


def _loads(names: Sequence[str], base: str, real: str) -> Iterator[str]:
    for i, name in enumerate(names):
        yield f"  %{name}.at = getelementptr {real}, ptr {base}, i64 {i}"
        yield f"  %{name} = load {real}, ptr %{name}.at, align 1"


def _place(name: str, row: str) -> list[str]:
    """Where in the tables the visit's `row` lies, in bytes."""
    return [
        f"  %{name}.at = getelementptr i32, ptr %places, i64 {row}",
        f"  %{name}.place = load i32, ptr %{name}.at, align 1",
        f"  %{name}.wide = zext i32 %{name}.place to i64",
        f"  %{name}.bytes = mul i64 %{name}.wide, %row.bytes",
    ]


def _ahead(tables: Sequence[str]) -> list[str]:
    """Ask for a later row of each table, cache line by cache line; of the last rows, for the last again."""
    fetches = []
    for name in tables:
        fetches += [
            f"  %{name}.ahead = getelementptr i8, ptr %{name}.base, i64 %ahead.line",
            f"  call void @llvm.prefetch.p0(ptr %{name}.ahead, i32 1, i32 3, i32 1)",
        ]
    return [
        f"  %r.ahead = add nuw i64 %r, {AHEAD}",
        "  %r.beyond = icmp ugt i64 %r.ahead, %final",
        "  %r.later = select i1 %r.beyond, i64 %final, i64 %r.ahead",
        *_place("later", "%r.later"),
        "  br label %ahead",
        "ahead:",
        "  %b = phi i64 [0, %row], [%b.next, %ahead]",
        "  %ahead.line = add i64 %later.bytes, %b",
        *fetches,
        f"  %b.next = add nuw i64 %b, {CACHE_LINE_BYTES}",
        "  %b.more = icmp ult i64 %b.next, %ahead.bytes",
        "  br i1 %b.more, label %ahead, label %begin",
    ]


def _loop(program: Program, real: str, suffix: str) -> list[str]:
    """The rule, element by element of one row."""
    lines = ["loop:", "  %i = phi i64 [0, %begin], [%next, %loop]"]
    for name in program.inputs:
        lines += [
            f"  %{name}.at = getelementptr {real}, ptr %{name}.row, i64 %i",
            f"  %{name} = load {real}, ptr %{name}.at, align 1, !llvm.access.group !0",
        ]
    for step in program.steps:
        lines += [f"  {line}" for line in instructions(step, real, suffix)]
    for target, value in program.assignments:
        place = "w" if target == "out" else target
        lines.append(f"  store {real} %{value}, ptr %{place}.at, align 1, !llvm.access.group !0")
    return [
        *lines,
        "  %next = add nuw i64 %i, 1",
        "  %last = icmp eq i64 %next, %width",
        "  br i1 %last, label %row.end, label %loop, !llvm.loop !1",
    ]
