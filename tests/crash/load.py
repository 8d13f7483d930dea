"""Workers that never give up, and what must be true once they stop."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import urllib3
from numpy.typing import NDArray
from safetensors.numpy import save

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Create, Push
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.machine import image
from gradledger_server.machine import spec as specs
from gradledger_server.machine.apply import apply, begin
from gradledger_server.wire import safetensors
from tests.service import SAFETENSORS, Answer, Service

GIVE_UP_S = 60.0
RETRY_S = 0.02

Arrays = dict[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass
class Target:
    """A model to push to, and how it began."""

    name: str
    shapes: Shapes
    optimizer: dict[str, Any]

    @property
    def values(self) -> Arrays:
        return noise(self.shapes, 0)

    def create(self, service: Service) -> None:
        declared = {name: {"shape": list(shape)} for name, shape in self.shapes.items()}
        asked = {"optimizer": self.optimizer, "parameters": declared}
        path = f"/v1/models/{self.name}"
        assert service.request("PUT", path, asked).status == 201
        uploaded = service.request("PUT", f"{path}/parameters", save(self.values), Content_Type=SAFETENSORS)
        assert uploaded.status == 200, uploaded


SMALL = Target("small", {"w": (32, 16), "b": (10,)}, {"rule": "adam", "lr": 0.01})  # rides inside its entry
MIDDLING = Target(
    "middling", {"w": (300, 256), "b": (7,)}, {"rule": "adamw", "lr": 0.01}
)  # lies in a chunk, and needs no thread
LARGE = Target(
    "large", {"w": (600, 500), "b": (7,)}, {"rule": "momentum", "lr": 0.01}
)  # is sent ahead in chunks, by a thread


def noise(shapes: Shapes, seed: int) -> Arrays:
    """Seeded float32 noise of these shapes."""
    dice = np.random.default_rng(seed)
    return {name: dice.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@dataclass
class Pushed:
    """One acknowledged push: the seed of its gradient and its receipt."""

    seed: int
    receipt: dict[str, Any]


@dataclass
class Worker:
    """Pushes seeded gradients one after the other and repeats each until it is acknowledged.

    `services` are asked in turn, the next one after each failure. `again` is the share of acknowledged pushes
    that are sent once more.
    """

    target: Target
    number: int
    services: Sequence[Service]
    again: float = 0.1
    pushed: list[Pushed] = field(default_factory=list)
    failure: BaseException | None = None
    retries: int = 0
    slowest_s: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.name = f"worker{self.number}"
        self._dice = random.Random(self.number)
        self._http = urllib3.PoolManager(retries=False, timeout=10.0)
        self._thread = threading.Thread()

    def start(self) -> Worker:
        """Pushes from now on; after `finish`, goes on where it stopped."""
        self.stopping.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def finish(self) -> None:
        """Stops after the push at hand."""
        self.stopping.set()
        self._thread.join(2 * GIVE_UP_S)
        assert not self._thread.is_alive(), f"{self.name} hangs"
        self.raise_failure()

    def raise_failure(self) -> None:
        """What stopped the worker before its time."""
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                self._push(len(self.pushed) + 1)
        except BaseException as failure:
            self.failure = failure

    def _push(self, sequence: int) -> None:
        seed = self.number * 1_000_000 + sequence
        body = save(noise(self.target.shapes, seed))
        started = time.monotonic()
        answer = self._until_acknowledged(body, sequence)
        self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        self.pushed.append(Pushed(seed, answer.receipt))
        if self._dice.random() < self.again:
            repeated = self._until_acknowledged(body, sequence).receipt
            assert repeated["replayed"]
            assert same_receipt(repeated, answer.receipt)

    def _until_acknowledged(self, body: bytes, sequence: int) -> Answer:
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            answer = self._send(body, sequence)
            if answer is not None and answer.status == 200:
                return answer
            if answer is not None:
                assert answer.status == 503, answer
                assert answer.problem == "store-unavailable", answer
                assert int(answer.headers["retry-after"]) >= 1
            self.retries += 1
            time.sleep(RETRY_S)
        raise AssertionError(f"{self.name}: sequence {sequence} was not acknowledged in {GIVE_UP_S} s")

    def _send(self, body: bytes, sequence: int) -> Answer | None:
        service = self.services[(self.number + self.retries) % len(self.services)]
        path = f"/v1/models/{self.target.name}/gradients?worker={self.name}&sequence={sequence}"
        headers = {"Content-Type": SAFETENSORS}
        if self.target is LARGE or self.number % 2:  # the others are answered with the parameters
            headers["Prefer"] = "return=minimal"
        try:
            answer = self._http.request("POST", service.url + path, body=body, headers=headers)
        except urllib3.exceptions.HTTPError:
            return None
        return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.data)


def same_receipt(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two answers speak of the same push in the same words, except whether it is a repeat."""
    return {**one, "replayed": None} == {**other, "replayed": None}


def fold(target: Target, pushed: Sequence[Pushed]) -> bytes:
    """What GET …/state must answer: the pushes folded in log order, without interruption, on plain NumPy."""
    shapes = {name: (shape, "F32") for name, shape in target.shapes.items()}
    spec = specs.expand({"optimizer": target.optimizer}, shapes)
    begun = safetensors.decode(memoryview(save(target.values)))
    model = begin(Create(spec.json, begun, "", 0), CpuDevice(compiled=False), Blocks())
    for one in sorted(pushed, key=lambda one: int(one.receipt["offset"])):
        gradient = safetensors.decode(memoryview(save(noise(target.shapes, one.seed))))
        named: dict[str, Any] = {"worker": None, "sequence": None, "key": None, "base": None}
        push = Push(gradient, "", weight=1.0, grad_norm=0.0, durability="", at_ms=0, **named)
        receipt = apply(model, one.receipt["offset"], push)
        assert receipt is not None
        assert receipt.step == one.receipt["step"]
    taken = image.copy(model)
    return b"".join([safetensors.header(taken.tensors), *(part.tobytes() for part in taken.parts)])


def check(service: Service, target: Target, workers: Sequence[Worker]) -> int:
    """Acknowledged = applied, each exactly once, in the order the receipts tell; the number of pushes."""
    pushed = [one for worker in workers for one in worker.pushed]
    offsets = sorted(int(one.receipt["offset"]) for one in pushed)
    # Create and the upload of the first values are entries 1 and 2; what follows is pushes and nothing else.
    assert offsets == list(range(3, 3 + len(pushed)))
    assert sorted(int(one.receipt["step"]) for one in pushed) == list(range(1, 1 + len(pushed)))
    for worker in workers:
        assert [one.receipt["sequence"] for one in worker.pushed] == list(range(1, len(worker.pushed) + 1))
    described = service.request("GET", f"/v1/models/{target.name}").json
    assert described["step"] == len(pushed)
    listed = service.request("GET", f"/v1/models/{target.name}/workers").json["workers"]
    assert {one["worker"]: one["sequence"] for one in listed} == {
        worker.name: len(worker.pushed) for worker in workers if worker.pushed
    }
    assert sha256(service.state(target.name)) == sha256(fold(target, pushed))
    return len(pushed)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
