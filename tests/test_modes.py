"""The commands of docs/modes.md, run as they stand against a real service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gradledger_server.api.shapes import FATES
from gradledger_server.machine.guard import NONFINITE
from gradledger_server.machine.sync.merge import NAMES
from gradledger_server.machine.sync.policy import MODES
from tests.service import Service

PAGE = (Path(__file__).parents[1] / "docs" / "modes.md").read_text()


def run(language: str, *command: str, service: Service) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    there = str(text).replace("http://127.0.0.1:8000", service.url)
    done = subprocess.run([*command, there], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_round_with_curl(service: Service) -> None:
    told = run("bash", "bash", "-euc", service=service)
    answers = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    receipts = [each.get("receipt", each) for each in answers]
    fates = [each["fate"] for each in receipts if each and "fate" in each]
    assert fates == ["waiting", "waiting", "merged", "merged", "merged", "applied"]
    assert [each["parameters"]["w"] for each in answers if "receipt" in each and "parameters" in each] == [
        [6.0],
        [5.0],
        [4.0],
    ]
    events = re.findall(r"^event: (\w+)$", told, re.MULTILINE)
    story = [kind for kind in events if kind != "snapshot"]
    assert story == [
        "create",
        "join",
        "join",
        "waiting",
        "step",
        "round",
        "leave",
        "step",
        "round",
        "configure",
        "step",
    ]


def test_the_worker_in_python(service: Service) -> None:
    assert run("python", sys.executable, "-c", service=service) == "merged 3 30.0\n"


@pytest.mark.parametrize(
    "name", [*MODES, *NAMES, "late", "rejected", "compensate", "grace_ms", "lease_s", *FATES, *NONFINITE]
)
def test_everything_has_its_word(name: str) -> None:
    assert f"`{name}`" in PAGE
