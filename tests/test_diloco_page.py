"""The programs of docs/diloco.md, run as they stand against a real service."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from gradledger.diloco import Options
from tests.service import Service

PAGE = (Path(__file__).parents[1] / "docs" / "diloco.md").read_text()
WITH_TORCH, PLAIN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(program: str, service: Service) -> str:
    there = program.replace("http://127.0.0.1:8000", service.url)
    command = [sys.executable, "-W", "error", "-c", there]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(find_spec("torch") is None, reason="needs PyTorch")
def test_the_program_for_pytorch(service: Service) -> None:
    assert run(WITH_TORCH, service) == "".join(f"merged {step}\n" for step in range(1, 11))


def test_the_program_over_plain_arrays(service: Service) -> None:
    assert run(PLAIN, service) == "[0.] [0.]\n"


@pytest.mark.parametrize("option", Options.__annotations__)
def test_every_option_has_its_word(option: str) -> None:
    assert f"`{option}`" in PAGE
