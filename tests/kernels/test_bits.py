"""NumPy and LLVM give the same bits: every rule, dtype, block boundary and odd corner of float."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gradledger_server.kernels.blocked import BLOCK_BYTES, BlockedKernel
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.llvm import PART_BYTES, LlvmKernel
from gradledger_server.kernels.llvm_reductions import SumOfSquares
from gradledger_server.kernels.trace import Program
from gradledger_server.optim import catalog
from tests.kernels.digest import digest
from tests.kernels.programs import OPTIMIZERS, drawn, run, same_bits, traced

DTYPES = (np.float32, np.float64)
CREW = Crew(3)


@cache  # compiled once for all tests
def compiled_kernel(program: Program, dtype: np.dtype[Any]) -> LlvmKernel:
    return LlvmKernel(program, dtype, CREW)


def kernels(
    name: str, dtype: npt.DTypeLike, t: int = 3
) -> tuple[BlockedKernel, LlvmKernel, tuple[float, ...]]:
    program, scalars = traced(name, t)
    kind = np.dtype(dtype)
    return BlockedKernel(program, kind), compiled_kernel(program, kind), scalars


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_program_at_every_boundary(name: str, dtype: npt.DTypeLike) -> None:
    blocked, compiled, scalars = kernels(name, dtype)
    block = BLOCK_BYTES // np.dtype(dtype).itemsize
    for count in (0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 1000, block - 1, block, block + 1, 2 * block + 7):
        arrays = drawn(blocked.program, count, dtype, seed=count)
        expected, got = run(blocked, arrays, scalars), run(compiled, arrays, scalars)
        for letter in arrays:
            assert same_bits(got[letter], expected[letter]), (count, letter)
        assert same_bits(got["g"], arrays["g"])


OPERATIONS: dict[str, Any] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "ratio": np.divide,
    "sqrt": np.sqrt,
    "negate": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "greater": np.greater,
    "at_least": np.greater_equal,
    "less": np.less,
    "at_most": np.less_equal,
    "where": np.where,
}
"""What an operation comes to on ordinary numbers; `test_operations.py` has the others."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_update(name: str, dtype: npt.DTypeLike) -> None:
    """Rules may treat t = 1 as something else."""
    blocked, compiled, scalars = kernels(name, dtype, t=1)
    arrays = drawn(blocked.program, 1001, dtype)
    expected, got = run(blocked, arrays, scalars), run(compiled, arrays, scalars)
    assert all(same_bits(got[letter], expected[letter]) for letter in arrays)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_blocked_kernel_is_the_rule_itself(name: str, dtype: npt.DTypeLike) -> None:
    """The rule called with whole arrays and scalars cast by hand is the independent word on the bits."""
    program, scalars = traced(name)
    arrays = drawn(program, 1000, dtype)
    kind: type[Any] = np.dtype(dtype).type
    values: dict[str, Any] = dict(arrays)
    values |= {ref: kind(x) for ref, x in zip(program.scalars, scalars, strict=True)}
    for step in program.steps:
        operands = [values[operand] for operand in step.operands]
        if step.operation == "copy":
            values[step.result] = np.broadcast_to(operands[0], 1000)
        else:
            values[step.result] = OPERATIONS[step.operation](*operands)
    got = run(BlockedKernel(program, np.dtype(dtype)), arrays, scalars)
    for letter, ref in zip(("w", *program.slots), program.results, strict=True):
        assert same_bits(got[letter], np.ascontiguousarray(values[ref])), letter


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", catalog.RULES)
def test_denormals_zeros_and_huge_numbers(name: str, dtype: npt.DTypeLike) -> None:
    blocked, compiled, scalars = kernels(name, dtype)
    info = np.finfo(dtype)
    ends = [0.0, info.smallest_subnormal, info.tiny, 1e-20, 1.0, 1e15, np.sqrt(info.max), info.max / 4]
    corners = np.array(ends + [-x for x in ends], dtype)
    grid = np.stack(np.meshgrid(corners, corners, np.abs(corners[:8]))).reshape(3, -1)
    arrays = dict(zip(("w", "g"), grid, strict=False))
    arrays |= {slot: np.abs(np.roll(grid[2], i)) for i, slot in enumerate(blocked.program.slots)}
    expected, got = run(blocked, arrays, scalars), run(compiled, arrays, scalars)
    for letter in arrays:
        numbers = ~np.isnan(expected[letter])
        assert numbers.mean() > 0.5
        assert same_bits(got[letter][numbers], expected[letter][numbers])
        assert np.isnan(got[letter][~numbers]).all()


@pytest.mark.parametrize("compiled", [False, True])
def test_slices_at_odd_offsets_and_a_separate_output(compiled: bool) -> None:
    blocked, machine_code, scalars = kernels("adam", np.float32)
    arrays = drawn(blocked.program, 5000, np.float32)
    expected = run(blocked, arrays, scalars)
    for offset in (0, 1, 3, 17):
        arena = {name: np.concatenate([np.full(offset, 7, np.float32), a, [7]]) for name, a in arrays.items()}
        arena = {name: a.astype(np.float32) for name, a in arena.items()}
        out = np.full(5000 + offset + 1, 7, np.float32)
        cut = {name: a[offset:-1] for name, a in arena.items()}
        kernel = machine_code if compiled else blocked
        kernel(out[offset:-1], cut["w"], cut["g"], [cut["m"], cut["v"]], scalars)
        assert same_bits(out[offset:-1], expected["w"])
        assert same_bits(cut["w"], arrays["w"]), "a separate output leaves w alone"
        assert same_bits(cut["m"], expected["m"]) and same_bits(cut["v"], expected["v"])
        for array in (out, *arena.values()):
            assert (array[:offset] == 7).all() and array[-1] == 7, "nothing outside the slice is touched"


def test_a_gradient_may_lie_at_any_byte_and_be_read_only() -> None:
    blocked, compiled, scalars = kernels("adam", np.float32)
    arrays = drawn(blocked.program, 4097, np.float32)
    expected = run(blocked, arrays, scalars)
    for shift in (1, 2, 3):
        body = bytes(shift) + arrays["g"].tobytes()
        for kernel in (blocked, compiled):
            got = run(kernel, arrays | {"g": arrays["g"]}, scalars)
            slots = [arrays["m"].copy(), arrays["v"].copy()]
            out = np.empty_like(arrays["w"])
            kernel(out, arrays["w"], np.frombuffer(body, np.float32, offset=shift), slots, scalars)
            assert same_bits(out, expected["w"]) and same_bits(got["w"], expected["w"])


def test_many_parts_on_many_threads() -> None:
    blocked, compiled, scalars = kernels("rmsprop", np.float64)
    arrays = drawn(blocked.program, 5 * PART_BYTES // 8 + 13, np.float64)
    arrays = {name: values[3:] for name, values in arrays.items()}
    expected, got = run(blocked, arrays, scalars), run(compiled, arrays, scalars)
    assert all(same_bits(got[name], expected[name]) for name in arrays)


@pytest.mark.slow
@pytest.mark.parametrize("name", catalog.RULES)
def test_ten_million_elements(name: str, ten_million: dict[str, npt.NDArray[np.float32]]) -> None:
    blocked, compiled, scalars = kernels(name, np.float32)
    arrays = dict(zip(blocked.program.inputs, ten_million.values(), strict=False))
    expected, got = run(blocked, arrays, scalars), run(compiled, arrays, scalars)
    for letter in arrays:
        assert np.array_equal(got[letter].view(np.uint32), expected[letter].view(np.uint32)), letter


@pytest.fixture(scope="module")
def ten_million() -> dict[str, npt.NDArray[np.float32]]:
    """w, g and four slots of 10^7 elements: every magnitude from denormal to 10^9."""
    generator = np.random.default_rng(7)
    arrays = {}
    for i, name in enumerate(("w", "g", "first", "second", "third", "fourth")):
        exponents = generator.integers(-45, 9, 10_000_000 + 1, dtype=np.int32) if i == 1 else None
        values = generator.standard_normal(10_000_001, dtype=np.float32)
        if exponents is not None:
            values *= np.power(np.float32(2), exponents, dtype=np.float32)
        arrays[name] = np.abs(values) if i > 1 else values
    return arrays


def test_nothing_is_fused() -> None:
    _, compiled, _ = kernels("adam", np.float32)
    assembly = compiled.compiled.assembly()
    assert "sqrt" in assembly and "mul" in assembly
    assert "fmadd" not in assembly and "fmla" not in assembly and "fmsub" not in assembly


def test_other_processors_features_do_not_change_numpys_bits() -> None:
    """NumPy without its vector extensions, as on an older processor, against LLVM with all of this one's."""
    config: Any = np.show_config(mode="dicts")
    found = config["SIMD Extensions"].get("found", [])
    if not found:
        pytest.skip("this NumPy has no optional CPU features to switch off")
    environment = dict(
        os.environ, NPY_DISABLE_CPU_FEATURES=" ".join(found), PYTHONPATH=os.pathsep.join(sys.path)
    )
    told = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.kernels.digest"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    sums = {np.dtype(dtype): SumOfSquares(np.dtype(dtype), CREW) for dtype in DTYPES}
    assert told.stdout.strip() == digest(compiled_kernel, lambda a: sums[a.dtype](a))
