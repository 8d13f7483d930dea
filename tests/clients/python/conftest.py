"""A client and a model on a service that misbehaves when told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gradledger import Client, Model
from tests.clients.python.faulty import Service


@pytest.fixture
def faulty() -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(faulty: Service) -> Iterator[Client]:
    with Client(faulty.url, timeout_s=0.5, retry_for_s=10.0) as client:
        yield client


@pytest.fixture
def model(client: Client) -> Model:
    params: dict[str, Any] = {"w": np.zeros(4, np.float32), "b": np.ones((2, 3), np.float64)}
    return client.create("demo", params, "sgd")
