"""A rule on some rows of tables, where they lie: what a push of rows costs is one walk over those rows.

    kernel(visit, w, g, slots, scalars)

w and the slots are whole tables, flat; g holds the rows of the visit, back to back; `scalars` are those of
the program that do not depend on t (`per_row.py` says which). The rest stands in the visit, for each row.

Here is the reference, in NumPy: rows are fetched, advanced as one flat array, what depends on t spread over
their elements, and brought back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gradledger_server.kernels.arrays import Array
from gradledger_server.kernels.blocked import BlockedKernel
from gradledger_server.kernels.per_row import per_row
from gradledger_server.kernels.trace import Program


@dataclass(frozen=True, slots=True)
class Visit:
    """The rows to move, `width` elements each, and how often each of them has been moved.

    `places` int32 [k] says where they lie in the tables, none twice. `moments` [m, n], of the kernel's dtype,
    has the t-dependent scalars of one t in each line, and `which` int64 [k] says which line holds for a row.
    """

    places: npt.NDArray[np.int32]
    width: int
    moments: Array
    which: npt.NDArray[np.int64]


class RowKernel(Protocol):
    """One fused update of some rows."""

    def __call__(
        self, visit: Visit, w: Array, g: Array, slots: Sequence[Array], scalars: Sequence[float]
    ) -> None:
        """Move the rows and their slots in place. Raises ValueError where the arrays do not fit."""


class BlockedRowKernel:
    """A program in one dtype. Safe to call from several threads on different rows."""

    def __init__(self, program: Program, dtype: np.dtype[Any]) -> None:
        self.program = program
        self.dtype = dtype
        self._kernel = BlockedKernel(per_row(program)[0], dtype)

    def __call__(
        self, visit: Visit, w: Array, g: Array, slots: Sequence[Array], scalars: Sequence[float]
    ) -> None:
        """Move the rows and their slots in place."""
        require_visit(self.program, self.dtype, visit, w, g, slots)
        tables = [array.reshape(-1, visit.width) for array in (w, *slots)]
        here, *slots_here = (table[visit.places].reshape(-1) for table in tables)
        spread = [np.repeat(scalar[visit.which], visit.width) for scalar in visit.moments.T]
        self._kernel(here, here, g, [*slots_here, *spread], scalars)
        for table, moved in zip(tables, (here, *slots_here), strict=True):
            table[visit.places] = moved.reshape(-1, visit.width)


def require_visit(
    program: Program, dtype: np.dtype[Any], visit: Visit, w: Any, g: Any, slots: Sequence[Any]
) -> None:
    """Raise ValueError unless every row of the visit is in every array, and has its moment.

    A compiled kernel trusts its pointers; this is what it trusts them by.
    """
    if len(slots) != len(program.slots):
        raise ValueError(f"{program.name} has slots {program.slots}, got {len(slots)} arrays")
    count, rows = visit.places.size, w.size // visit.width if visit.width > 0 else 0
    expected: list[tuple[str, Any, Any, tuple[int, ...]]] = [
        ("places", visit.places, np.int32, (count,)),
        ("which", visit.which, np.int64, (count,)),
        ("moments", visit.moments, dtype, (len(visit.moments), len(per_row(program)[1]))),
        ("w", w, dtype, (rows * visit.width,)),
        ("g", g, dtype, (count * visit.width,)),
        *((name, slot, dtype, w.shape) for name, slot in zip(program.slots, slots, strict=True)),
    ]
    for name, array, kind, shape in expected:
        if array.shape != shape or array.dtype != kind or not array.flags.c_contiguous:
            raise ValueError(
                f"{program.name}: array {name!r} is {array.dtype}{list(array.shape)}, "
                f"expected contiguous {np.dtype(kind)}{list(shape)}"
            )
    # Read as unsigned, a negative number is a large one: one pass finds both ends.
    if count and visit.places.view(np.uint32).max() >= rows:
        raise ValueError(f"{program.name}: a place is outside the {rows} rows there are")
    if count and visit.which.view(np.uint64).max() >= len(visit.moments):
        raise ValueError(f"{program.name}: a row's moment is outside the {len(visit.moments)} there are")
