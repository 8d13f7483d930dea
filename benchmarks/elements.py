"""Numbers to compare kernels on: as training has them, of any magnitude, any bits, and the odd ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]

SIGNED = ("w", "g", "draw")
CORNERS = 25**3


def drawn(sizes: Mapping[str, int], dtype: np.dtype[Any], seed: tuple[int, ...]) -> Arrays:
    """w, g and the slots, each of its size. The seed's last number counts chunks, which take turns in kind.

    Slots are not negative in every other chunk: a root would make the others' results NaN, and a NaN is
    compared with nothing.
    """
    generator = np.random.Generator(np.random.SFC64(seed))
    draw, signed = KINDS[seed[-1] % len(KINDS)], seed[-1] % 2 == 1
    return {
        name: values if signed or name in SIGNED else np.abs(values)
        for name, size in sizes.items()
        for values in [draw(generator, dtype, size)]
    }


def corners(names: Iterable[str], dtype: np.dtype[Any]) -> Arrays:
    """Every pair of odd numbers as w and g: zeros, denormals, the largest, infinities, NaN; slots too.

    `CORNERS` elements each.
    """
    info = np.finfo(dtype)
    tiny = [0.0, info.smallest_subnormal, info.tiny / 2, info.tiny, np.sqrt(info.tiny)]
    ends = [*tiny, 1.0, 1 - info.epsneg, 3.0, np.sqrt(info.max), info.max / 4, info.max, np.inf]
    odd = np.array([*ends, *(-x for x in ends), np.nan], dtype)
    w, g, slot = np.stack(np.meshgrid(odd, odd, odd)).reshape(3, -1)
    return {"w": w, "g": g} | {name: np.roll(slot, i) for i, name in enumerate(list(names)[2:])}


def _normal(generator: np.random.Generator, dtype: np.dtype[Any], count: int) -> Array:
    return generator.standard_normal(count, dtype)


def _any_magnitude(generator: np.random.Generator, dtype: np.dtype[Any], count: int) -> Array:
    lowest = -150 if dtype.itemsize == 4 else -1070  # down to denormal numbers
    exponents = generator.integers(lowest, 20, count, np.int32)
    values: Array = np.ldexp(_normal(generator, dtype, count), exponents)
    return values


def _any_bits(generator: np.random.Generator, dtype: np.dtype[Any], count: int) -> Array:
    return np.frombuffer(generator.bytes(count * dtype.itemsize), dtype)


KINDS: tuple[Callable[[np.random.Generator, np.dtype[Any], int], Array], ...]
KINDS = (_normal, _any_magnitude, _any_bits)
