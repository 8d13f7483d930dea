"""What each operation means at the corners of float: one meaning for NumPy, LLVM and the host's scalars."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gradledger_server.kernels.blocked import BlockedKernel
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.llvm import LlvmKernel
from gradledger_server.kernels.operations import (
    OPERATIONS,
    call,
    maximum,
    minimum,
    on_host,
    ratio,
    sign,
    sqrt,
    where,
)
from gradledger_server.kernels.trace import Program, trace
from tests.kernels.programs import same_bits

DTYPES = (np.float32, np.float64)
CORNERS = (0.0, -0.0, 1.0, -1.0, 0.3, -2.5, 1e-45, -1e-40, 3e38, -3e38, math.inf, -math.inf, math.nan)
ON_ARRAYS = [name for name, row in OPERATIONS.items() if row.numpy is not None and name != "copy"]
ARITY = {"sqrt": 1, "negate": 1, "abs": 1, "sign": 1, "where": 3}


def program(operation: str) -> Program:
    """w becomes the operation on (w, g, m) or as many of them as it takes."""

    def rule(w: Any, g: Any, m: Any) -> tuple[Any, ...]:
        return call(operation, *(w, g, m)[: ARITY.get(operation, 2)]), m

    return trace(operation, rule, slots=("m",), scalars=(), known={})


def corners(dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Every triple of corners, as three arrays."""
    return np.array(list(itertools.product(CORNERS, repeat=3)), np.float64).astype(dtype).T.copy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", ON_ARRAYS)
def test_numpy_llvm_and_the_host_agree_everywhere(operation: str, dtype: Any) -> None:
    traced, triples = program(operation), corners(dtype)
    results = []
    for kernel in (
        BlockedKernel(traced, np.dtype(dtype)),
        LlvmKernel(traced, np.dtype(dtype), Crew(1)),
    ):
        w, g, m = (row.copy() for row in triples)
        kernel(w, w, g, [m], ())  # in place: an operand is written over
        results.append(w)
    numbers = ~np.isnan(results[0])
    assert same_bits(results[1][numbers], results[0][numbers])
    assert np.isnan(results[1][~numbers]).all()
    if dtype is np.float64:
        host = OPERATIONS[operation].host
        taken = ARITY.get(operation, 2)
        for i in range(triples.shape[1]):
            told = host(*(float(row[i]) for row in triples[:taken]))
            assert same_bits(np.array([told]), results[0][i : i + 1]) or (
                math.isnan(told) and np.isnan(results[0][i])
            ), triples[:taken, i]


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (sign(0.0), 0.0),
        (sign(-0.0), 0.0),
        (sign(-1e-300), -1.0),
        (sign(INF), 1.0),
        (sign(NAN), NAN),
        (maximum(1.0, NAN), NAN),
        (maximum(NAN, 1.0), NAN),
        (maximum(0.0, -0.0), -0.0),  # the second of equals
        (maximum(-0.0, 0.0), 0.0),
        (minimum(0.0, -0.0), -0.0),
        (minimum(-0.0, 0.0), 0.0),
        (minimum(NAN, INF), NAN),
        (minimum(INF, NAN), NAN),
        (ratio(0.0, 0.0), 0.0),
        (ratio(-3.0, 0.0), 0.0),
        (ratio(1.0, -0.0), 0.0),
        (ratio(-0.0, 2.0), -0.0),
        (ratio(NAN, 2.0), NAN),
        (ratio(1.0, NAN), NAN),
        (sqrt(-1.0), NAN),
        (sqrt(-0.0), -0.0),
        (call("greater", NAN, 1.0), 0.0),
        (call("at_most", 1.0, NAN), 0.0),
        (call("at_least", 0.0, -0.0), 1.0),
        (call("less", -0.0, 0.0), 0.0),
        (where(True, 1.0, NAN), 1.0),
        (where(0.0, NAN, 2.0), 2.0),
    ],
)  # fmt: skip
def test_what_libraries_leave_open_is_settled(got: float, expected: float) -> None:
    assert (
        math.isnan(got)
        if math.isnan(expected)
        else (got, math.copysign(1, got))
        == (
            expected,
            math.copysign(1, expected),
        )
    )


def test_choosing_takes_the_bits_as_they_are() -> None:
    """Also those of a NaN, and it never computes with what is not chosen."""
    odd = np.array([0x7FC01234], np.uint32).view(np.float32)
    chosen = where(np.array([1.0], np.float32), odd, np.float32(0))
    assert same_bits(chosen, odd)


def test_a_condition_known_beforehand_leaves_no_trace() -> None:
    traced = trace(
        "test",
        lambda w, g, *, strict: (where(strict, w - g, w + g),),
        slots=(),
        scalars=(),
        known={"strict": True},
    )
    assert [step.operation for step in traced.steps] == ["subtract"]


def test_every_row_for_arrays_is_spelt_for_all_backends() -> None:
    for row in OPERATIONS.values():
        spelt = (row.numpy is not None, bool(row.llvm), bool(row.cuda))
        assert spelt in ((True, True, True), (False, False, False)), row.name


def test_a_function_on_the_host_is_its_own() -> None:
    with pytest.raises(ValueError, match="already"):

        @on_host("x", "x = x")
        def power(x: float) -> float:
            return x

    assert OPERATIONS["power"].latex == ""
