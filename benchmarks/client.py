"""The Python client beside the same request made with the standard library's `http.client`."""

from __future__ import annotations

import http.client

from benchmarks.measure import Plan, Report, take_turns, timed
from benchmarks.noise import noise
from benchmarks.subject import MODEL, TENSOR, Worker, body, require_steps, serving
from gradledger import Client
from tests.service import SAFETENSORS, Service

TITLE = "The Python client"


def run(plan: Plan) -> Report:
    """64 MiB push and pull, durability `memory`, the client and `http.client` in turn."""
    report = Report("client", TITLE)
    nbytes = plan.pick(64 << 20, 1 << 20)
    gradients = {TENSOR: noise(nbytes // 4, 9)}
    with serving(plan, "memory", nbytes // 4) as service, Client(service.url) as client:
        model, plain = client.model(MODEL), Plain(service, nbytes // 4)
        cases = {"http.client": timed(plain.push), "client": timed(lambda: model.push(gradients))}
        samples = take_turns(cases, plan.pick(30, 3), warmups=3)
        require_steps(service, 2 * plain.sequence)
        plain.close()
    report.samples["client"] = dict(samples.seconds)
    label = f"{nbytes >> 20} MiB push and pull with `gradledger`"
    report.figures.append(samples.figure(label, "client", ("http.client",), goal=1.3))
    return report


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
