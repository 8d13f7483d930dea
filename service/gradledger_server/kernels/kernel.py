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

    def bind(self, w: Array, slots: Sequence[Array]) -> Bound:
        """The kernel for arrays that stay where they are, `w` updated in place. Raises ValueError."""


class Bound(Protocol):
    """A kernel that knows all its arrays but the gradient."""

    def __call__(self, g: Array, scalars: Sequence[float]) -> None:
        """One update. Raises ValueError where the gradient does not fit."""


def bound(kernel: Kernel, w: Array, slots: Sequence[Array]) -> Bound:
    """`kernel.bind` where nothing is gained by it."""
    return lambda g, scalars: kernel(w, w, g, slots, scalars)
