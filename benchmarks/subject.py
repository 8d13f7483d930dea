"""The service under test: a model in it, and a worker that pushes to it at the least cost to itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.connection import Connection
from benchmarks.measure import Plan
from benchmarks.noise import noise
from gradledger_server.wire import safetensors
from tests.service import SAFETENSORS, Service

MODEL = "bench"
TENSOR = "w"
HEADERS = f"Content-Type: {SAFETENSORS}\r\nAccept: {SAFETENSORS}\r\n"


@contextmanager
def serving(plan: Plan, durability: str, elements: int, device: str = "cpu") -> Iterator[Service]:
    """A service with an Adam model of one float32 tensor of so many elements."""
    directory = plan.directory / f"service-{durability}-{device}"
    with Service(directory, "--durability", durability, "--device", device) as service:
        spec = {
            "optimizer": {"rule": "adam", "lr": 1e-3},
            "parameters": {TENSOR: {"shape": [elements], "dtype": "F32"}},
        }
        created = service.request("PUT", f"/v1/models/{MODEL}", spec)
        uploaded = service.request(
            "PUT", f"/v1/models/{MODEL}/parameters", bytes(body(elements, 8)), Content_Type=SAFETENSORS
        )
        assert (created.status, uploaded.status) == (201, 200), (created, uploaded)
        yield service


def body(elements: int, seed: int) -> memoryview:
    """A safetensors body of one tensor of noise."""
    header = safetensors.header([(TENSOR, "F32", (elements,))])
    joined = np.empty(len(header) + 4 * elements, np.uint8)
    joined[: len(header)] = np.frombuffer(header, np.uint8)
    joined[len(header) :] = noise(elements, seed).view(np.uint8)
    return joined.data


class Worker:
    """A worker: the gradient it sends again and again, and the names of its pushes."""

    def __init__(self, name: str, gradient: memoryview) -> None:
        self.name, self.gradient, self.sequence = name, gradient, 0

    def target(self) -> str:
        """Where the next push goes: it has the next sequence."""
        self.sequence += 1
        return f"/v1/models/{MODEL}/gradients?worker={self.name}&sequence={self.sequence}"


class Pusher(Worker):
    """One worker on one connection of our own."""

    def __init__(self, service: Service, elements: int) -> None:
        super().__init__("bench", body(elements, 9))
        self._connection = Connection(service.port, len(self.gradient))

    def push(self) -> None:
        """A gradient out, the new parameters in."""
        self._connection.request("POST", self.target(), HEADERS, self.gradient)

    def close(self) -> None:
        self._connection.close()


def require_steps(service: Service, pushes: int) -> None:
    """A figure counts only if the service did the work: every push must have made one step."""
    described = json.loads(service.request("GET", f"/v1/models/{MODEL}").data)
    assert described["step"] == pushes, f"{pushes} pushes were answered, {described['step']} steps were made"
