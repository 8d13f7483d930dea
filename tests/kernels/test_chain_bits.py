"""NumPy and LLVM give the same bits for chains of transforms, too, at every edge and for odd numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gradledger_server.kernels.blocked import BLOCK_BYTES, BlockedKernel
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.cuda import spell
from gradledger_server.kernels.llvm import LlvmKernel
from gradledger_server.kernels.operations import maximum, minimum, where
from gradledger_server.kernels.trace import trace
from gradledger_server.optim import catalog, chain, transform_spec
from tests.kernels.programs import drawn, run, same_bits

CREW = Crew(2)
AVERAGES: dict[str, Any] = {
    "lookahead": {"every": 3},
    "ema": {"start": "warmup"},
    "polyak": {"after": 1, "every": 2},
}
CHAINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "torch's clip": ({"rule": "sgd"}, {"clip_global_norm": {"max_norm": 0.7}}),
    "optax's clip, by value": (
        {"rule": "momentum", "weight_decay": 0.1},
        {"clip_global_norm": {"max_norm": 0.7, "clip_eps": 0}, "clip_value": {"limit": 0.2}},
    ),
    "noise, decoupled": (
        {"rule": "adam", "weight_decay": 0.1, "weight_decay_mode": "decoupled"},
        {"noise": {"eta": 0.3}},
    ),
    "averages": ({"rule": "adam"}, AVERAGES),
    "debiased, absolute": (
        {"rule": "rmsprop", "weight_decay": 0.1, "weight_decay_mode": "decoupled_abs"},
        {"ema": {"start": "debiased"}},
    ),
    "everything": (
        {"rule": "adamw"},
        {
            "clip_global_norm": {"max_norm": 0.7},
            "clip_value": {"limit": 0.2},
            "noise": {"eta": 0.3},
            **AVERAGES,
        },
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CHAINS)
def test_every_chain_at_every_boundary(name: str, dtype: npt.DTypeLike) -> None:
    given, transforms = CHAINS[name]
    optimizer = catalog.expand_optimizer(given, where="optimizer")
    chosen = transform_spec.expand(transforms, where="transforms")
    program = chain.program(optimizer, chosen)
    blocked, compiled = BlockedKernel(program, np.dtype(dtype)), LlvmKernel(program, np.dtype(dtype), CREW)
    block = BLOCK_BYTES // np.dtype(dtype).itemsize
    for t in (1, 2, 3, 6):
        scalars = chain.scalars(optimizer, chosen, t=t, lr=0.01, norm=3.0)
        for count in (0, 1, 7, 33, block + 1) if t == 3 else (33,):
            arrays = drawn(program, count, dtype, seed=t)
            some = arrays["g"][::5]
            some[:] = np.resize(np.array([0.0, -0.0, 0.2, -0.2, 1e30], dtype), some.size)
            expected, got = run(blocked, arrays, scalars), run(compiled, arrays, scalars)
            for letter in arrays:
                assert same_bits(got[letter], expected[letter]), (t, count, letter)
            assert same_bits(got["g"], arrays["g"]), "the gradient is only read"
            if chain.DRAWN in arrays:
                assert same_bits(got[chain.DRAWN], arrays[chain.DRAWN]), "and so is what was drawn"


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
    optimizer = catalog.expand_optimizer({"rule": "sgd"}, where="optimizer")
    chosen = transform_spec.expand(AVERAGES, where="transforms")
    program = chain.program(optimizer, chosen)
    arrays = drawn(program, 40, np.float32)
    for slot in program.slots:
        arrays[slot][:] = np.nan
    scalars = chain.scalars(optimizer, chosen, t=1, lr=0.01)
    for kernel in (BlockedKernel(program, np.dtype("f4")), LlvmKernel(program, np.dtype("f4"), CREW)):
        assert all(np.isfinite(values).all() for values in run(kernel, arrays, scalars).values())


def test_a_gpu_reads_what_was_drawn_and_writes_what_is_kept() -> None:
    given, transforms = CHAINS["everything"]
    optimizer = catalog.expand_optimizer(given, where="optimizer")
    source = spell(
        chain.program(optimizer, transform_spec.expand(transforms, where="transforms")), np.dtype("f4")
    )
    assert "const float* draw_at" in source and "draw_at[i] =" not in source
    assert "ema_at[i] =" in source and "!= 0 ?" in source
