"""The command `gradledger`: what it says of itself, and of what it is given wrongly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gradledger_server import __version__
from gradledger_server.cli import main
from gradledger_server.settings import Settings, read

Told = tuple[int, str, str]
Command = Callable[..., Told]


@pytest.fixture
def gradledger(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, run here: its exit status, what it said, and to stderr. `env` adds variables."""

    def run(*arguments: str, **env: str) -> Told:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["gradledger", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    return run


def test_it_tells_its_version(gradledger: Command) -> None:
    assert gradledger("--version") == (0, f"gradledger {__version__}\n", "")


def test_the_help_of_serve_has_every_default(gradledger: Command) -> None:
    _, told, _ = gradledger("serve", "--help", COLUMNS="200")
    for default in ("127.0.0.1", "8000", ".gradledger", "auto", "1", "info"):
        assert f"[default: ({default})]" in told
    assert told.count("[default:") == 6, "of those that have one"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("serve --port 99999", "--port must be less than or equal to 65535, got 99999"),
        ("serve --workers 0", "--workers must be greater than or equal to 1, got 0"),
        ("serve --threads 0", "--threads must be greater than or equal to 1, got 0"),
        ("doctor --port -1", "--port must be greater than or equal to 0, got -1"),
        (
            "serve --workers 0 --port 99999",
            "--port must be less than or equal to 65535, got 99999; "
            "--workers must be greater than or equal to 1, got 0",
        ),
    ],
)
def test_a_wrong_option_is_named_as_it_was_written(gradledger: Command, arguments: str, said: str) -> None:
    assert gradledger(*arguments.split()) == (2, "", f"gradledger: {said}\n")


@pytest.mark.parametrize("command", ["serve", "doctor", "healthcheck", "openapi"])
@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("GRADLEDGER_PORT", "abc", "a valid integer"),
        ("GRADLEDGER_STALL_S", "-1", "greater than or equal to 0"),
        ("GRADLEDGER_COMPILED", "maybe", "a valid boolean"),
        ("GRADLEDGER_DURABILITY", "disk", "'fsync', 'everysec' or 'memory'"),
    ],
)
def test_a_wrong_variable_is_named(
    gradledger: Command, command: str, variable: str, value: str, expected: str
) -> None:
    said = f"gradledger: {variable} must be {expected}, got {value!r}\n"
    assert gradledger(command, **{variable: value}) == (2, "", said)


def test_an_option_goes_before_a_variable_be_it_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLEDGER_PORT", "abc")
    assert read(port=7, workers=None).port == 7


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"GRADLEDGER_{name.upper()}", "")
    assert read() == Settings.model_construct()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_gpu_that_is_not_there_is_said_before_anything_else(tmp_path: Path, workers: str) -> None:
    """And once, however many processes would have needed it."""
    (tmp_path / "cupy.py").write_text("raise ImportError('there is none here')\n")
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, "-m", "gradledger_server", "serve", "--port", "0", "--device", "gpu"]
    command += ["--data-dir", str(tmp_path / "data"), "--workers", workers]
    ended = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(
        r"gradledger: no GPU can be used: .*there is none here\nInstall CuPy .*\n", ended.stderr
    )
    assert not (tmp_path / "data").exists()
