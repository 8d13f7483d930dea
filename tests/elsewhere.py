"""A device whose memory is not the host's, and which can do no more than a GPU of ours may be asked for.

Its arrays can be cut, copied and cleared. Whatever else is done with one outside a kernel fails: arithmetic,
comparison, being taken for a NumPy array.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.kernel import Bound, bound
from gradledger_server.kernels.trace import Program

Host = npt.NDArray[Any]


class There:
    """A flat array in the device's memory."""

    __array_ufunc__ = None  # so that NumPy's operators refuse it instead of looking for its elements
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: Host) -> None:
        assert values.ndim == 1
        self._values = values
        self.size, self.dtype, self.shape = values.size, values.dtype, values.shape
        self.ndim, self.nbytes, self.flags = 1, values.nbytes, values.flags

    def __getitem__(self, here: slice) -> Self:
        assert isinstance(here, slice) and here.step is None, "an element cannot be looked at from here"
        return type(self)(self._values[here])

    def __setitem__(self, here: slice, values: There | int) -> None:
        assert isinstance(here, slice) and here.step is None
        if isinstance(values, There):
            there = self._values[here]
            assert (values.dtype, values.size) == (there.dtype, there.size), "copied, not cast or broadcast"
            there[:] = values._values
        else:
            assert isinstance(values, int) and values == 0, (
                "clearing is setting bytes; other numbers would be cast"
            )
            self._values[here] = 0

    def view(self, dtype: npt.DTypeLike) -> Self:
        return type(self)(self._values.view(dtype))

    def _refuse(self, *_: object, **__: object) -> Any:
        raise AssertionError("computed on an array of the device outside a kernel")

    __array__ = __array_function__ = __iter__ = __len__ = __bool__ = __float__ = __int__ = __index__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __iadd__ = __isub__ = __imul__ = __itruediv__ = __neg__ = __abs__ = __pow__ = __matmul__ = _refuse


class Kernel:
    """A kernel of the host's, for arrays that lie elsewhere."""

    def __init__(self, program: Program, right: Any) -> None:
        self.program, self._right = program, right

    def __call__(self, out: Any, w: Any, g: Any, slots: Sequence[Any], scalars: Sequence[float]) -> None:
        self._right(_inside(out), _inside(w), _inside(g), [_inside(slot) for slot in slots], scalars)

    def bind(self, w: Any, slots: Sequence[Any]) -> Bound:
        return bound(self, w, slots)


class Elsewhere:
    """The device. What lies here and what lies in host memory are never taken for each other."""

    on_host = False
    name = "elsewhere"

    def __init__(self) -> None:
        self.host = CpuDevice(compiled=False)

    def zeros(self, count: int, dtype: npt.DTypeLike) -> There:
        return There(self.host.zeros(count, dtype))

    def full(self, count: int, dtype: npt.DTypeLike, value: float) -> There:
        return There(self.host.full(count, dtype, value))

    def empty(self, count: int, dtype: npt.DTypeLike) -> There:
        memory = self.host.zeros(count, dtype)
        memory.view(np.uint8)[:] = 0xFF  # NaN: what is read before it is written shows
        return There(memory)

    def kernel(self, program: Program, dtype: npt.DTypeLike) -> Kernel:
        return Kernel(program, self.host.kernel(program, dtype))

    def sum_of_squares(self, array: There | Host) -> float:
        return self.host.sum_of_squares(array if isinstance(array, np.ndarray) else _inside(array))

    def to_device(self, array: There | Host) -> There:
        return array if isinstance(array, There) else There(array.copy())

    def at_home(self, array: There | Host) -> Host:
        return array if isinstance(array, np.ndarray) else _inside(array).copy()

    def to_host(self, array: There, out: Host) -> None:
        np.copyto(out, _inside(array), casting="no")


def _inside(array: Any) -> Host:
    assert isinstance(array, There), "an array in host memory was given for one of the device"
    return array._values
