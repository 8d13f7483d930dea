"""The service under test: a model in it, and a worker that pushes to it at the least cost to itself."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.connection import Connection, Parts, request_head
from benchmarks.measure import Plan
from benchmarks.noise import noise
from gradledger_server.wire import safetensors
from tests.service import SAFETENSORS, Service

MODEL = "bench"
TENSOR = "w"
HEADERS = f"Content-Type: {SAFETENSORS}\r\nAccept: {SAFETENSORS}\r\n"

# No snapshot is ever due, neither after a while nor by the log's size.
UNSAVED = {"GRADLEDGER_SNAPSHOT_QUIET_S": "1e9", "GRADLEDGER_SNAPSHOT_LOG_RATIO": "1e9"}

Tensors = int | Mapping[str, int]  # elements: of one float32 tensor, or of several by name


@contextmanager
def serving(plan: Plan, durability: str, tensors: Tensors, device: str = "cpu") -> Iterator[Service]:
    """A service with one Adam model."""
    with started(plan, "--durability", durability, "--device", device) as service:
        begin(service, MODEL, tensors)
        yield service


@contextmanager
def started(plan: Plan, *arguments: str, **env: str) -> Iterator[Service]:
    """A service without a model, in a directory of its own on the disk that is measured."""
    directory = Path(tempfile.mkdtemp(prefix="service-", dir=plan.directory))
    with Service(directory, *arguments, **env) as service:
        yield service


def begin(service: Service, model: str, tensors: Tensors) -> None:
    """An Adam model that has values."""
    path = f"/v1/models/{model}"
    created = service.request("PUT", path, spec(tensors))
    values = bytes(body(tensors, 8))
    uploaded = service.request("PUT", f"{path}/parameters", values, Content_Type=SAFETENSORS)
    assert (created.status, uploaded.status) == (201, 200), (created, uploaded)


def spec(tensors: Tensors) -> dict[str, Any]:
    """What creates such a model."""
    shapes = {name: {"shape": [elements], "dtype": "F32"} for name, elements in _named(tensors).items()}
    return {"optimizer": {"rule": "adam", "lr": 1e-3}, "parameters": shapes}


def body(tensors: Tensors, seed: int) -> memoryview:
    """A safetensors body of float32 noise."""
    named = _named(tensors)
    header = safetensors.header([(name, "F32", (elements,)) for name, elements in named.items()])
    joined = np.empty(len(header) + 4 * sum(named.values()), np.uint8)
    joined[: len(header)] = np.frombuffer(header, np.uint8)
    joined[len(header) :] = noise(sum(named.values()), seed).view(np.uint8)
    return joined.data


def _named(tensors: Tensors) -> Mapping[str, int]:
    return {TENSOR: tensors} if isinstance(tensors, int) else tensors


class Worker:
    """A worker: the gradient it sends again and again, and the names of its pushes."""

    def __init__(self, name: str, gradient: memoryview, model: str = MODEL) -> None:
        self.name, self.gradient, self.model, self.sequence = name, gradient, model, 0

    def target(self) -> str:
        """Where the next push goes: it has the next sequence."""
        self.sequence += 1
        return f"/v1/models/{self.model}/gradients?worker={self.name}&sequence={self.sequence}"

    def request(self) -> Parts:
        """The next push as it goes over the wire."""
        return [request_head("POST", self.target(), HEADERS, len(self.gradient)), self.gradient]


class Pusher(Worker):
    """One worker on one connection of our own."""

    def __init__(self, service: Service, tensors: Tensors, model: str = MODEL) -> None:
        super().__init__("bench", body(tensors, 9), model)
        self._connection = Connection(service.port, len(self.gradient))

    def push(self) -> None:
        """A gradient out, the new parameters in."""
        self._connection.request("POST", self.target(), HEADERS, self.gradient)

    def close(self) -> None:
        self._connection.close()


def require_steps(service: Service, pushes: int, model: str = MODEL) -> None:
    """A figure counts only if the service did the work: every push must have made one step."""
    described = json.loads(service.request("GET", f"/v1/models/{model}").data)
    assert described["step"] == pushes, f"{pushes} pushes were answered, {described['step']} steps were made"
