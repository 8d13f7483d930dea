"""What chains of transforms ask of kernels: choices, and arrays that are read or left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gradledger_server.kernels.blocked import BlockedKernel
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.cuda import spell
from gradledger_server.kernels.llvm import LlvmKernel
from gradledger_server.kernels.operations import maximum, minimum, where
from gradledger_server.kernels.trace import trace
from tests.kernels.programs import drawn, run, same_bits, traced

CREW = Crew(2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_choices_between_elements_have_the_same_bits_for_zeros_and_no_numbers(dtype: npt.DTypeLike) -> None:
    def choose(w: Any, g: Any, m: Any, v: Any, u: Any) -> tuple[Any, ...]:
        return minimum(w, g), maximum(w, g), where(w, v, m), minimum(u, 0.5)

    program = trace("choose", choose, slots=("m", "v", "u"), scalars=(), known={})
    odd = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45], dtype)
    grid = [a.ravel().copy() for a in np.meshgrid(odd, odd)]
    arrays = dict(zip(program.inputs, [*grid, grid[0] + 2, grid[1], grid[0]], strict=True))
    blocked, compiled = BlockedKernel(program, np.dtype(dtype)), LlvmKernel(program, np.dtype(dtype), CREW)
    expected, got = run(blocked, arrays, (0.5,)), run(compiled, arrays, (0.5,))
    assert all(same_bits(got[letter], expected[letter]) for letter in arrays)


def test_what_was_not_chosen_leaves_no_trace() -> None:
    """A slot not used yet may hold anything: at t = 1 not even its NaN is seen."""
    program, scalars = traced("sgd, averages", t=1)
    arrays = drawn(program, 40, np.float32)
    for slot in program.slots:
        arrays[slot][:] = np.nan
    for kernel in (BlockedKernel(program, np.dtype("f4")), LlvmKernel(program, np.dtype("f4"), CREW)):
        assert all(np.isfinite(values).all() for values in run(kernel, arrays, scalars).values())


def test_a_gpu_reads_what_was_drawn_and_writes_what_is_kept() -> None:
    source = spell(traced("adamw, all transforms")[0], np.dtype("f4"))
    assert "const float* draw_at" in source and "draw_at[i] =" not in source
    assert "ema_at[i] =" in source and "!= 0 ?" in source
