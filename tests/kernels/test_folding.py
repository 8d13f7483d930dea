"""What is worked out once and kept has the bits of what is worked out anew."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pytest

from benchmarks.variants import variants
from gradledger_server.kernels import powers
from gradledger_server.kernels.arrays import zeros
from gradledger_server.kernels.blocked import BlockedKernel
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.llvm import PART_BYTES, LlvmKernel
from gradledger_server.optim import catalog, chain
from tests.kernels.programs import traced

SIZE = 1000


@pytest.mark.parametrize("rule", [rule for rule in catalog.RULES if rule not in catalog.MATRIX_RULES])
def test_folded_scalars_are_those_of_the_program(rule: str) -> None:
    for variant in variants(rule)[:40]:
        if variant.whole:
            continue
        numbers = chain.numbers(variant.optimizer, variant.transforms)
        folded = chain.folded(variant.optimizer, variant.transforms)
        for t in (1, 2, 3, 10, 11, 5000):
            now = {"t": t, "s": t + 4, "lr": 0.25 / t, "norm": 3.0 * t}
            expected = variant.program.evaluate(
                chain.moment(numbers, t=t, s=t + 4, lr=now["lr"], norm=now["norm"])
            )
            assert [x.hex() for x in folded(now)] == [float(x).hex() for x in expected], (variant.name, t)


@pytest.mark.parametrize("base", [0.1, 0.5, 0.9, 0.999, 1 - 2**-53, 1.0])
def test_a_power_does_not_depend_on_the_way_to_it(base: float) -> None:
    exact = decimal.Context(prec=120, Emin=-(10**17), Emax=10**17)
    for exponent in range(1, 3000):  # each from the one before
        stepped = powers.power(base, exponent)
        if exponent % 97 == 0:
            powers.power.cache_clear()
            powers._latest.clear()
            assert stepped == powers.power(base, exponent)
            assert stepped == float(exact.power(decimal.Decimal(base), exponent))


@pytest.mark.parametrize("base", [0.0, 0.1, 0.9, 1 - 2**-53, 1.0, 1e200])
def test_a_series_has_the_bits_of_the_powers_it_is_of(base: float) -> None:
    """Asked for the next, the same once more, one from before, one far away; and for what is too large."""
    series, exact = powers.Series(base), decimal.Context(prec=120, Emin=-(10**17), Emax=10**17)
    for exponent in (0, 1, 2, 2, 3, 7, 8, 3, 4, 5, 2500, 2501, 2501, 1, 2, 3):
        wanted = 1.0 if exponent == 0 else float(exact.power(decimal.Decimal(base), exponent))
        assert series(float(exponent)) == powers.power(base, float(exponent)) == wanted, exponent


def test_a_series_looks_up_no_power_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    series = powers.Series(0.901)  # no other test asks for its powers
    begun = series(7.0)
    monkeypatch.setattr(powers, "power", lambda *_: pytest.fail("it was looked up"))
    assert series(7.0) == begun
    assert series(8.0) == series(8.0) < begun


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, SIZE, PART_BYTES // 2 + 1])
def test_a_bound_kernel_does_what_the_kernel_does(dtype: type, size: int) -> None:
    program, scalars = traced("adam")
    g: Any = np.random.default_rng(1).standard_normal(size).astype(dtype)
    for kernel in (BlockedKernel(program, np.dtype(dtype)), LlvmKernel(program, np.dtype(dtype), Crew(2))):
        bound, free = ([zeros(size, dtype) for _ in range(3)] for _ in range(2))
        run = kernel.bind(bound[0], bound[1:])
        for _ in range(3):
            run(g, scalars)
            kernel(free[0], free[0], g, free[1:], scalars)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(bound, free, strict=True))
        assert any(bound[0] != 0)


def test_a_bound_kernel_trusts_no_gradient() -> None:
    program, scalars = traced("adam")
    run = LlvmKernel(program, np.dtype("f4"), Crew(1)).bind(
        zeros(8, np.float32), [zeros(8, np.float32), zeros(8, np.float32)]
    )
    for wrong in (zeros(7, np.float32), zeros(8, np.float64), zeros(16, np.float32)[::2]):
        with pytest.raises(ValueError, match="expected"):
            run(wrong, scalars)
    with pytest.raises(ValueError, match="'m'"):
        LlvmKernel(program, np.dtype("f4"), Crew(1)).bind(
            zeros(8, np.float32), [zeros(7, np.float32), zeros(8, np.float32)]
        )
