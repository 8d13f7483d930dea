"""Powers, rounded to the nearest float64: what a library's `pow` leaves to the processor is decided here.

Two hundred bits round right but for one case in some 10^44. A rule's powers go on by one from step to step,
so the next one is mostly the last one times the base, at a tenth of the time; what that adds to the error
over 10^9 steps is still 100 bits away from mattering, so the bits do not depend on the way there.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from decimal import Context, Decimal
from functools import lru_cache

_KEPT = 4096
_BITS = 200
# Nothing traps, so a tiny result is 0.
_WIDE = Context(prec=62, Emin=-9999, Emax=9999, traps=[])
_SUBNORMAL = -1020  # below this exponent a float64 has fewer bits, and is rounded only once if by division

Wide = tuple[int, int]  # n and e: the number n · 2^e, n of about 200 bits
_latest: OrderedDict[tuple[float, float], Wide] = OrderedDict()


@lru_cache(maxsize=_KEPT)  # the tensors of a model mostly share their t
def power(base: float, exponent: float) -> float:
    """The base, 0 or more, to that power. Zero to any other power than 0 is 0; never an exception."""
    if base == 0.0:
        return 1.0 if exponent == 0.0 else 0.0
    before = _latest.pop((base, exponent - 1.0), None)
    if before is not None:
        wide = _times(before, base)
    elif (value := _WIDE.power(Decimal(base), Decimal(exponent))).is_finite():
        wide = _wide(*value.as_integer_ratio())
    else:
        return float(value)
    _latest[base, exponent] = wide
    if len(_latest) > _KEPT:
        _latest.popitem(last=False)
    return _nearest(*wide)


class Series:
    """`power` of one base for who asks for one after the other: the next one needs no looking up."""

    def __init__(self, base: float) -> None:
        self._base = base
        self._latest: tuple[float, Wide, float] | None = None  # replaced as a whole: threads may share it

    def __call__(self, exponent: float) -> float:
        """The base to that power, the same bits."""
        latest = self._latest
        if latest is not None and exponent == latest[0]:
            return latest[2]
        if latest is None or exponent != latest[0] + 1.0:
            found, kept = power(self._base, exponent), _latest.get((self._base, exponent))
            self._latest = None if kept is None else (exponent, kept, found)
            return found
        wide = _times(latest[1], self._base)
        found = _nearest(*wide)
        self._latest = exponent, wide, found
        return found


def _wide(numerator: int, denominator: int) -> Wide:
    """The quotient, cut to 200 bits and more."""
    shift = max(0, _BITS + denominator.bit_length() - numerator.bit_length())
    return (numerator << shift) // denominator, -shift


def _times(number: Wide, factor: float) -> Wide:
    """The product, cut to 200 bits."""
    numerator, denominator = factor.as_integer_ratio()  # the denominator of a float is a power of two
    n, e = number[0] * numerator, number[1] - denominator.bit_length() + 1
    surplus = max(0, n.bit_length() - _BITS)
    return n >> surplus, e + surplus


def _nearest(n: int, e: int) -> float:
    """n · 2^e as float64, to the nearest, ties to even; too large is infinite."""
    top = n.bit_length() + e
    if top > 1024:
        return math.inf
    if top < _SUBNORMAL:
        return n / (1 << -e)
    try:
        return math.ldexp(float(n), e)
    except OverflowError:  # it rounds up to 2^1024
        return math.inf
