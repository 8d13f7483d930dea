"""Powers, rounded to the nearest float64: what a library's `pow` leaves to the processor is decided here.

Sixty digits round right but for one case in some 10^40. A rule's powers go on by one from step to step, so
the next one is mostly the last one times the base, at a tenth of the time; what that adds to the error over
10^9 steps is still 30 digits away from mattering, so the bits do not depend on the way there.
"""

from __future__ import annotations

from collections import OrderedDict
from decimal import Context, Decimal
from functools import lru_cache

_KEPT = 4096
# Nothing traps, so a tiny result is 0.
_WIDE = Context(prec=60, Emin=-9999, Emax=9999, traps=[])
_latest: OrderedDict[tuple[float, float], Decimal] = OrderedDict()


@lru_cache(maxsize=_KEPT)  # the tensors of a model mostly share their t
def power(base: float, exponent: float) -> float:
    """The base, 0 or more, to that power. Zero to any other power than 0 is 0; never an exception."""
    if base == 0.0:
        return 1.0 if exponent == 0.0 else 0.0
    before = _latest.pop((base, exponent - 1.0), None)
    if before is None:
        value = _WIDE.power(Decimal(base), Decimal(exponent))
    else:
        value = _WIDE.multiply(before, Decimal(base))
    _latest[base, exponent] = value
    if len(_latest) > _KEPT:
        _latest.popitem(last=False)
    return float(value)
