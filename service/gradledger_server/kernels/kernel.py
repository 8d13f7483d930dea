"""What every backend makes of a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Array = Any  # numpy.ndarray or cupy.ndarray: flat, contiguous, float32 or float64


class Kernel(Protocol):
    """One fused elementwise update."""

    def __call__(
        self, out: Array, w: Array, g: Array, slots: Sequence[Array], scalars: Sequence[float]
    ) -> None:
        """Write the new weight to `out` (which may be `w` itself) and the new slots in place.

        All arrays have the kernel's dtype and one length; slices of larger arrays are welcome. `scalars` is
        `program.evaluate(…)`, float64, cast here once. Raises ValueError where the arrays do not fit.
        """
