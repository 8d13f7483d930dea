"""The CPU as a device: compiled kernels where llvmlite is there, else NumPy's; both give the same bits."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from gradledger_server.kernels import arrays, products, reductions
from gradledger_server.kernels.arrays import Array
from gradledger_server.kernels.blocked import BlockedKernel
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.kept import KERNELS, Kept
from gradledger_server.kernels.kernel import Kernel
from gradledger_server.kernels.rows import BlockedRowKernel, RowKernel
from gradledger_server.kernels.trace import Program

try:
    from gradledger_server.kernels.llvm import LlvmKernel
    from gradledger_server.kernels.llvm_products import Product
    from gradledger_server.kernels.llvm_reductions import SumOfSquares
    from gradledger_server.kernels.llvm_rows import LlvmRowKernel
except ImportError:
    _HAS_LLVM = False
else:
    _HAS_LLVM = True


class CpuDevice:
    """Host memory and the processors this process may use."""

    def __init__(self, *, threads: int | None = None, compiled: bool = True) -> None:
        self.compiled = compiled and _HAS_LLVM
        self._crew = Crew(threads)
        self._kernels = Kept(self._made, KERNELS)
        self._row_kernels = Kept(self._made_for_rows, KERNELS)
        self._sums: dict[np.dtype[Any], SumOfSquares] = {}
        self._products: dict[np.dtype[Any], Product] = {}
        self._making = threading.Lock()

    on_host = True  # whether arrays are NumPy's own

    @property
    def name(self) -> str:
        return f"cpu ({'llvm' if self.compiled else 'numpy'}, {self._crew.threads} threads)"

    def zeros(self, count: int, dtype: npt.DTypeLike) -> Array:
        return arrays.zeros(count, dtype)

    def full(self, count: int, dtype: npt.DTypeLike, value: float) -> Array:
        array = arrays.zeros(count, dtype)
        if value != 0.0:
            array.fill(value)
        return array

    def empty(self, count: int, dtype: npt.DTypeLike) -> Array:
        return arrays.empty(count, dtype)

    def kernel(self, program: Program, dtype: npt.DTypeLike) -> Kernel:
        return self._kernels((program, np.dtype(dtype)))

    def _made(self, key: tuple[Program, np.dtype[Any]]) -> Kernel:
        return LlvmKernel(*key, self._crew) if self.compiled else BlockedKernel(*key)

    def row_kernel(self, program: Program, dtype: npt.DTypeLike) -> RowKernel:
        """The program for some rows of tables; compiled at first, then remembered."""
        return self._row_kernels((program, np.dtype(dtype)))

    def _made_for_rows(self, key: tuple[Program, np.dtype[Any]]) -> RowKernel:
        return LlvmRowKernel(*key, self._crew) if self.compiled else BlockedRowKernel(*key)

    def sum_of_squares(self, array: Array) -> float:
        if not self.compiled:
            return reductions.sum_of_squares(array)
        known = self._sums.get(array.dtype)
        if known is None:
            with self._making:
                known = self._sums.setdefault(array.dtype, SumOfSquares(array.dtype, self._crew))
        return known(array)

    def product(self, a: Array, b: Array) -> Array:
        """The canonical matrix product."""
        if not self.compiled:
            return products.product(a, b)
        with self._making:
            if a.dtype not in self._products:
                self._products[a.dtype] = Product(a.dtype, self._crew)
        return self._products[a.dtype](a, b)

    @property
    def host(self) -> CpuDevice:
        return self

    def to_device(self, array: Array) -> Array:
        return array

    def at_home(self, array: Array) -> Array:
        return array

    def to_host(self, array: Array, out: Array) -> None:
        np.copyto(out, array, casting="no")
