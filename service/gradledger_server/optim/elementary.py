"""exp and cos as the same float64 on every machine, for scalars a replay depends on.

IEEE 754 leaves them to the C library, whose last bit depends on its version and on the processor. Here only
whole numbers and decimals of more digits than any float64 needs are computed with, and rounded once.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from functools import lru_cache

# 40 digits round to the right float64 but for one case in about 10^20; nothing traps: too large is inf.
_WIDE = Context(prec=40, Emin=-9999, Emax=9999, traps=[])

_ONE = 1 << 192  # fixed point: a number x is the whole number x * _ONE
_PI = 31415926535897932384626433832795028841971693993751058209749445923078164 * _ONE // 10**70


@lru_cache(maxsize=4096)
def exp(x: float) -> float:
    """e to the power x, correctly rounded; inf or 0 beyond float64's range."""
    return float(_WIDE.exp(Decimal(x)))


@lru_cache(maxsize=4096)
def cos_half_turns(x: float) -> float:
    """The cosine of x half turns, cos(pi * x), correctly rounded for every finite x.

    In half turns the angle is reduced without any error, however large it is: cos_half_turns(2.0**60) is 1.
    """
    x = math.fmod(abs(x), 2.0)
    if x > 1.0:
        x = 2.0 - x
    if x > 0.5:
        return -cos_half_turns(1.0 - x)
    if x > 0.25:  # near a quarter turn the cosine is the small sine of what is left to it
        return _series(0.5 - x, first=1)
    return _series(x, first=0)


def _series(half_turns: float, *, first: int) -> float:
    """Taylor's series of the cosine (`first` = 0) or the sine (1), for at most a quarter of a half turn."""
    numerator, denominator = half_turns.as_integer_ratio()
    angle = _PI * numerator // denominator
    square = angle * angle // _ONE
    term = angle if first else _ONE
    total, n = 0, first
    while term:
        total += term
        term = -(term * square // _ONE) // ((n + 1) * (n + 2))
        n += 2
        if term == -1:  # floor division never gets from -1 to 0
            break
    return total / _ONE  # of whole numbers: correctly rounded
