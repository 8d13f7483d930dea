"""The kernel in plain NumPy: the program is walked once per block small enough to stay in the cache.

Every step is one ufunc with `out=`, so nothing is allocated while it runs. A step writes straight into the
array its value is meant for, if nobody still needs what is there, and else into a row of scratch memory,
which is given back after its last use.

This kernel is the reference: the others have to give its bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradledger_server.kernels.arrays import Array, require_fit
from gradledger_server.kernels.kernel import Bound, bound
from gradledger_server.kernels.operations import OPERATIONS
from gradledger_server.kernels.trace import Program

BLOCK_BYTES = 128 * 1024  # half a dozen arrays of this size share the cache; smaller blocks drown in calls


@dataclass(frozen=True, slots=True)
class Move:
    """One call of a ufunc, or of what serves as one.

    A place is an array's letter, "out", a scalar's name, or a scratch row's number.
    """

    ufunc: Callable[..., Any]
    operands: tuple[str | int, ...]
    place: str | int


class BlockedKernel:
    """A program in one dtype. Safe to call from several threads on different arrays."""

    def __init__(self, program: Program, dtype: np.dtype[Any]) -> None:
        self.program = program
        self.dtype = dtype
        self.moves, self.rows = plan(program)

    def __call__(
        self, out: Array, w: Array, g: Array, slots: Sequence[Array], scalars: Sequence[float]
    ) -> None:
        """Write the new weight to `out`, which may be `w`, and the new slots in place."""
        require_fit(self.program, self.dtype, out, w, g, slots)
        whole = dict(zip(("out", *self.program.inputs), (out, w, g, *slots), strict=True))
        with np.errstate(all="ignore"):  # overflow and NaN go where IEEE says, as in the compiled kernel
            cast = {ref: self.dtype.type(x) for ref, x in zip(self.program.scalars, scalars, strict=True)}
            block = BLOCK_BYTES // self.dtype.itemsize
            scratch = np.empty((self.rows, min(block, out.size)), self.dtype)
            for start in range(0, out.size, block):
                places: dict[Any, Any] = {name: a[start : start + block] for name, a in whole.items()}
                length = places["out"].size
                places |= cast
                places |= {row: scratch[row, :length] for row in range(self.rows)}
                for move in self.moves:
                    move.ufunc(*(places[operand] for operand in move.operands), out=places[move.place])

    def bind(self, w: Array, slots: Sequence[Array]) -> Bound:
        """The kernel for arrays that stay where they are."""
        return bound(self, w, slots)


def plan(program: Program) -> tuple[list[Move], int]:
    """Where each value is kept, and how many rows of scratch memory that takes."""
    last_use = {operand: i for i, step in enumerate(program.steps) for operand in step.operands}
    targets: dict[str, list[str]] = {}
    for target, value in program.assignments:
        targets.setdefault(value, []).append(target)
    place: dict[str, str | int] = {name: name for name in (*program.inputs, *program.scalars)}
    moves: list[Move] = []
    free: list[int] = []
    rows = 0
    for i, step in enumerate(program.steps):
        operands = tuple(place[operand] for operand in step.operands)
        for operand in dict.fromkeys(step.operands):
            row = place[operand]
            if isinstance(row, int) and last_use[operand] == i and operand not in targets:
                free.append(row)
        home = next(
            (t for t in targets.get(step.result, ()) if last_use.get("w" if t == "out" else t, -1) <= i), None
        )
        if home is None and not free:
            free.append(rows)
            rows += 1
        place[step.result] = home if home is not None else free.pop()
        moves.append(Move(_ufunc(step.operation), operands, place[step.result]))
    for value, names in targets.items():
        moves += [Move(_ufunc("copy"), (place[value],), name) for name in names if place[value] != name]
    return moves, rows


def _ufunc(operation: str) -> Callable[..., Any]:
    ufunc = OPERATIONS[operation].numpy
    assert ufunc is not None
    return ufunc
