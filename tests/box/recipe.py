"""The box as data: what the Dockerfile and the compose files say, read by tools that know those formats."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockerfile_parse import DockerfileParser

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKERFILE = CHECKOUT / "Dockerfile"
COMPOSE = CHECKOUT / "docker-compose.yml"
COMPOSE_GPU = CHECKOUT / "docker-compose.gpu.yml"


@dataclass
class Stage:
    """One `FROM … AS name` of the Dockerfile, and its instructions in order."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def values(self, instruction: str) -> list[str]:
        return [value for name, value in self.steps if name == instruction]


def tool(name: str) -> str:
    """The path of a command that `make install` put beside this Python."""
    return str(Path(sys.executable).parent / name)


def stages() -> dict[str, Stage]:
    """The Dockerfile's stages by name, in order."""
    found: dict[str, Stage] = {}
    stage: Stage | None = None
    for step in DockerfileParser(fileobj=io.BytesIO(DOCKERFILE.read_bytes())).structure:
        if step["instruction"] == "FROM":
            base, _, name = step["value"].split()
            stage = found[name] = Stage(base, name)
        elif step["instruction"] != "COMMENT":
            assert stage is not None, f"{step['instruction']} stands before the first FROM"
            stage.steps.append((step["instruction"], step["value"]))
    return found


def environment(stage: Stage) -> dict[str, str]:
    """Every variable that the stage itself sets."""
    pairs = [pair.partition("=") for value in stage.values("ENV") for pair in value.split()]
    return {name: text for name, _, text in pairs}


def compose(*files: Path) -> dict[str, Any]:
    """The composed services as Docker Compose itself reads them."""
    named = [part for file in files for part in ("--file", str(file))]
    command = [tool("docker-compose"), *named, "config", "--format", "json"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    services: dict[str, Any] = json.loads(answer.stdout)["services"]
    return services
