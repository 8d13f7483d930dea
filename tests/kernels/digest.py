"""One digest over what every program and the canonical sum make of the same arrays; as a module, NumPy's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.elements import corners
from gradledger_server.kernels.blocked import BlockedKernel
from gradledger_server.kernels.reductions import sum_of_squares
from tests.kernels.programs import OPTIMIZERS, Array, drawn, run, traced


def digest(make: Callable[..., Any], total: Callable[[Array], float]) -> str:
    """SHA-256, hex, over the results of `make(program, dtype)` and their sums of squares."""
    whole = hashlib.sha256()
    for name in OPTIMIZERS:
        program, scalars = traced(name)
        for dtype in (np.float32, np.float64):
            kernel = make(program, np.dtype(dtype))
            for arrays in (drawn(program, 40_001, dtype), corners(program.inputs, np.dtype(dtype))):
                for values in run(kernel, arrays, scalars).values():
                    values[np.isnan(values)] = 0.0  # whose sign and payload IEEE leaves open
                    whole.update(values.tobytes())
                    whole.update(repr(total(values)).encode())
    return whole.hexdigest()


if __name__ == "__main__":
    print(digest(BlockedKernel, sum_of_squares))
