"""The CUDA source: it says what NumPy computes, it compiles to nothing that rounds otherwise, a GPU obeys.

The first is tested where there is a C++ compiler, the second with nvcc or CuPy's NVRTC, the third on a GPU.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks import bits
from benchmarks.elements import corners
from benchmarks.variants import default
from gradledger_server.errors import DeviceUnavailable
from gradledger_server.kernels import cuda, nvrtc
from gradledger_server.kernels.blocked import BlockedKernel
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.device import Device, open_device
from gradledger_server.kernels.reductions import BLOCK, halve, sum_of_squares
from gradledger_server.kernels.stages import split
from gradledger_server.kernels.trace import Program
from gradledger_server.optim import catalog, chain, views
from tests.kernels.cuda_on_host import HostLibrary
from tests.kernels.programs import OPTIMIZERS, WHOLE, drawn, equal_numbers, run, same_bits, traced, variant

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
SHAPES = ((), (257,), (33, 7), (7, 100), (64, 3, 5), (0, 3))
ARCHITECTURE = "--gpu-architecture=compute_80"

ROUNDED = {"add", "sub", "mul", "div", "sqrt"}
EXACT = {"abs", "neg", "copysign", "min", "max", "setp", "selp", "mov", "ld", "st", "cvt"}
INSTRUCTION = re.compile(r"^\s*(?:@!?%p\d+\s+)?([a-z]\w*(?:\.\w+)*\.f(?:32|64)(?:\.\w+)*)\s", re.M)


@cache
def programs() -> dict[str, Program]:
    """All that a GPU is asked for: optimizers, the stages of those that need more, means of pushes, views."""
    found = {name: traced(name)[0] for name in OPTIMIZERS}
    for name in WHOLE:
        found |= {f"{name}, stage {i}": stage.program for i, stage in enumerate(split(variant(name).program))}
    for rule in catalog.ELEMENTWISE:
        its = default(rule)
        for view in views.names(its.optimizer, its.transforms):
            program = views.program(view, its.optimizer, its.transforms)
            found |= {} if program is None else {f"{rule}, {view}": program}
    return found | {"accumulation": chain.accumulation()}


def sources() -> dict[str, str]:
    """Every program in both dtypes, and the sums: by name, each kernel under that name."""
    kernels: dict[str, str] = {}
    for name, program in programs().items():
        for dtype in DTYPES:
            kernels[plain(name, dtype)] = cuda.spell(program, dtype).replace(
                f"void {cuda.entry(program, dtype)}(", f"void {plain(name, dtype)}(", 1
            )
    for dtype in DTYPES:
        kernels[f"sums_{dtype}"] = cuda.spell_sums(dtype).replace("void sums(", f"void sums_{dtype}(", 1)
    return kernels


def plain(name: str, dtype: np.dtype[Any]) -> str:
    return re.sub(r"\W+", "_", f"{name}_{dtype}")


def with_nvcc(options: tuple[str, ...], folder: Path) -> str:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on this machine")
    (folder / "rules.cu").write_text("\n".join(sources().values()))
    command = ["nvcc", "-ptx", ARCHITECTURE, *options, "rules.cu", "-o", "rules.ptx"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return (folder / "rules.ptx").read_text()


def with_nvrtc(options: tuple[str, ...], folder: Path) -> str:
    if find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    from cupy.cuda import nvrtc as binding

    assert options == nvrtc.OPTIONS
    text = nvrtc.compiled(binding, "\n".join(sources().values()), ARCHITECTURE, binding.getPTX)
    return text.decode()


@pytest.mark.slow
@pytest.mark.parametrize("compiler", [with_nvcc, with_nvrtc])
def test_every_operation_rounds_to_nearest_and_none_is_fused(
    compiler: Callable[[tuple[str, ...], Path], str], tmp_path: Path
) -> None:
    text = compiler(nvrtc.OPTIONS, tmp_path)
    entries = dict(entry.split("(", 1) for entry in text.split(".entry ")[1:])
    assert {name.strip() for name in entries} == sources().keys()
    for name, body in entries.items():
        assert objections(body) == [], name
        assert ".ftz" not in body and ".approx" not in body, name


def objections(body: str) -> list[str]:
    """The instructions on floating-point numbers that may give other bits than IEEE's nearest."""
    found = INSTRUCTION.findall(body)
    assert found
    return [
        instruction
        for instruction in found
        for operation, *modifiers in [instruction.split(".")]
        if operation not in EXACT and not (operation in ROUNDED and modifiers[0] == "rn")
    ]


@pytest.mark.slow
def test_without_the_options_nvcc_would_fuse(tmp_path: Path) -> None:
    """What the first is for, and that the test above could fail."""
    assert any(instruction.startswith("fma.") for instruction in objections(with_nvcc((), tmp_path)))


@pytest.mark.slow
def test_cupys_own_option_would_flush_denormal_numbers(tmp_path: Path) -> None:
    """Why RawKernel will not do: it ends its options with this one."""
    assert ".rn.ftz.f32" in with_nvcc((*nvrtc.OPTIONS, "--ftz=true"), tmp_path)


def test_what_a_gpu_is_given() -> None:
    """Its own machine code if NVRTC knows it, else the newest PTX it can read; an older one is refused."""
    compiler = FakeNvrtc()
    assert nvrtc.machine_code(compiler, "source", 90) == b"--gpu-architecture=sm_90"
    assert nvrtc.machine_code(compiler, "source", 130) == b"--gpu-architecture=compute_120 as ptx"
    with pytest.raises(nvrtc.NotCompiled, match="capability 70; NVRTC compiles for 75 and up"):
        nvrtc.machine_code(compiler, "source", 70)
    with pytest.raises(nvrtc.NotCompiled, match=r"error: rule\.cu\(1\)"):
        nvrtc.machine_code(compiler, "wrong", 90)
    assert compiler.alive == 0, "every program is given back"


class FakeNvrtc:
    """NVRTC's binding as far as we use it; what it makes of a program is the architecture asked for."""

    class NVRTCError(Exception):
        """As in CuPy."""

    alive = 0

    def getSupportedArchs(self) -> tuple[int, ...]:  # noqa: N802
        return (75, 90, 120)

    def createProgram(self, source: str, *_: object) -> list[str]:  # noqa: N802
        self.alive += 1
        return [source]

    def compileProgram(self, program: list[str], options: tuple[str, ...]) -> None:  # noqa: N802
        if program[0] == "wrong":
            raise self.NVRTCError("compilation")
        assert options[:-1] == nvrtc.OPTIONS
        program.append(options[-1])

    def getProgramLog(self, _: list[str]) -> str:  # noqa: N802
        return "error: rule.cu(1)"

    def getCUBIN(self, program: list[str]) -> bytes:  # noqa: N802
        return program[-1].encode()

    def getPTX(self, program: list[str]) -> bytes:  # noqa: N802
        return program[-1].encode() + b" as ptx"

    def destroyProgram(self, _: list[str]) -> None:  # noqa: N802
        self.alive -= 1


def test_the_source_reads_like_the_rule() -> None:
    source = cuda.spell(traced("sgd")[0], np.dtype(np.float32))
    assert source.splitlines()[-6:] == [
        "  const float w = w_at[i];",
        "  const float g = g_at[i];",
        "  const float x0 = s0 * g;",
        "  const float x1 = w - x0;",
        "  out_at[i] = x1;",
        "}",
    ]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not on this machine")
    return HostLibrary(tmp_path_factory.mktemp("cuda"), sources())


class HostKernel:
    """A program's CUDA source as a kernel of this processor."""

    def __init__(self, host: HostLibrary, name: str, program: Program, dtype: np.dtype[Any]) -> None:
        self.host, self.name, self.program, self.dtype = host, plain(name, dtype), program, dtype

    def __call__(self, out: Any, w: Any, g: Any, slots: list[Any], scalars: tuple[float, ...]) -> None:
        with np.errstate(over="ignore"):
            cast = [float(self.dtype.type(x)) for x in scalars]
        self.host(self.name, out, w, g, *slots, *cast, out.size)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_source_says_what_numpy_computes(
    host: HostLibrary, name: str, dtype: np.dtype[np.floating]
) -> None:
    program, scalars = traced(name)
    kernel, reference = HostKernel(host, name, program, dtype), BlockedKernel(program, dtype)
    for count in (0, 1, 255, 256, 257, 5000):
        arrays = drawn(program, count, dtype, seed=count)
        expected, got = run(reference, arrays, scalars), run(kernel, arrays, scalars)
        assert all(same_bits(got[letter], expected[letter]) for letter in arrays), count
    arrays = corners(program.inputs, dtype)
    expected, got = run(reference, arrays, scalars), run(kernel, arrays, scalars)
    for letter in arrays:
        assert equal_numbers(got[letter], expected[letter]), letter


class Spelt(CpuDevice):
    """This processor, with the CUDA source for its kernels."""

    def __init__(self, host: HostLibrary) -> None:
        super().__init__(threads=1, compiled=False)
        self.library = host

    def kernel(self, program: Program, dtype: npt.DTypeLike) -> Any:
        dtype = np.dtype(dtype)
        return HostKernel(self.library, spelt(dtype)[cuda.spell(program, dtype)], program, dtype)


@cache
def spelt(dtype: np.dtype[Any]) -> dict[str, str]:
    """Programs' names by what they say: traced once more, a program is another object."""
    return {cuda.spell(program, dtype): name for name, program in programs().items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", WHOLE)
def test_the_stages_say_what_numpy_computes(
    host: HostLibrary, name: str, dtype: np.dtype[np.floating]
) -> None:
    its, spelt = variant(name), Spelt(host)
    way = its.way(dtype, spelt)
    for number, shape in enumerate(SHAPES):
        difference = bits.compare(way, spelt, bits.Chunk(its, dtype, number, shape))
        assert difference is None, str(difference)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [1, 31, 1023, 1024, 1025, 9 * BLOCK + 77])
def test_the_sums_add_in_the_canonical_order(
    host: HostLibrary, count: int, dtype: np.dtype[np.floating]
) -> None:
    array = np.random.default_rng(count).standard_normal(count).astype(dtype)
    array[count // 2] = np.finfo(dtype).smallest_subnormal
    sums = np.full(-(-count // BLOCK) + 1, -1.0)
    host(f"sums_{dtype}", array, sums, count, sums.size - 1)
    assert halve(sums[:-1]) == sum_of_squares(array)
    assert sums[-1] == -1.0, "nothing is written beyond the last block"


@pytest.fixture(scope="module")
def gpu() -> Device:
    try:
        return open_device("gpu")
    except DeviceUnavailable as missing:
        pytest.skip(str(missing))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gpu_gives_numpys_bits(gpu: Device, name: str, dtype: np.dtype[np.floating]) -> None:
    program, scalars = traced(name)
    kernel = gpu.kernel(program, dtype)
    for count in (0, 1, 255, 256, 257, 100_003):
        arrays = drawn(program, count, dtype, seed=count)
        expected = {letter: values.copy() for letter, values in arrays.items()}
        BlockedKernel(program, dtype)(
            expected["w"], expected["w"], expected["g"], [expected[s] for s in program.slots], scalars
        )
        there = {letter: gpu.to_device(values.copy()) for letter, values in arrays.items()}
        kernel(there["w"], there["w"], there["g"], [there[slot] for slot in program.slots], scalars)
        for letter, values in there.items():
            back: npt.NDArray[np.floating] = np.empty_like(arrays[letter])
            gpu.to_host(values, back)
            assert same_bits(back, expected[letter]), (count, letter)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", WHOLE)
def test_a_gpu_gives_numpys_bits_in_stages(gpu: Device, name: str, dtype: np.dtype[np.floating]) -> None:
    its = variant(name)
    for number, shape in enumerate((*SHAPES, (1023, 65))):
        difference = bits.compare(its.way(dtype, gpu), gpu, bits.Chunk(its, dtype, number, shape))
        assert difference is None, str(difference)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_gpu_gives_the_canonical_sum(gpu: Device, dtype: np.dtype[np.floating]) -> None:
    for count in (0, 1, 1023, 1024, 1025, 1_000_003):
        array = np.random.default_rng(count).standard_normal(count).astype(dtype)
        assert gpu.sum_of_squares(gpu.to_device(array)) == sum_of_squares(array)
