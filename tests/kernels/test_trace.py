"""The tracer: scalars are hoisted, equal steps shared, what is known leaves no trace, misuse is refused."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pytest

from gradledger_server.kernels.arrays import zeros
from gradledger_server.kernels.blocked import BlockedKernel, plan
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.llvm import LlvmKernel
from gradledger_server.kernels.operations import call, power, sqrt
from gradledger_server.kernels.trace import Program, trace
from tests.kernels.programs import run, same_bits, traced


def traced_rule(
    rule: Any, slots: str = "", scalars: tuple[str, ...] = ("t", "lr"), **known: object
) -> Program:
    return trace("test", rule, slots=tuple(slots), scalars=scalars, known=known)


def operations(program: Program) -> list[str]:
    return [step.operation for step in program.steps]


def test_scalars_alone_are_computed_on_the_host() -> None:
    program = traced_rule(lambda w, g, *, t, lr: (w - lr / (1 - 0.5**t) * g,))
    assert operations(program) == ["multiply", "subtract"]
    assert program.evaluate({"t": 2, "lr": 3.0}) == (4.0,)


def test_equal_expressions_are_computed_once() -> None:
    program = traced_rule(lambda w, g, *, lr, **_: (w - lr * (g * g) - sqrt(g * g),))
    assert operations(program).count("multiply") == 2


def test_what_is_zero_or_one_leaves_no_trace() -> None:
    def rule(w: Any, g: Any, *, t: Any, lr: Any, decay: float) -> tuple[Any]:
        return (w - (lr * g + decay * w) * (1 - decay * t) / 1.0 - 0.0,)

    assert operations(traced_rule(rule, decay=0.0)) == ["multiply", "subtract"]


def test_steps_nobody_needs_are_left_out() -> None:
    def rule(w: Any, g: Any, *, t: Any, lr: Any) -> tuple[Any]:
        sqrt(g) + lr
        return (w - g,)

    program = traced_rule(rule)
    assert operations(program) == ["subtract"] and program.scalars == {}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_slots_may_be_swapped_copied_filled_and_kept(dtype: Any) -> None:
    def rule(w: Any, g: Any, a: Any, b: Any, c: Any, d: Any, e: Any, *, t: Any, lr: Any) -> tuple[Any, ...]:
        return w, b, a, g, 2.5, e

    program = traced_rule(rule, "abcde")
    arrays = {name: np.arange(100, dtype=dtype) + i for i, name in enumerate(program.inputs)}
    for kernel in (BlockedKernel(program, np.dtype(dtype)), LlvmKernel(program, np.dtype(dtype), Crew(1))):
        after = run(kernel, arrays, program.evaluate({"t": 1, "lr": 1.0}))
        assert same_bits(after["w"], arrays["w"]) and same_bits(after["e"], arrays["e"])
        assert same_bits(after["a"], arrays["b"]) and same_bits(after["b"], arrays["a"])
        assert same_bits(after["c"], arrays["g"]) and (after["d"] == 2.5).all()


def test_one_value_may_become_several_slots() -> None:
    def rule(w: Any, g: Any, a: Any, b: Any, *, t: Any, lr: Any) -> tuple[Any, ...]:
        total = a + b
        return w - total * b, total, total

    program = traced_rule(rule, "ab")
    arrays = {name: np.arange(50.0) + i for i, name in enumerate(program.inputs)}
    for kernel in (BlockedKernel(program, np.dtype("f8")), LlvmKernel(program, np.dtype("f8"), Crew(1))):
        after = run(kernel, arrays, program.evaluate({"t": 1, "lr": 1.0}))
        total = arrays["a"] + arrays["b"]
        assert same_bits(after["a"], total) and same_bits(after["b"], total)
        assert same_bits(after["w"], arrays["w"] - total * arrays["b"])


def test_a_result_kept_aside_is_not_overwritten() -> None:
    """A new slot cannot go home while the old one is needed; its last use as an operand is not its end."""

    def rule(w: Any, g: Any, a: Any, *, t: Any, lr: Any) -> tuple[Any, ...]:
        total = a + g
        return w - (total * w) * a, total

    program = traced_rule(rule, "a")
    arrays = {name: np.arange(50.0) + i for i, name in enumerate(program.inputs)}
    after = run(BlockedKernel(program, np.dtype("f8")), arrays, ())
    assert same_bits(after["a"], arrays["a"] + arrays["g"])


def test_scratch_memory_is_reused() -> None:
    program, _ = traced("adamw")
    assert plan(program)[1] <= 3 < len(program.steps)


def test_a_rule_cannot_branch_on_what_changes() -> None:
    with pytest.raises(TypeError, match="cannot branch"):
        traced_rule(lambda w, g, *, t, **_: (w - g if t > 1 else w,))


def test_arrays_know_only_what_every_backend_rounds_alike() -> None:
    with pytest.raises(TypeError, match="not the same bits"):
        traced_rule(lambda w, g, **_: (w - g**3,))


def test_a_rule_returns_the_weight_and_every_slot() -> None:
    with pytest.raises(TypeError, match="returned 1 values, expected w and 1 slots"):
        traced_rule(lambda w, *_, **__: (w,), "m")


def test_an_array_of_numbers_cannot_stray_into_a_trace() -> None:
    with pytest.raises(TypeError):
        traced_rule(lambda w, g, **_: (w - np.ones(3) * g,))


@pytest.mark.parametrize("base", [0.0, 0.1, 0.5, 0.9, 0.999, 1 - 2**-53, 1.0])
@pytest.mark.parametrize("exponent", [0, 1, 2, 10, 1000, 10**6, 10**15, 0.5, 1e3 / 7])
def test_powers_are_rounded_correctly(base: float, exponent: float) -> None:
    exact = decimal.Context(prec=90, Emin=-(10**17), Emax=10**17)
    expected = 1.0 if exponent == 0 else 0.0
    if base:
        expected = float(exact.power(decimal.Decimal(base), decimal.Decimal(exponent)))
    assert power(base, exponent) == expected
    assert power(base, exponent) == pytest.approx(base**exponent, rel=1e-15)


def test_dividing_scalars_by_zero_is_what_ieee_says() -> None:
    assert call("divide", 1.0, 0.0) == float("inf") and call("divide", -1.0, 0.0) == float("-inf")
    assert np.isnan(call("divide", 0.0, 0.0))


def test_kernels_refuse_what_does_not_fit() -> None:
    program, scalars = traced("adam")
    four = [zeros(8, np.float32) for _ in range(4)]
    read_only = zeros(8, np.float32)
    read_only.flags.writeable = False
    for kernel in (BlockedKernel(program, np.dtype("f4")), LlvmKernel(program, np.dtype("f4"), Crew(1))):
        wrong: list[tuple[Any, ...]] = [
            (four[0], four[0], four[1][:7], four[2:], "'g'"),
            (four[0], four[0], four[1].astype(np.float64), four[2:], "'g'"),
            (four[0], four[0].reshape(2, 4), four[1], four[2:], "'w'"),
            (four[0][::2], four[0][:4], four[1][:4], [a[:4] for a in four[2:]], "'out'"),
            (four[0], four[0], four[1], [four[2], read_only], "read-only"),
            (read_only, four[0], four[1], four[2:], "read-only"),
            (four[0], four[0], four[1], four[2:3], "slots"),
        ]
        for out, w, g, slots, message in wrong:
            with pytest.raises(ValueError, match=message):
                kernel(out, w, g, slots, scalars)
