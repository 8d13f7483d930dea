"""The parts of the demonstration that need no service."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gradledger_server import demo
from gradledger_server.demo import plot, worker
from gradledger_server.demo.processes import Crew, DemoFailed, Service
from gradledger_server.demo.progress import Tally

NOBODY = "http://127.0.0.1:9"


def told(sequence: int, **changes: Any) -> dict[str, Any]:
    first = {"worker": "w0", "sequence": sequence, "step": sequence, "loss": 2.0}
    return {**first, "staleness": 3, "replayed": False, **changes}


def test_a_push_told_twice_counts_once() -> None:
    tally = Tally(expected=10)
    for each in (told(1), told(2), told(2, replayed=True), told(1, worker="w1", staleness=None)):
        tally.add(each)
    assert len(tally.acknowledged) == 3
    assert tally.replayed == 1
    console = Console(width=90)
    with console.capture() as seen:
        console.print(tally)
    assert "3 of 10" in seen.get()
    assert "2.0000" in seen.get()


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "new" / "loss.png"
    plot.draw([(step, 2.0 / step) for step in range(1, 200)], 100, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "sklearn" else name)
    assert demo.run() == 1
    assert "scikit-learn: pip install" in capsys.readouterr().err


def test_a_service_that_cannot_start_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the directory should be")
    service = Service(tmp_path / "data", tmp_path / "log")
    with pytest.raises(DemoFailed, match=r"it said:\n.+"):
        service.start()
    service.stop()


def test_a_worker_that_fails_is_quoted_and_the_others_end(tmp_path: Path) -> None:
    crew = Crew(worker.__name__, worker.options("not a url", "digits", 2, 1), tmp_path)
    try:
        with pytest.raises(DemoFailed, match=r"worker w\d ended with 1; it said:\n"):
            while not crew.done():
                time.sleep(0.02)
    finally:
        crew.dismiss()


def test_a_worker_ends_with_the_one_who_started_it() -> None:
    command = [sys.executable, "-m", "gradledger_server.demo.worker", "--url", NOBODY, "--model", "m"]
    command += ["--index", "0", "--workers", "1", "--epochs", "1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.communicate(timeout=20)
    assert process.returncode == 1
