"""The CUDA source: its PTX rounds every operation (where nvcc is), its bits are NumPy's (where a GPU is)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from gradledger_server.errors import DeviceUnavailable
from gradledger_server.kernels import cuda
from gradledger_server.kernels.blocked import BlockedKernel
from gradledger_server.kernels.device import Device, open_device
from gradledger_server.kernels.reductions import sum_of_squares
from gradledger_server.optim import catalog
from tests.kernels.programs import OPTIMIZERS, drawn, same_bits, traced

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
FLOATING = re.compile(
    r"^\s*(?:@%p\d+ )?((?:add|sub|mul|div|sqrt|fma|mad|rcp|rsqrt)\.[\w.]*f(?:32|64))\b", re.M
)


def ptx(folder: Path, *options: str) -> str:
    """Every rule in both dtypes, and the sums, as PTX."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on this machine")
    sources = [cuda.spell(traced(rule)[0], dtype) for rule in catalog.ELEMENTWISE for dtype in DTYPES]
    sources += [cuda.spell_sums(dtype).replace("sums(", f"sums_{dtype}(", 1) for dtype in DTYPES]
    (folder / "rules.cu").write_text("\n".join(sources))
    subprocess.run(
        ["nvcc", "-ptx", *options, "rules.cu", "-o", "rules.ptx"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return (folder / "rules.ptx").read_text()


@pytest.mark.slow
def test_every_operation_rounds_to_nearest_and_none_is_fused(tmp_path: Path) -> None:
    text = ptx(tmp_path, *cuda.OPTIONS)
    entries = text.split(".entry ")[1:]
    names = {entry.partition("(")[0].strip() for entry in entries}
    assert names == {f"{rule}_{dtype}" for rule in catalog.ELEMENTWISE for dtype in DTYPES} | {
        f"sums_{dtype}" for dtype in DTYPES
    }
    for entry in entries:
        found = FLOATING.findall(entry)
        assert found, entry[:80]
        assert [operation for operation in found if ".rn." not in operation] == []
        assert [
            operation for operation in found if operation.startswith(("fma", "mad", "rcp", "rsqrt"))
        ] == []
        assert ".ftz" not in entry and ".approx" not in entry


@pytest.mark.slow
def test_without_the_option_nvcc_would_fuse(tmp_path: Path) -> None:
    """What the option is for, and that the test above could fail."""
    assert any(operation.startswith("fma") for operation in FLOATING.findall(ptx(tmp_path)))


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
def test_a_gpu_gives_the_canonical_sum(gpu: Device, dtype: np.dtype[np.floating]) -> None:
    for count in (0, 1, 1023, 1024, 1025, 1_000_003):
        array = np.random.default_rng(count).standard_normal(count).astype(dtype)
        assert gpu.sum_of_squares(gpu.to_device(array)) == sum_of_squares(array)
