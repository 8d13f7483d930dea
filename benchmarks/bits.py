"""`python -m benchmarks.bits`: a device's kernels beside NumPy's, bit by bit, over every program there is.

What must be equal is every bit of every number. A NaN must meet a NaN: which one it is, IEEE leaves open,
and processors differ (x86 makes negative ones, GPUs positive).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from os import cpu_count
from typing import Any

import numpy as np

from benchmarks.elements import Array, Arrays, corners, drawn
from benchmarks.variants import Variant, rules, variants
from gradledger_server.kernels.blocked import BlockedKernel
from gradledger_server.kernels.device import Device, Kernel, open_device
from gradledger_server.kernels.reductions import BLOCK, sum_of_squares

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
SEED = 20150722
CHUNK = (1 << 20) + 7  # a prime number of elements: every chunk has a ragged end
CHUNKS = 6  # at least, so that every kind of number meets every way of writing
UPDATES = (1, 2, 3, 10, 1000)
THREADS = 8


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some elements for one program: number -1 is the odd ones, all others are drawn."""

    variant: Variant
    dtype: np.dtype[Any]
    number: int
    count: int

    @property
    def t(self) -> int:
        return UPDATES[self.number % len(UPDATES)]

    @property
    def in_place(self) -> bool:
        """Whether the new weight is written over the old one; else to memory of its own."""
        return self.number % 4 < 2

    def arrays(self) -> Arrays:
        program = self.variant.program
        if self.number < 0:
            return corners(program, self.dtype)
        return drawn(program, self.dtype, self.count, (SEED, self.dtype.itemsize, self.number))


@dataclass(frozen=True, slots=True)
class Difference:
    """The first element of a chunk at which a result differs."""

    chunk: Chunk
    result: str
    index: int
    inputs: dict[str, Any]
    scalars: dict[str, float]
    expected: Any
    got: Any

    def __str__(self) -> str:
        chunk = self.chunk
        lines = [
            f"{chunk.variant.name}, {chunk.dtype}, chunk {chunk.number}, t={chunk.t}: element {self.index}",
            *(f"  {name:9} {_shown(value)}" for name, value in self.inputs.items()),
            *(f"  {name:9} {value!r}" for name, value in self.scalars.items()),
            f"  new {self.result}: expected {_shown(self.expected)}",
            f"  {' ' * len(self.result)}          got {_shown(self.got)}",
        ]
        return "\n".join(lines)


@dataclass(slots=True)
class Verdict:
    """What comparing one rule, or the sums, came to."""

    name: str
    programs: int  # in every dtype
    elements: int = 0
    differences: list[Difference | str] = field(default_factory=list)


def compare(kernel: Kernel, device: Device, chunk: Chunk) -> Difference | None:
    """The first difference of the device's kernel from NumPy's on one chunk."""
    arrays, program = chunk.arrays(), chunk.variant.program
    scalars = chunk.variant.scalars(chunk.t)
    expected = _run_on_host(BlockedKernel(program, chunk.dtype), arrays, scalars)
    got = _run(kernel, device, arrays, scalars, in_place=chunk.in_place)
    for result, values in expected.items():
        wrong = _first_difference(values, got[result])
        if wrong is not None:
            inputs = {name: array[wrong] for name, array in arrays.items()}
            named = dict(zip(program.scalars, scalars, strict=True))
            return Difference(chunk, result, wrong, inputs, named, values[wrong], got[result][wrong])
    return None


def check_rule(device: Device, rule: str, elements: int) -> Verdict:
    """All programs of a rule on so many elements together; stops at the first that differs."""
    programs = variants(rule)
    verdict = Verdict(rule, len(programs) * len(DTYPES))
    with ThreadPoolExecutor(min(THREADS, cpu_count() or 1)) as pool:
        for variant in programs:
            for dtype in DTYPES:
                kernel = device.kernel(variant.program, dtype)
                share = -(-elements // (len(programs) * len(DTYPES)))
                chunks = list(_chunks(variant, dtype, share))
                for chunk, found in zip(
                    chunks, pool.map(partial(compare, kernel, device), chunks), strict=True
                ):
                    verdict.elements += chunk.count
                    if found is not None:
                        verdict.differences.append(found)
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
    yield Chunk(variant, dtype, -1, corners(variant.program, dtype)["w"].size)
    size = min(CHUNK, -(-elements // CHUNKS))
    for number, start in enumerate(range(0, elements, size)):
        yield Chunk(variant, dtype, number, min(size, elements - start))


def _run_on_host(kernel: Kernel, arrays: Arrays, scalars: tuple[float, ...]) -> Arrays:
    after = {name: array.copy() for name, array in arrays.items() if name != "g"}
    w, *slots = after.values()
    kernel(w, w, arrays["g"], slots, scalars)
    return after


def _run(
    kernel: Kernel, device: Device, arrays: Arrays, scalars: tuple[float, ...], *, in_place: bool
) -> Arrays:
    there = {name: device.to_device(array.copy()) for name, array in arrays.items()}
    w, g, *slots = there.values()
    out = w if in_place else device.empty(w.size, w.dtype)
    kernel(out, w, g, slots, scalars)
    after = {}
    for name, values in (("w", out), *zip(list(there)[2:], slots, strict=True)):
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
