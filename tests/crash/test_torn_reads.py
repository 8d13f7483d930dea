"""One pull is one step, however fast others push and however slowly somebody reads."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.crash.load import Target, Worker, check, noise
from tests.service import SAFETENSORS, Service

ELEMENTS = 1 << 20
LR = 1.0 / 64  # a power of two: every step's value is exact


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("torn"), "--durability", "memory") as service:
        yield service


def uniform(service: Service, model: str) -> None:
    """A model of 4 MiB whose weights are all 0, and will be −step/64 at every step."""
    asked = {
        "optimizer": {"rule": "sgd", "lr": LR},
        "parameters": {"a": {"shape": [ELEMENTS]}, "b": {"shape": [7]}},
    }
    assert service.request("PUT", f"/v1/models/{model}", asked).status == 201
    zeros = save({"a": np.zeros(ELEMENTS, np.float32), "b": np.zeros(7, np.float32)})
    uploaded = service.request("PUT", f"/v1/models/{model}/parameters", zeros, Content_Type=SAFETENSORS)
    assert uploaded.status == 200


def step_of(etag: str, body: bytes) -> int:
    """The step the ETag names, after checking that every number in the body is that step's."""
    step = int(etag.strip('"').split(".")[1])
    for name, array in load(body).items():
        assert (array == np.float32(-LR * step)).all(), (
            f"{name} at step {step} holds {np.unique(array)[:5] / -LR}"
        )
    return step


def slow_pull(service: Service, model: str, pause_s: float) -> tuple[str, bytes]:
    """Reads the answer in small pieces through a small window, resting between them."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    connection.request("GET", f"/v1/models/{model}/parameters", headers={"Accept": SAFETENSORS})
    answer = connection.getresponse()
    assert answer.status == 200
    pieces = []
    while piece := answer.read(256 << 10):
        pieces.append(piece)
        time.sleep(pause_s)
    connection.close()
    return answer.headers["ETag"], b"".join(pieces)


def test_every_pull_is_exactly_one_step(fast: Service) -> None:
    uniform(fast, "torn")
    ones = save({"a": np.ones(ELEMENTS, np.float32), "b": np.ones(7, np.float32)})
    half = save({"a": np.ones(ELEMENTS, np.float16), "b": np.ones(7, np.float32)})
    stop = threading.Event()
    seen: dict[str, list[int]] = {}
    failures: list[BaseException] = []

    def write(name: str, body: bytes) -> None:
        sequence = 0
        while not stop.is_set():
            sequence += 1
            path = f"/v1/models/torn/gradients?worker={name}&sequence={sequence}"
            answer = fast.request("POST", path, body, Content_Type=SAFETENSORS)
            assert answer.status == 200
            # The answer to a push is a pull, too: its step or a later one, and whole.
            assert step_of(answer.headers["etag"], answer.data) >= answer.receipt["step"]

    def read(name: str, pause_s: float) -> None:
        steps = seen.setdefault(name, [])
        while not stop.is_set():
            steps.append(step_of(*slow_pull(fast, "torn", pause_s)))

    def guarded(work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as failure:
            failures.append(failure)
            stop.set()

    threads = [
        threading.Thread(target=guarded, args=arguments)
        for arguments in (
            (write, "one", ones),
            (write, "two", half),
            (read, "quick", 0.0),
            (read, "slow", 0.02),
            (read, "slower", 0.1),
        )
    ]
    for thread in threads:
        thread.start()
    stop.wait(5.0)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not failures, failures[0]
    for name, steps in seen.items():
        assert steps == sorted(steps), f"{name} went back in time"
    assert len(set(seen["quick"])) > 5
    assert seen["slower"][-1] > 0


def test_duplicated_reordered_and_aborted_pushes_count_once_each(fast: Service) -> None:
    """1,000 pushes by 8 workers; of ten, three are repeated, one comes too early and one breaks off."""
    target = Target("chaos", {"w": (40, 50)}, {"rule": "adam", "lr": 0.01})
    target.create(fast)
    workers = [Clumsy(target, number, [fast], again=0.3) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.finish()
    assert check(fast, target, workers) == 1000
    assert sum(worker.aborted for worker in workers) > 50
    assert sum(worker.early for worker in workers) > 50


class Clumsy(Worker):
    """Makes 125 pushes; sometimes it hangs up in the middle of a body or sends the next push first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.aborted = self.early = 0
        self._clumsiness = random.Random(self.number)

    def _run(self) -> None:
        try:
            for sequence in range(1, 126):
                self._push(sequence)
        except BaseException as failure:
            self.failure = failure

    def _push(self, sequence: int) -> None:
        if self._clumsiness.random() < 0.1:
            self._abort(sequence)
        if self._clumsiness.random() < 0.1:
            self._send_early(sequence)
        super()._push(sequence)

    def _abort(self, sequence: int) -> None:
        """The head of the request and a part of its body, and then nothing more."""
        body = save(noise(self.target.shapes, -1 % 2**31))
        part = body[: self._clumsiness.randrange(len(body))]
        path = f"/v1/models/{self.target.name}/gradients?worker={self.name}&sequence={sequence}"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {SAFETENSORS}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", self.services[0].port)) as line:
            line.sendall(head.encode() + part)
        self.aborted += 1

    def _send_early(self, sequence: int) -> None:
        body = save(noise(self.target.shapes, self.number * 1_000_000 + sequence + 1))
        answer = self._send(body, sequence + 1)
        assert answer is not None
        assert (answer.status, answer.problem, answer.json["expected"]) == (409, "sequence-gap", sequence)
        self.early += 1
