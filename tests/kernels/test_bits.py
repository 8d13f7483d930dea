"""NumPy and LLVM give the same bits: every rule, dtype, block boundary and odd corner of float."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks import bits
from benchmarks.elements import corners
from benchmarks.variants import default, rules, some, variants
from gradledger_server.kernels import llvm
from gradledger_server.kernels.blocked import BLOCK_BYTES, BlockedKernel
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.llvm import LlvmKernel
from gradledger_server.kernels.llvm_reductions import SumOfSquares
from gradledger_server.kernels.trace import Program
from gradledger_server.optim import chain
from tests.kernels.digest import digest
from tests.kernels.programs import OPTIMIZERS, Array, drawn, equal_numbers, run, same_bits, traced

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


def cut(arrays: dict[str, Array], start: int, count: int) -> dict[str, Array]:
    return {name: values[start : start + count] for name, values in arrays.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_program_at_every_boundary(name: str, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of vectors and their unrolling, of NumPy's blocks, of the parts that threads take; from any element."""
    monkeypatch.setattr(llvm, "PART_BYTES", 16 * 1024)
    blocked, compiled, scalars = kernels(name, dtype)
    block, part = (size // np.dtype(dtype).itemsize for size in (BLOCK_BYTES, llvm.PART_BYTES))
    pool = drawn(blocked.program, 2 * block + 7, dtype)
    edges = (block - 1, block, block + 1, 2 * part - 1, 2 * part, 3 * part + 1, 2 * block)
    for start, count in [(0, n) for n in (*range(4), 15, 16, 17, 63, 64, 65, 1000, *edges)] + [
        (start, n) for start in (1, 3, 7) for n in (1, 100, 3 * part + 5)
    ]:
        arrays = cut(pool, start, count)
        expected, got = run(blocked, arrays, scalars), run(compiled, arrays, scalars)
        for letter in arrays:
            assert same_bits(got[letter], expected[letter]), (start, count, letter)
        assert all(same_bits(got[name], arrays[name]) for name in ("g", chain.DRAWN) if name in arrays)


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
def test_updates_that_are_unlike_others(name: str, dtype: npt.DTypeLike) -> None:
    """The first may be something else to a rule, every second or third to an average."""
    for t in (1, 2, 6):
        blocked, compiled, scalars = kernels(name, dtype, t)
        arrays = drawn(blocked.program, 1001, dtype)
        some = arrays["g"][::5]  # at the ends of what clipping by value leaves
        some[:] = np.resize(np.array([0.0, -0.0, 0.2, -0.2, 1e30], dtype), some.size)
        expected, got = run(blocked, arrays, scalars), run(compiled, arrays, scalars)
        assert all(same_bits(got[letter], expected[letter]) for letter in arrays), t


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_blocked_kernel_is_the_rule_itself(name: str, dtype: Any) -> None:
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
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_denormals_huge_and_infinite_numbers(name: str, dtype: Any) -> None:
    blocked, compiled, scalars = kernels(name, dtype)
    arrays = corners(blocked.program.inputs, np.dtype(dtype))
    expected, got = run(blocked, arrays, scalars), run(compiled, arrays, scalars)
    for letter in arrays:
        assert equal_numbers(got[letter], expected[letter]), letter
    assert (~np.isnan(expected["w"])).mean() > 0.15, "much of what is compared is numbers"


@pytest.mark.parametrize("rule", rules())
def test_some_programs_of_a_rule_on_numbers_of_every_kind(rule: str) -> None:
    """A slice of `make bits`, which compares 10^7 elements of each rule in all its programs."""
    verdict = bits.check_rule(CpuDevice(threads=2), rule, 10_000, some(rule, 3, seed=1))
    assert verdict.programs == 3 * len(bits.DTYPES) and verdict.elements >= 10_000
    assert verdict.differences == [], str(verdict.differences[0])


def test_the_sums_are_compared_too() -> None:
    assert bits.check_sums(CpuDevice(threads=2), 100_000).differences == []


class Flushing(CpuDevice):
    """What a GPU is by default: float32 denormals become zeros, on the way in and on the way out."""

    def kernel(self, program: Any, dtype: npt.DTypeLike) -> Any:
        right = super().kernel(program, dtype)

        def kernel(out: Array, w: Array, g: Array, slots: Sequence[Array], scalars: Sequence[float]) -> None:
            for array in (w, g, *slots):
                _flush(array)
            right(out, w, g, slots, scalars)
            for array in (out, *slots):
                _flush(array)

        return kernel


def _flush(array: Array) -> None:
    array[np.abs(array) < np.finfo(np.float32).tiny] = 0


@pytest.mark.parametrize("rule", ["sgd", "adam", "lamb"])
def test_a_device_that_flushes_denormal_numbers_is_found_out(rule: str) -> None:
    verdict = bits.check_rule(Flushing(threads=1), rule, 20_000)
    [found] = verdict.differences
    assert isinstance(found, bits.Difference) and found.expected != found.got
    told = str(found)
    place = "chunk -1 [125, 125]" if rule == "lamb" else "chunk -1"
    assert told.startswith(f"{rule}, float32, {place}, t=1000: element {found.index}\n")
    assert "expected" in told and "got" in told and (rule == "lamb") == ("lr" in told)
    for name, value in found.inputs.items():
        assert f"  {name}" in told and value.tobytes()[::-1].hex() in told


def test_one_wrong_bit_of_one_element_is_found_out() -> None:
    device, variant = CpuDevice(threads=1), default("adam")
    right = variant.way(np.dtype(np.float32), device)

    class Wrong:
        whole = False

        def __call__(
            self, out: Array, w: Array, g: Array, slots: Sequence[Array], *others: Any, **_: Any
        ) -> None:
            right(out, w, g, slots, *others)
            slots[1].view(np.uint32)[777] ^= 1

    for number in range(4):
        chunk = bits.Chunk(variant, np.dtype(np.float32), number, (1000,))
        assert bits.compare(right, device, chunk) is None
        found = bits.compare(Wrong(), device, chunk)
        if found is None:  # that element happens to be NaN, and NaN with another payload is still NaN
            assert number % 3 == 2
        else:
            assert (found.result, found.index) == ("v", 777)


def test_variants_are_all_the_programs_settings_can_make() -> None:
    names = [variant.name for variant in variants("adam")]
    assert names[0] == "adam" and {"adam, textbook", "adam, beta1 0"} <= set(names)
    assert "adam, beta2 0" in names and "adam, weight_decay 0.01" in names
    programs = [variant.program for variant in variants("adam")]
    assert len(set(programs)) == len(programs)


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
    arrays = drawn(blocked.program, 5 * llvm.PART_BYTES // 8 + 13, np.float64)
    arrays = {name: values[3:] for name, values in arrays.items()}
    expected, got = run(blocked, arrays, scalars), run(compiled, arrays, scalars)
    assert all(same_bits(got[name], expected[name]) for name in arrays)


def test_nothing_is_fused() -> None:
    _, compiled, _ = kernels("adam", np.float32)
    assembly = compiled.compiled.assembly()
    assert "sqrt" in assembly and "mul" in assembly
    assert "fmadd" not in assembly and "fmla" not in assembly and "fmsub" not in assembly


FOUND: list[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])


@pytest.mark.parametrize(
    "kept", range(len(FOUND)), ids=lambda kept: f"up to {FOUND[kept - 1] if kept else 'baseline'}"
)
def test_other_processors_features_do_not_change_numpys_bits(kept: int, digests: str) -> None:
    """NumPy with fewer vector extensions, as on older processors, against LLVM with all of this one's."""
    environment = dict(
        os.environ, NPY_DISABLE_CPU_FEATURES=" ".join(FOUND[kept:]), PYTHONPATH=os.pathsep.join(sys.path)
    )
    told = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.kernels.digest"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == digests


@pytest.fixture(scope="module")
def digests() -> str:
    sums = {np.dtype(dtype): SumOfSquares(np.dtype(dtype), CREW) for dtype in DTYPES}
    return digest(compiled_kernel, lambda a: sums[a.dtype](a))
