"""Random numbers by position: the number at place c of a stream is a function of its key and c alone.

    key(seed, *more)       a stream's name, made of whole numbers
    words(key, places)     64 random bits for each place: SplitMix64 (Steele, Lea & Flood 2014)
    uniform(key, places)   float64, strictly between 0 and 1
    normal(key, places)    float64, mean 0 and variance 1: Wichura 1988, AS 241 (PPND16), through the uniform

Whoever asks for whichever places in whatever order gets the same bits on every machine: nothing but integer
arithmetic and IEEE 754's + - * / sqrt in a fixed order. The C library's log and NumPy's own, whose last bits
differ between processors, are not asked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.uint64]
Numbers = NDArray[np.float64]

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, odd: the sequence's stride
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
_WORD = (1 << 64) - 1
_BLOCK = 16384  # places at a time: what a step leaves behind is still in the cache for the next


def key(seed: int, *more: int) -> int:
    """A stream's key. Each number is from 0 to 2^64-1; other numbers, or another order, other streams."""
    made = _mixed(seed)
    for number in more:
        made = _mixed(made + _GOLDEN ^ number)
    return made


def words(key: int, places: Places) -> NDArray[np.uint64]:
    """64 random bits for each place."""
    bits = np.empty(places.shape, np.uint64)
    shifted = np.empty_like(bits)
    np.add(places, np.uint64(1), out=bits)
    np.multiply(bits, np.uint64(_GOLDEN), out=bits)
    np.add(bits, np.uint64(key), out=bits)
    for shift, factor in _MIX:
        np.right_shift(bits, np.uint64(shift), out=shifted)
        np.bitwise_xor(bits, shifted, out=bits)
        np.multiply(bits, np.uint64(factor), out=bits)
    np.right_shift(bits, np.uint64(_LAST_SHIFT), out=shifted)
    np.bitwise_xor(bits, shifted, out=bits)
    return bits


def uniform(key: int, places: Places) -> Numbers:
    """A float64 for each place: an odd multiple of 2^-53, so neither 0 nor 1, and fair about 1/2."""
    bits = words(key, places)
    np.right_shift(bits, np.uint64(12), out=bits)
    numbers = bits.astype(np.float64)
    numbers += 0.5  # exact: 52 bits and a half fit float64
    numbers *= 2.0**-52
    return numbers


def normal(key: int, places: Places) -> Numbers:
    """A float64 for each place, normally distributed; at most 8.2 away from 0."""
    flat = places.reshape(-1)
    numbers = np.empty(flat.shape, np.float64)
    for start in range(0, flat.size, _BLOCK):
        here = slice(start, start + _BLOCK)
        numbers[here] = quantile(uniform(key, flat[here]))
    return numbers.reshape(places.shape)


def quantile(p: Numbers) -> Numbers:
    """Where the normal distribution's lower tail is `p`, for 0 < p < 1; exact to about 1e-16 relative."""
    q = p - 0.5
    found = q * _ratio(_CENTRAL, 0.180625 - q * q)
    tail = np.flatnonzero(np.abs(q) > 0.425)
    if tail.size:
        nearer = np.minimum(p[tail], 1.0 - p[tail])
        r = np.sqrt(-_logarithm(nearer))
        z = _ratio(_TAIL, r - 1.6)
        far = np.flatnonzero(r > 5.0)
        z[far] = _ratio(_FAR, r[far] - 5.0)
        found[tail] = np.copysign(z, q[tail])
    return found


def _mixed(number: int) -> int:
    number = number + _GOLDEN & _WORD
    for shift, factor in _MIX:
        number = (number ^ number >> shift) * factor & _WORD
    return number ^ number >> _LAST_SHIFT


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Numbers) -> Numbers:
    """A quotient of two polynomials in x; coefficients from the highest power down."""
    above, below = (_polynomial(row, x) for row in coefficients)
    above /= below
    return above


def _polynomial(coefficients: tuple[float, ...], x: Numbers) -> Numbers:
    total = coefficients[0] * x
    for coefficient in coefficients[1:-1]:
        total += coefficient
        total *= x
    total += coefficients[-1]
    return total


_LN2_HIGH = 6.93147180369123816490e-01  # the first 33 bits of log 2: any exponent times them is exact
_LN2_LOW = 1.90821492927058770002e-10


def _logarithm(x: Numbers) -> Numbers:
    """log x for 0 < x < 1: x = f 2^e with f about 1, and log f = 2 atanh((f - 1) / (f + 1)) as a series."""
    fraction, exponent = np.frexp(x)
    small = fraction < np.sqrt(0.5)
    fraction = np.where(small, 2.0 * fraction, fraction)
    exponents = np.where(small, exponent - 1, exponent).astype(np.float64)
    s = (fraction - 1.0) / (fraction + 1.0)
    series = _polynomial(_ATANH, s * s)
    return exponents * _LN2_HIGH + (exponents * _LN2_LOW + 2.0 * s * series)


_ATANH = tuple(1.0 / odd for odd in range(23, 0, -2))

_CENTRAL = (
    (
        2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
        1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0,
    ),
    (
        5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
        5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0,
    ),
)  # fmt: skip
_TAIL = (
    (
        7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
        1.27045825245236838258e0, 3.64784832476320460504e0, 5.76949722146069140550e0,
        4.63033784615654529590e0, 1.42343711074968357734e0,
    ),
    (
        1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
        1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
        2.05319162663775882187e0, 1.0,
    ),
)  # fmt: skip
_FAR = (
    (
        2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
        2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e0,
        5.46378491116411436990e0, 6.65790464350110377720e0,
    ),
    (
        2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
        7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1,
        5.99832206555887937690e-1, 1.0,
    ),
)  # fmt: skip
