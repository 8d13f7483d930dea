"""The canonical matrix product (`products.py` fixes the order) compiled with LLVM.

    a --packed--> groups of 6 rows, k by k         b --packed--> panels of 16 (or 8) columns, k by k
    tile = group x panel: 6 rows of sums that stay in registers while k runs from the first to the last

Packing widens to float64 once and fills up with zeros, so the inner loop only loads, multiplies and adds.
Threads share out the panels.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from gradledger_server.kernels.arrays import Array, address
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.llvm import Compiled
from gradledger_server.kernels.products import require_fit

HEIGHT = 6  # of a tile; with its two or more registers a row, what a processor has registers for
_ALONE = 1 << 18  # multiplications: fewer are not worth waking a thread


class Product:
    """The compiled product for one dtype. Safe to call from several threads."""

    def __init__(self, dtype: np.dtype[Any], crew: Crew, *, width: int | None = None) -> None:
        """`width` is a panel's, by default what suits this processor; it changes no bits."""
        self.dtype = dtype
        self.crew = crew
        self.width = width or _width()
        self.compiled = Compiled(spell(self.width, may_fuse=dtype == np.float32))
        self._run = self.compiled.function("tiles", *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2)

    def __call__(self, a: Array, b: Array) -> Array:
        """[m, k] times [k, n] → [m, n], in the kernel's dtype."""
        require_fit(a, b)
        (m, depth), n = a.shape, b.shape[1]
        groups, panels = -(-m // HEIGHT), -(-n // self.width)
        rows, columns = _packed(a, HEIGHT), _packed(b.T, self.width)
        tiles = (np.empty if depth else np.zeros)((panels, groups, HEIGHT, self.width))

        def run(start: int, stop: int) -> None:
            for panel in range(start, stop):
                at = (address(rows), address(columns[panel]), address(tiles[panel]))
                self._run(*at, groups, depth)

        if m * n * depth < _ALONE:
            run(0, panels)
        else:
            self.crew.spread(run, [(panel, panel + 1) for panel in range(panels)])
        c: Array = np.empty((groups * HEIGHT, panels, self.width), self.dtype)
        with np.errstate(all="ignore"):
            c[...] = tiles.reshape(panels, groups * HEIGHT, self.width).transpose(1, 0, 2)
        return np.ascontiguousarray(c.reshape(groups * HEIGHT, panels * self.width)[:m, :n])


def _width() -> int:
    return 16 if llvm.get_host_cpu_features().get("avx512f", False) else 8


def _packed(matrix: Array, height: int) -> Array:
    """[rows, k] → [groups, k, height], float64, the last group filled up with zeros."""
    rows, depth = matrix.shape
    groups, whole = -(-rows // height), rows // height
    packed = np.zeros((groups, depth, height))
    packed[:whole] = matrix[: whole * height].reshape(whole, height, depth).transpose(0, 2, 1)
    if whole < groups:
        packed[whole, :, : rows - whole * height] = matrix[whole * height :].T
    return packed


def spell(width: int, *, may_fuse: bool) -> str:
    """`void tiles(a, b, c, groups, depth)` in LLVM IR: one panel of b against every group of a."""
    wide = f"<{width} x double>"
    fused = "contract " if may_fuse else ""
    rows = range(HEIGHT)
    sums = [f"  %sum{r} = phi {wide} [zeroinitializer, %group], [%sum{r}.next, %k]" for r in rows]
    step = []
    for r in rows:
        step += [
            f"  %a{r}.at = getelementptr double, ptr %as, i64 {r}",
            f"  %a{r} = load double, ptr %a{r}.at",
            f"  %one{r} = insertelement {wide} poison, double %a{r}, i64 0",
            f"  %all{r} = shufflevector {wide} %one{r}, {wide} poison, <{width} x i32> zeroinitializer",
            f"  %term{r} = fmul {fused}{wide} %all{r}, %b.k",
            f"  %sum{r}.next = fadd {fused}{wide} %sum{r}, %term{r}",
        ]
    stores = []
    for r in rows:
        stores += [
            f"  %c{r}.at = getelementptr double, ptr %cs, i64 {r * width}",
            f"  store {wide} %sum{r}.next, ptr %c{r}.at, align 8",
        ]
    lines = [
        "define void @tiles(ptr noalias %a, ptr noalias %b, ptr noalias %c, i64 %groups, i64 %depth) {",
        "entry:",
        "  %none = icmp sle i64 %groups, 0",
        "  %flat = icmp sle i64 %depth, 0",
        "  %idle = or i1 %none, %flat",
        "  br i1 %idle, label %done, label %group",
        "group:",
        "  %g = phi i64 [0, %entry], [%g.next, %store]",
        f"  %c.first = mul i64 %g, {HEIGHT * width}",
        "  %cs = getelementptr double, ptr %c, i64 %c.first",
        "  %a.first = mul i64 %g, %depth",
        "  br label %k",
        "k:",
        "  %i = phi i64 [0, %group], [%i.next, %k]",
        *sums,
        "  %a.k = add i64 %a.first, %i",
        f"  %a.row = mul i64 %a.k, {HEIGHT}",
        "  %as = getelementptr double, ptr %a, i64 %a.row",
        f"  %b.row = mul i64 %i, {width}",
        "  %b.at = getelementptr double, ptr %b, i64 %b.row",
        f"  %b.k = load {wide}, ptr %b.at, align 8",
        *step,
        "  %i.next = add nuw i64 %i, 1",
        "  %i.last = icmp eq i64 %i.next, %depth",
        "  br i1 %i.last, label %store, label %k",
        "store:",
        *stores,
        "  %g.next = add nuw i64 %g, 1",
        "  %g.last = icmp eq i64 %g.next, %groups",
        "  br i1 %g.last, label %done, label %group",
        "done:",
        "  ret void",
        "}",
    ]
    return "\n".join(lines)
