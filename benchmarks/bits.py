"""`python -m benchmarks.bits`: a device's kernels beside NumPy's, bit by bit, over every program there is.

What must be equal is every bit of every number. A NaN must meet a NaN: which one it is, IEEE leaves open,
and processors differ (x86 makes negative ones, GPUs positive).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from os import cpu_count
from typing import Any

import numpy as np

from benchmarks.elements import CORNERS, Array, Arrays, corners, drawn
from benchmarks.variants import Shape, Variant, rules, variants
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.device import Device, open_device
from gradledger_server.kernels.reductions import BLOCK, sum_of_squares
from gradledger_server.machine.ways import Way
from gradledger_server.optim import catalog

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
SEED = 20150722
CHUNK = (1 << 20) + 7  # a prime number of elements: every chunk has a ragged end
CHUNKS = 6  # at least, so that every kind of number meets every way of writing
UPDATES = (1, 2, 3, 10, 1000)
THREADS = 8
MOST_ON_MATRICES = 1 << 16
NUMPY = CpuDevice(threads=1, compiled=False)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A tensor for one variant: number -1 holds the odd numbers, all others are drawn."""

    variant: Variant
    dtype: np.dtype[Any]
    number: int
    shape: Shape

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def t(self) -> int:
        return UPDATES[self.number % len(UPDATES)]

    @property
    def in_place(self) -> bool:
        """Whether the new weight is written over the old one; else to memory of its own."""
        return self.number % 4 < 2

    @property
    def values(self) -> dict[str, float]:
        """The numbers of its update; every other push is so long that it is clipped."""
        return self.variant.values(self.t, norm=(0.1, 3.0)[self.number % 2])

    @property
    def shapes(self) -> dict[str, Shape]:
        """Of all its arrays, by name."""
        return self.variant.shapes(self.shape)

    def arrays(self) -> Arrays:
        if self.number < 0:
            found = corners(self.shapes, self.dtype)
            return {name: found[name][: math.prod(shape)] for name, shape in self.shapes.items()}
        sizes = {name: math.prod(shape) for name, shape in self.shapes.items()}
        return drawn(sizes, self.dtype, (SEED, self.dtype.itemsize, self.number))


@dataclass(frozen=True, slots=True)
class Difference:
    """The first element of a chunk at which a result differs; `inputs` are what lies there."""

    chunk: Chunk
    result: str
    index: int
    inputs: dict[str, Any]
    expected: Any
    got: Any

    def __str__(self) -> str:
        chunk = self.chunk
        place = f"chunk {chunk.number}" + (f" {list(chunk.shape)}" if chunk.variant.whole else "")
        lines = [
            f"{chunk.variant.name}, {chunk.dtype}, {place}, t={chunk.t}: element {self.index}",
            *(f"  {name:9} {_shown(value)}" for name, value in self.inputs.items()),
            *(f"  {name:9} {value!r}" for name, value in self._scalars.items()),
            f"  new {self.result}: expected {_shown(self.expected)}",
            f"  {' ' * len(self.result)}          got {_shown(self.got)}",
        ]
        return "\n".join(lines)

    @property
    def _scalars(self) -> dict[str, float]:
        """What the kernel was given; the settings, where there is more than one kernel."""
        variant, values = self.chunk.variant, self.chunk.values
        if variant.whole:
            return values
        return dict(zip(variant.program.scalars, variant.program.evaluate(values), strict=True))


@dataclass(slots=True)
class Verdict:
    """What comparing one rule, or the sums, came to."""

    name: str
    programs: int  # in every dtype
    elements: int = 0
    differences: list[Difference | str] = field(default_factory=list)


def compare(way: Way, device: Device, chunk: Chunk) -> Difference | None:
    """The first difference of the device's results from NumPy's on one chunk."""
    arrays = chunk.arrays()
    expected = _results(chunk.variant.way(chunk.dtype, NUMPY), NUMPY, chunk, arrays, in_place=True)
    got = _results(way, device, chunk, arrays, in_place=chunk.in_place)
    for result, values in expected.items():
        wrong = _first_difference(values, got[result])
        if wrong is not None:
            inputs = {name: array[wrong] for name, array in arrays.items() if array.size == values.size}
            return Difference(chunk, result, wrong, inputs, values[wrong], got[result][wrong])
    return None


def check_rule(device: Device, rule: str, elements: int, chosen: Sequence[Variant] = ()) -> Verdict:
    """These variants of a rule, or all, on so many elements together; stops at the first that differs."""
    chosen = chosen or variants(rule)
    verdict = Verdict(rule, len(chosen) * len(DTYPES))
    share = -(-elements // verdict.programs)
    with ThreadPoolExecutor(min(THREADS, cpu_count() or 1)) as pool:
        for variant in chosen:
            for dtype in DTYPES:
                chunks = list(_chunks(variant, dtype, share))
                found = pool.map(partial(compare, variant.way(dtype, device), device), chunks)
                for chunk, difference in zip(chunks, found, strict=True):
                    verdict.elements += chunk.count
                    if difference is not None:
                        verdict.differences.append(difference)
                        return verdict
    return verdict


def check_sums(device: Device, elements: int) -> Verdict:
    """The canonical sum of squares, at the edges of its blocks and of many elements."""
    verdict = Verdict("sum of squares", len(DTYPES))
    for dtype in DTYPES:
        for number, count in enumerate((0, 1, 31, BLOCK - 1, BLOCK, BLOCK + 1, elements)):
            array = np.random.default_rng((SEED, number)).standard_normal(count, dtype)
            array[::97] *= np.finfo(dtype).tiny  # denormal numbers among them
            expected, got = sum_of_squares(array), device.sum_of_squares(device.to_device(array))
            verdict.elements += count
            if expected != got:
                verdict.differences.append(
                    f"sum of squares of {count} × {dtype}: expected {expected!r}, got {got!r}"
                )
    return verdict


def check(
    device: Device, names: Sequence[str], elements: int, tell: Callable[[str], None] = print
) -> list[Verdict]:
    """Every rule named, then the sums, told as they come."""
    verdicts = []
    for work in (
        *(partial(check_rule, device, rule, elements) for rule in names),
        partial(check_sums, device, min(elements, 1 << 24)),
    ):
        verdict = work()
        verdicts.append(verdict)
        outcome = "DIFFERENT" if verdict.differences else "same bits"
        tell(f"{verdict.name:20} {verdict.programs:3} programs, {verdict.elements:.2e} elements: {outcome}")
        for difference in verdict.differences:
            tell(str(difference))
    return verdicts


def _chunks(variant: Variant, dtype: np.dtype[Any], elements: int) -> Iterator[Chunk]:
    if variant.on_matrices:  # NumPy multiplies them row by row: as many elements would take hours
        elements = min(elements, MOST_ON_MATRICES)
    side = math.isqrt(CORNERS)
    yield Chunk(variant, dtype, -1, (side, side) if variant.whole else (CORNERS,))
    size = min(CHUNK, -(-elements // CHUNKS))
    for number, start in enumerate(range(0, elements, size)):
        yield Chunk(variant, dtype, number, _shape(variant, number, min(size, elements - start)))


def _shape(variant: Variant, number: int, count: int) -> Shape:
    """A tensor of no more elements than that, in turns wide, tall, many-dimensional and flat."""
    side = max(1, math.isqrt(count))
    wide, tall = (max(1, side // 2), 2 * side), (2 * side, max(1, side // 2))
    many = (max(1, count // 33), 3, 11), (count,)
    if not variant.whole:
        return (count,)
    shapes = [shape for shape in (wide, tall, *many) if catalog.refusal(variant.optimizer, shape) is None]
    return shapes[number % len(shapes)]


def _results(way: Way, device: Device, chunk: Chunk, arrays: Arrays, *, in_place: bool) -> Arrays:
    """What the device makes of the arrays, in host memory: the new weight as `w`, and the new slots."""
    there = {name: device.to_device(array.copy()) for name, array in arrays.items()}
    w, g, *slots = there.values()
    out = w if in_place else device.empty(w.size, w.dtype)
    way(out, w, g, slots, chunk.values, list(chunk.shapes.values()))
    after: Arrays = {}
    for name, values in (("w", out), *list(there.items())[2:]):
        after[name] = np.empty(values.size, values.dtype)
        device.to_host(values, after[name])
    return after


def _first_difference(expected: Array, got: Array) -> int | None:
    unsigned = f"u{expected.itemsize}"
    differ = expected.view(unsigned) != got.view(unsigned)
    if differ.any():
        differ &= ~(np.isnan(expected) & np.isnan(got))
    return int(np.argmax(differ)) if differ.any() else None


def _shown(value: Any) -> str:
    return f"{value!s:>25}  0x{value.tobytes()[::-1].hex()}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares; exits with 1 if a bit differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bits", description=main.__doc__)
    parser.add_argument("rules", nargs="*", default=list(rules()), metavar="rule", help="by default all")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="what is held beside NumPy")
    parser.add_argument("--elements", type=float, default=1e7, help="per rule, over its programs together")
    options = parser.parse_args(arguments)
    verdicts = check(open_device(options.device), options.rules, int(options.elements))
    sys.exit(any(verdict.differences for verdict in verdicts))


if __name__ == "__main__":
    main()
