"""A program's scalars with everything folded that is known beforehand; the rest follows t, s, lr and norm.

Each is worked out by the same operations on the same float64 as `Program.evaluate`, so it has the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter

from gradledger_server.kernels.operations import OPERATIONS
from gradledger_server.kernels.powers import Series, power
from gradledger_server.kernels.trace import Program, Scalar

Now = Mapping[str, float]
Open = Callable[[Now], float]  # what has to wait for the moment


class Folded:
    """`program.evaluate` for one set of hyperparameters: call it with the rest."""

    def __init__(self, program: Program, known: Mapping[str, float]) -> None:
        scalars = [_fold(scalar, known) for scalar in program.scalars.values()]
        self._known = [scalar if isinstance(scalar, float) else math.nan for scalar in scalars]
        self._open = [
            (place, scalar) for place, scalar in enumerate(scalars) if not isinstance(scalar, float)
        ]

    def __call__(self, now: Now) -> list[float]:
        """The scalars a kernel needs."""
        scalars = self._known.copy()
        for at, scalar in self._open:
            scalars[at] = scalar(now)
        return scalars


def _fold(scalar: Scalar | float, known: Mapping[str, float]) -> float | Open:
    if not isinstance(scalar, Scalar):
        return float(scalar)
    if not scalar.operands:
        name = scalar.name
        return float(known[name]) if name in known else itemgetter(name)
    operation = OPERATIONS[scalar.name].host
    operands = [_fold(operand, known) for operand in scalar.operands]
    if all(isinstance(operand, float) for operand in operands):
        return float(operation(*operands))
    if len(operands) == 2:
        return _of_two(operation, *operands)
    return lambda now: float(operation(*(x if isinstance(x, float) else x(now) for x in operands)))


def _of_two(operation: Callable[..., float], left: float | Open, right: float | Open) -> Open:
    if isinstance(left, float):
        assert not isinstance(right, float)
        of_right = Series(left) if operation is power else partial(operation, left)
        return lambda now: float(of_right(right(now)))
    if isinstance(right, float):
        return lambda now: float(operation(left(now), right))
    return lambda now: float(operation(left(now), right(now)))
