"""Real servers for the tests: one service for all that need nothing special of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Service


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service with an embedded Valkey, durability `memory`."""
    with Service(tmp_path_factory.mktemp("service"), "--durability", "memory") as running:
        yield running


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """A running service of the test's own, to be killed and restarted; durability `fsync`."""
    with Service(tmp_path / "data") as running:
        yield running
