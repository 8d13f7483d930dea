"""The Python client beside the same request made with the standard library's `http.client`."""

from __future__ import annotations

import http.client

import numpy as np

from benchmarks.measure import Plan, Report, take_turns, timed
from benchmarks.noise import noise
from benchmarks.subject import MODEL, TENSOR, Worker, body, require_steps, serving
from gradledger import Client
from tests.service import SAFETENSORS, Service

TITLE = "The Python client"


def run(plan: Plan) -> Report:
    """Push and pull, durability `memory`: `http.client`, the client, and it with `out=`, in turn."""
    report = Report("client", TITLE)
    _measure(plan, report, plan.pick(64 << 20, 1 << 20), rounds=plan.pick(30, 3), row=1, goal=1.2)
    _measure(plan, report, 4096, rounds=plan.pick(40, 3), row=plan.pick(50, 10), goal=1.5)
    return report


def _measure(plan: Plan, report: Report, nbytes: int, *, rounds: int, row: int, goal: float) -> None:
    gradients = {TENSOR: noise(nbytes // 4, 9)}
    out = {TENSOR: np.empty(nbytes // 4, np.float32)}
    with serving(plan, "memory", nbytes // 4) as service, Client(service.url) as client:
        model, plain = client.model(MODEL), Plain(service, nbytes // 4)
        cases = {
            "http.client": timed(plain.push),
            "client": timed(lambda: model.push(gradients)),
            "client, out": timed(lambda: model.push(gradients, out=out)),
        }
        samples = take_turns(cases, rounds, warmups=3, row=row)
        require_steps(service, 3 * plain.sequence)
        plain.close()
        model.delete()
    size = f"{nbytes >> 20} MiB" if nbytes >= 1 << 20 else f"{nbytes >> 10} KiB"
    report.samples[size] = dict(samples.seconds)
    for case, how in (("client", ""), ("client, out", " into arrays used again")):
        label = f"{size} push and pull with `gradledger`{how}"
        report.figures.append(samples.figure(label, case, ("http.client",), goal=goal))


class Plain(Worker):
    """A worker that pushes with `http.client` and reads into memory it uses again."""

    def __init__(self, service: Service, elements: int) -> None:
        super().__init__("plain", body(elements, 9))
        self._connection = http.client.HTTPConnection("127.0.0.1", service.port)
        self._memory = memoryview(bytearray(len(self.gradient) + 4096))

    def push(self) -> None:
        """A gradient out, the new parameters in."""
        headers = {"Content-Type": SAFETENSORS, "Accept": SAFETENSORS}
        self._connection.request("POST", self.target(), self.gradient, headers)
        answer = self._connection.getresponse()
        filled = 0
        while received := answer.readinto(self._memory[filled:]):
            filled += received
        assert answer.status == 200, (answer.status, bytes(self._memory[: min(filled, 500)]))

    def close(self) -> None:
        self._connection.close()
