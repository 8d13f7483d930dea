"""The image without a Docker engine: the Dockerfile's build steps, run into an empty virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.box.recipe import CHECKOUT, environment, stages

NOT_COPIED = shutil.ignore_patterns("__pycache__")


@dataclass(frozen=True)
class Image:
    """What the image holds: its virtual environment, and the sources it was built from."""

    venv: Path
    source: Path

    def run(self, *command: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the image outside the checkout, with the image's variables and `more`."""
        where = cwd or self.venv.parent
        variables = self.environment(more)
        return subprocess.run(
            self._found(command), cwd=where, env=variables, capture_output=True, text=True, check=False
        )

    def start(self, *command: str, **more: str) -> subprocess.Popen[bytes]:
        """Like `run`, without waiting for the end, and without reading what it prints."""
        variables = self.environment(more)
        return subprocess.Popen(
            self._found(command), cwd=self.venv.parent, env=variables, stdout=subprocess.DEVNULL
        )

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        """The variables a container would see, with the image's paths moved to where they are here."""
        outside = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        of_image = {name: self.here(value) for name, value in environment(stages()["runtime"]).items()}
        of_image["PATH"] = of_image["PATH"].replace("$PATH", os.environ["PATH"])
        return outside | of_image | {"HOME": str(self.venv.parent)} | more

    def here(self, text: str) -> str:
        """The same text with the image's absolute paths moved to where this image stands."""
        return text.replace("/venv", str(self.venv)).replace("/data", str(self.venv.parent / "data"))

    def _found(self, command: tuple[str, ...]) -> list[str]:
        path = shutil.which(command[0], path=self.environment({})["PATH"])
        assert path is not None, f"{command[0]} is not in the image"
        return [path, *command[1:]]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The `build` stage, instruction by instruction: COPY into an empty folder, RUN in its shell."""
    place = tmp_path_factory.mktemp("image")
    made = Image(venv=place / "venv", source=place / "source")
    made.source.mkdir()
    for instruction, value in stages()["build"].steps:
        if instruction == "COPY":
            _copy(value, made.source)
        elif instruction == "RUN":
            command = made.here(value).replace("python -m venv", f"{sys.executable} -m venv", 1)
            done = made.run("/bin/sh", "-ec", command, cwd=made.source)
            assert done.returncode == 0, f"RUN {value}\n{done.stdout}{done.stderr}"
    return made


def _copy(value: str, source: Path) -> None:
    *paths, destination = value.split()
    for path in paths:
        origin = CHECKOUT / path
        if origin.is_dir():
            shutil.copytree(origin, source / destination, ignore=NOT_COPIED)
        else:
            shutil.copy(origin, source / destination)
