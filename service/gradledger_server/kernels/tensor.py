"""A tensor in its shape, computed on at once: what a rule on matrices is called with.

Every operation is NumPy's own, elementwise and rounded as IEEE says, or one of the canonical ones: `norm`
(`reductions.py`), `row_means` and `column_means` (`sums.py`) and `@` (`products.py`). So these rules have
the same bits wherever they run, which is always on a CPU.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gradledger_server.kernels import reductions, sums
from gradledger_server.kernels.operations import OPERATIONS, Symbol

Array = npt.NDArray[Any]


class Arithmetic(Protocol):
    """What a tensor needs of a CPU."""

    def sum_of_squares(self, array: Array) -> float: ...

    def product(self, a: Array, b: Array) -> Array: ...


class Tensor(Symbol):
    """`values` in float32 or float64; operations give new tensors and raise no floating-point warnings."""

    __slots__ = ("on", "values")

    def __init__(self, values: Array, on: Arithmetic) -> None:
        self.values = values
        self.on = on

    def record(self, operation: str, operands: tuple[Any, ...]) -> Any:
        """Computes; the base class would have it noted."""
        if operation == "norm":
            return reductions.norm(np.ascontiguousarray(self.values).reshape(-1), self.on.sum_of_squares)
        if OPERATIONS[operation].shaped:
            return self._like(OPERATIONS[operation].host(*(plain(operand) for operand in operands)))
        ufunc = OPERATIONS[operation].numpy
        if ufunc is None:
            raise TypeError(f"{operation!r} is for scalars: it is not the same bits on every machine")
        with np.errstate(all="ignore"):
            return self._like(ufunc(*(plain(operand) for operand in operands)))

    def __matmul__(self, other: Tensor) -> Tensor:
        """The canonical product of two matrices."""
        return self._like(self.on.product(self.values, other.values))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def rms(self) -> float:
        """The root of the mean square of all elements, float64; 0.0 if there are none."""
        if not self.values.size:
            return 0.0
        length: float = self.record("norm", (self,))
        return length / float(np.sqrt(self.values.size))

    @property
    def transposed(self) -> Tensor:
        """The last two axes exchanged."""
        return self._like(np.swapaxes(self.values, -1, -2))

    def moved(self, axes: tuple[int, int]) -> Tensor:
        """With these two axes last, in this order."""
        return self._like(np.moveaxis(self.values, axes, (-2, -1)))

    def returned(self, axes: tuple[int, int]) -> Tensor:
        """With its last two axes back where `moved` took them from."""
        return self._like(np.moveaxis(self.values, (-2, -1), axes))

    def row_means(self) -> Tensor:
        """[..., rows, columns] → [..., rows, 1]; what overflows is the largest finite number."""
        return self._means(sums.row_sums(self.values)[..., None], -1)

    def column_means(self) -> Tensor:
        """[..., rows, columns] → [..., 1, columns]; what overflows is the largest finite number."""
        return self._means(sums.column_sums(self.values)[..., None, :], -2)

    def at_least(self, floor: float) -> Tensor:
        """The larger of each element and `floor`."""
        with np.errstate(over="ignore"):
            return self._like(np.maximum(self.values, floor))

    def _means(self, totals: Array, axis: int) -> Tensor:
        count = max(self.values.shape[axis], 1)
        most = np.finfo(self.values.dtype).max
        with np.errstate(all="ignore"):
            return self._like(np.minimum(totals / count, most).astype(self.values.dtype))

    def _like(self, values: Any) -> Tensor:
        return Tensor(np.asarray(values), self.on)


def plain(operand: Any) -> Any:
    """An operand as NumPy takes it: a scalar is a Python float, which takes on the array's dtype."""
    return operand.values if isinstance(operand, Tensor) else float(operand)
