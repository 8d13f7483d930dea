"""The demonstration as a whole: real processes, a real kill, and nothing left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

SCRIPT = """
import sys
from pathlib import Path
from gradledger_server import demo

place = Path(sys.argv[1])
sys.exit(demo.run(epochs=15, plot=place / "loss.png", data_dir=place / "data"))
"""


def started(place: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(place)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left_behind(place: Path) -> list[str]:
    """Processes whose command names the test's directory."""
    return [
        " ".join(process.info["cmdline"] or [])
        for process in psutil.process_iter(["cmdline"])
        if str(place) in " ".join(process.info["cmdline"] or [])
    ]


@pytest.mark.slow
def test_training_survives_the_kill_and_every_push_counts_once(tmp_path: Path) -> None:
    process = started(tmp_path)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert "was killed (SIGKILL)" in output
    assert "660 pushes acknowledged, 660 applied" in " ".join(output.split())
    assert (tmp_path / "loss.png").stat().st_size > 10_000
    assert left_behind(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_puts_everything_away(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as process:
        assert process.stdout is not None
        assert "4 workers train" in process.stdout.readline()
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(30) == 130
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
    assert left_behind(tmp_path) == []
