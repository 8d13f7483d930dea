"""Services that share a Valkey."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.external import External
from tests.service import Service


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    """Two services on one external server, saving at every quiet moment."""
    home: Path = tmp_path_factory.mktemp("replicas")
    quick = {"GRADLEDGER_SNAPSHOT_QUIET_S": "0.2"}
    with External(tmp_path_factory.mktemp("external")) as server:
        one = Service(home / "one", "--redis-url", server.url, **quick)
        two = Service(home / "two", "--redis-url", server.url, **quick)
        with one, two:
            yield one, two
