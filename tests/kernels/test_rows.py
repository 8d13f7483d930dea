"""Rows moved where they lie get the reference's bits: whatever the rule, the width, the rows and their t."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradledger_server.kernels.blocked import BlockedKernel
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.llvm_rows import LlvmRowKernel
from gradledger_server.kernels.per_row import per_row
from gradledger_server.kernels.rows import BlockedRowKernel, RowKernel, Visit
from gradledger_server.kernels.trace import Program
from gradledger_server.machine.tables import TRANSFORMS_BY_ROW
from gradledger_server.optim import chain
from tests.kernels.programs import OPTIMIZERS, Array, drawn, equal_numbers, variant

DEVICE = CpuDevice(threads=2)
DTYPES: list[np.dtype[Any]] = [np.dtype(np.float32), np.dtype(np.float64)]
WIDTHS = (1, 3, 64, 65)
COUNTS = (0, 1, 9, 40)  # of rows in a visit: none, fewer and more than are asked for ahead
UPDATES = (1, 2, 7, 5000)
BY_ROW = [name for name in OPTIMIZERS if variant(name).transforms.keys() <= set(TRANSFORMS_BY_ROW)]


def moments(name: str, dtype: np.dtype[Any]) -> tuple[tuple[float, ...], Array]:
    """The scalars that all rows share, and a line of the others for each t in UPDATES."""
    its = variant(name)
    shared, varying = per_row(chain.program(its.optimizer, its.transforms))
    numbers = chain.numbers(its.optimizer, its.transforms)
    now = [chain.moment(numbers, t=t, s=3, lr=0.01, norm=2.0) for t in UPDATES]
    lines = np.array([[scalar.evaluate(at) for scalar in varying.values()] for at in now])
    return shared.evaluate(now[0]), lines.astype(dtype)


def visit_of(rows: int, count: int, width: int, lines: Array, seed: int) -> Visit:
    generator = np.random.default_rng(seed)
    places = generator.permutation(rows)[:count].astype(np.int32)
    return Visit(places, width, lines, generator.integers(0, len(lines), count))


def moved(
    kernel: RowKernel, visit: Visit, tables: dict[str, Array], scalars: tuple[float, ...]
) -> list[Array]:
    w, g, *slots = (table.copy() for table in tables.values())
    kernel(visit, w, g[: visit.places.size * visit.width], slots, scalars)
    return [w, *slots]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", BY_ROW)
def test_compiled_rows_get_the_reference_bits(name: str, dtype: np.dtype[Any]) -> None:
    its = variant(name)
    program = chain.program(its.optimizer, its.transforms)
    scalars, lines = moments(name, dtype)
    compiled, reference = LlvmRowKernel(program, dtype, DEVICE._crew), BlockedRowKernel(program, dtype)
    for width in WIDTHS:
        tables = drawn(program, 50 * width, dtype)
        for count in COUNTS:
            visit = visit_of(50, count, width, lines, seed=count)
            for one, other in zip(
                moved(compiled, visit, tables, scalars), moved(reference, visit, tables, scalars), strict=True
            ):
                assert equal_numbers(one, other), (width, count)


@pytest.mark.parametrize("make", [lambda p, d: LlvmRowKernel(p, d, DEVICE._crew), BlockedRowKernel])
def test_a_row_gets_what_it_would_get_as_an_array_of_its_own(make: Any) -> None:
    name, width, dtype = "adam", 5, DTYPES[0]
    program, numbers = variant(name).program, chain.numbers(variant(name).optimizer)
    scalars, lines = moments(name, dtype)
    tables = drawn(program, 12 * width, dtype)
    visit = visit_of(12, 7, width, lines, seed=1)
    after = moved(make(program, dtype), visit, tables, scalars)
    expected = [tables[key].copy() for key in tables if key != "g"]
    for row, (place, which) in enumerate(zip(visit.places, visit.which, strict=True)):
        w, *slots = (table[place * width : (place + 1) * width] for table in expected)
        now = chain.moment(numbers, t=UPDATES[which], s=3, lr=0.01, norm=2.0)
        gradient = tables["g"][row * width : (row + 1) * width]
        BlockedKernel(program, dtype)(w, w, gradient, slots, program.evaluate(now))
    assert [table.tobytes() for table in after] == [table.tobytes() for table in expected]


@pytest.mark.parametrize("width", [3, 64, 4000])
def test_many_rows_are_shared_out_and_none_moves_twice(width: int) -> None:
    rows, dtype = 1_500_000 // width, DTYPES[0]
    program = variant("adam").program
    scalars, lines = moments("adam", dtype)
    tables, visit = drawn(program, rows * width, dtype), visit_of(rows, rows * 3 // 4, width, lines, seed=2)
    compiled, reference = DEVICE.row_kernel(program, dtype), BlockedRowKernel(program, dtype)
    for one, other in zip(
        moved(compiled, visit, tables, scalars), moved(reference, visit, tables, scalars), strict=True
    ):
        assert one.tobytes() == other.tobytes()


def test_a_gradient_may_lie_anywhere() -> None:
    """As it does in a body whose header is of an odd length."""
    program, dtype, width = variant("adam").program, DTYPES[0], 7
    scalars, lines = moments("adam", dtype)
    tables, visit = drawn(program, 10 * width, dtype), visit_of(10, 6, width, lines, seed=3)
    memory = np.zeros(tables["g"].nbytes + 1, np.uint8)
    odd = memory[1:].view(dtype)
    odd[:] = tables["g"]
    compiled = LlvmRowKernel(program, dtype, DEVICE._crew)
    expected = moved(compiled, visit, tables, scalars)
    w, _, *slots = (table.copy() for table in tables.values())
    compiled(visit, w, odd[: 6 * width], slots, scalars)
    assert [table.tobytes() for table in (w, *slots)] == [table.tobytes() for table in expected]


def unfit(visit: Visit) -> Iterator[tuple[str, Visit]]:
    """Visits a compiled kernel would read or write outside its arrays for."""
    yield "outside", replace(visit, places=np.array([0, 10], np.int32))
    yield "outside", replace(visit, places=np.array([0, -1], np.int32))
    yield "outside", replace(visit, which=np.array([0, len(UPDATES)]))
    yield "outside", replace(visit, which=np.array([-1, 0]))
    yield "places", replace(visit, places=np.array([0, 1]))
    yield "which", replace(visit, which=np.array([0]))
    yield "'g'", replace(visit, width=5)
    yield "moments", replace(visit, moments=visit.moments[:, :1])
    yield "moments", replace(visit, moments=np.asfortranarray(visit.moments))
    yield "'w'", replace(visit, width=0)
    yield "moments", replace(visit, moments=visit.moments.astype(np.float64))


@pytest.mark.parametrize("make", [lambda p, d: LlvmRowKernel(p, d, DEVICE._crew), BlockedRowKernel])
def test_what_does_not_fit_is_refused_before_anything_is_written(make: Any) -> None:
    program, dtype = variant("adam").program, DTYPES[0]
    scalars, lines = moments("adam", dtype)
    tables, kernel = drawn(program, 10 * 4, dtype), make(program, dtype)
    for said, visit in unfit(visit_of(10, 2, 4, lines, seed=4)):
        w, g, *slots = (table.copy() for table in tables.values())
        with pytest.raises(ValueError, match=said):
            kernel(visit, w, g[:8], slots, scalars)
        assert [table.tobytes() for table in (w, *slots)] == [
            tables[name].tobytes() for name in program.inputs if name != "g"
        ]
    with pytest.raises(ValueError, match="slots"):
        kernel(visit_of(10, 2, 4, lines, seed=4), w, g[:8], slots[:1], scalars)


def test_a_device_makes_each_kernel_once() -> None:
    program: Program = variant("adam").program
    assert DEVICE.row_kernel(program, "f4") is DEVICE.row_kernel(program, np.float32)
    assert isinstance(CpuDevice(compiled=False).row_kernel(program, "f4"), BlockedRowKernel)
