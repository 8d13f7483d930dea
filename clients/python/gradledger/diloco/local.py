"""Where a worker's parameters live while it trains: in NumPy arrays here, in a module with PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gradledger.tensors import Params


class Local(Protocol):
    """Parameters by name. The service keeps a master copy in float32, or in float64 of what is float64."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every parameter that takes part."""
        ...

    def read(self, names: Iterable[str]) -> Params:
        """Copies of these, in the master copy's dtype."""
        ...

    def write(self, params: Mapping[str, NDArray[Any]]) -> None:
        """Sets these; whatever dtype they have here may round them."""
        ...


class Arrays:
    """NumPy arrays, changed in place. Raises TypeError for arrays that are not of floating point."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = dict(arrays)
        self._masters = {name: master_dtype(name, array.dtype) for name, array in arrays.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._arrays)

    def read(self, names: Iterable[str]) -> Params:
        return {name: np.array(self._arrays[name], self._masters[name]) for name in names}

    def write(self, params: Mapping[str, NDArray[Any]]) -> None:
        for name, value in params.items():
            self._arrays[name][...] = value


def master_dtype(name: str, dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype of a parameter's master copy."""
    dtype = np.dtype(dtype)
    if dtype.kind != "f" and dtype.name != "bfloat16":
        raise TypeError(f"parameter {name!r} is {dtype}; expected floating point")
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)
