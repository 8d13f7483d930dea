"""Standard normal numbers from a counter: number `i` of a stream depends on its key and on `i` alone.

    (key, stream, i)  --Philox-->  64 bits  -->  u in (0, 1)  --inverse of the normal distribution-->  z

Whoever replays a log draws the same bits, on any machine and in any order. That rules out what a library's
normal generator does: it rejects (so number i depends on those before) and asks libm for exp and log, whose
last bits differ. Here everything is IEEE + - * / and sqrt in one fixed order, the logarithm too. The inverse
is Wichura's AS 241 (1988), good to about 1e-15; the smallest |u| there is, 2^-53, gives z = -8.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_LANES = 4  # numbers in one turn of Philox 4x64
_AT_ONCE = 1 << 14  # numbers whose intermediate results stay in the cache

# AS 241: z(p) = q * A(r)/B(r) in the middle, C(r)/D(r) and E(r)/F(r) in the tails; highest power first.
_A = (
    2.5090809287301226727e3,
    3.3430575583588128105e4,
    6.7265770927008700853e4,
    4.5921953931549871457e4,
    1.3731693765509461125e4,
    1.9715909503065514427e3,
    1.3314166789178437745e2,
    3.3871328727963666080,
)
_B = (
    5.2264952788528545610e3,
    2.8729085735721942674e4,
    3.9307895800092710610e4,
    2.1213794301586595867e4,
    5.3941960214247511077e3,
    6.8718700749205790830e2,
    4.2313330701600911252e1,
    1.0,
)
_C = (
    7.74545014278341407640e-4,
    2.27238449892691845833e-2,
    2.41780725177450611770e-1,
    1.27045825245236838258,
    3.64784832476320460504,
    5.76949722146069140550,
    4.63033784615654529590,
    1.42343711074968357734,
)
_D = (
    1.05075007164441684324e-9,
    5.47593808499534494600e-4,
    1.51986665636164571966e-2,
    1.48103976427480074590e-1,
    6.89767334985100004550e-1,
    1.67638483018380384940,
    2.05319162663775882187,
    1.0,
)
_E = (
    2.01033439929228813265e-7,
    2.71155556874348757815e-5,
    1.24266094738807843860e-3,
    2.65321895265761230930e-2,
    2.96560571828504891230e-1,
    1.78482653991729133580,
    5.46378491116411436990,
    6.65790464350110377720,
)
_F = (
    2.04426310338993978564e-15,
    1.42151175831644588870e-7,
    1.84631831751005468180e-5,
    7.86869131145613259100e-4,
    1.48753612908506148525e-2,
    1.36929880922735805310e-1,
    5.99832206555887937690e-1,
    1.0,
)
_LN2 = 0.6931471805599453
_HALF_ROOT = 0.7071067811865476
# 2 artanh(x) = x * (2 + 2/3 x² + 2/5 x⁴ + …): eleven terms reach float64 for |x| <= 0.172
_ARTANH = tuple(2.0 / odd for odd in range(21, 0, -2))


def standard_normal(key: tuple[int, int], stream: int, start: int, count: int) -> Numbers:
    """Numbers `start` to `start + count` of a stream, float64. Key and stream are integers below 2^64."""
    numbers = np.empty(count)
    bits = raw(key, stream, start, count)
    for first in range(0, count, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        numbers[part] = inverse(uniform(bits[part]))
    return numbers


def raw(key: tuple[int, int], stream: int, start: int, count: int) -> NDArray[np.uint64]:
    """The same numbers' 64 random bits each, before anything is made of them."""
    turn, lane = divmod(start, _LANES)
    counter = np.array([turn, stream, 0, 0], np.uint64)
    generator = np.random.Philox(counter=counter, key=np.array(key, np.uint64))
    bits: NDArray[np.uint64] = generator.random_raw(lane + count)
    return bits[lane:]


def uniform(bits: NDArray[np.uint64]) -> Numbers:
    """Numbers inside (0, 1), never at its ends, symmetric about 1/2: the upper 52 bits and a half."""
    u: Numbers = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return u


def inverse(u: Numbers) -> Numbers:
    """The z that a standard normal number stays below with probability `u`."""
    q = u - 0.5
    r = 0.180625 - q * q
    z: Numbers = q * (_polynomial(_A, r) / _polynomial(_B, r))
    (tails,) = np.nonzero(np.abs(q) > 0.425)
    if tails.size:
        z[tails] = np.copysign(_tail(np.minimum(u[tails], 1.0 - u[tails])), q[tails])
    return z


def _tail(p: Numbers) -> Numbers:
    """How far out a probability below 0.075 lies."""
    root = np.sqrt(-_log(p))
    near, far = root - 1.6, root - 5.0
    z: Numbers = np.where(
        root <= 5.0,
        _polynomial(_C, near) / _polynomial(_D, near),
        _polynomial(_E, far) / _polynomial(_F, far),
    )
    return z


def _log(x: Numbers) -> Numbers:
    """The natural logarithm of normal numbers: x = m * 2^e with m about 1, log m = 2 artanh((m-1)/(m+1))."""
    m, e = np.frexp(x)
    small = m < _HALF_ROOT
    m, e = np.where(small, m + m, m), e - small
    y = (m - 1.0) / (m + 1.0)
    log: Numbers = e * _LN2 + y * _polynomial(_ARTANH, y * y)
    return log


def _polynomial(coefficients: Sequence[float], x: Numbers) -> Any:
    """Horner's scheme, highest power first."""
    value: Any = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
