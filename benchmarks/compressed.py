"""One dense push in F32, BF16 and int8 with scales: bytes up, bytes in the log, and time beside F32's."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import redis

from benchmarks.connection import Connection
from benchmarks.measure import Plan, Report, take_turns, timed
from benchmarks.noise import noise
from benchmarks.subject import HEADERS, MODEL, TENSOR, Worker, require_steps, serving
from gradledger import compressed
from gradledger.compression import Wire
from gradledger.tensors import encode
from gradledger_server.store import keys
from gradledger_server.store.datadir import DataDir
from tests.service import SAFETENSORS, Service

TITLE = "Compressed pushes"
FORMS: dict[str, Wire | None] = {"F32": None, "BF16": "bf16", "int8": "int8"}
MINIMAL = f"Content-Type: {SAFETENSORS}\r\nAccept: application/json\r\nPrefer: return=minimal\r\n"
ANSWERS = {"push and pull": HEADERS, "push only": MINIMAL}
HEAD_BYTES = 4096  # of a body, at most


def run(plan: Plan) -> Report:
    """64 MiB of gradient in each form, in turn, to one Adam model; F32 parameters come back, or nothing."""
    report = Report("compressed", TITLE)
    elements = plan.pick(64 << 20, 1 << 20) // 4
    bodies = {form: _body(elements, wire) for form, wire in FORMS.items()}
    for durability in ("memory", "fsync"):
        _measure(plan, report, durability, elements, bodies)
    report.notes.append(_making(plan, elements))
    return report


def _measure(plan: Plan, report: Report, durability: str, elements: int, bodies: dict[str, bytes]) -> None:
    with serving(plan, durability, elements) as service:
        # One connection for all: the service closes those that idle while the others take their turns.
        connection = Connection(service.port, 4 * elements + HEAD_BYTES)
        pushers = {
            f"{form}, {answer}": Pusher(connection, f"{form}-{number}", body, headers)
            for form, body in bodies.items()
            for number, (answer, headers) in enumerate(ANSWERS.items())
        }
        logged = {form: _logged_bytes(service, pushers[f"{form}, push only"]) for form in bodies}
        cases = {name: timed(pusher.push) for name, pusher in pushers.items()}
        samples = take_turns(cases, plan.pick(30, 3), warmups=3)
        require_steps(service, sum(pusher.sequence for pusher in pushers.values()))
        connection.close()
    report.samples[durability] = dict(samples.seconds)
    for answer in ANSWERS:
        for form in ("BF16", "int8"):
            label = f"{elements * 4 >> 20} MiB Adam as {form}, {answer}, {durability}"
            sizes = f"{_mib(len(bodies[form]))} up, {_mib(logged[form])} in the log"
            limit = f"F32, {answer}"
            report.figures.append(samples.figure(label, f"{form}, {answer}", (limit,), note=sizes))


class Pusher(Worker):
    """A worker that sends one form and asks for one answer."""

    def __init__(self, connection: Connection, name: str, body: bytes, headers: str) -> None:
        super().__init__(name, memoryview(body))
        self._connection, self._headers = connection, headers

    def push(self) -> None:
        """A gradient out, and whatever was asked for in."""
        self._connection.request("POST", self.target(), self._headers, self.gradient)


def _body(elements: int, wire: Wire | None) -> bytes:
    gradient: dict[str, Any] = {TENSOR: noise(elements, 9)}
    return b"".join(encode(gradient if wire is None else compressed(gradient, wire)))


def _logged_bytes(service: Service, pusher: Pusher) -> int:
    """What the server holds of a push that was just made."""
    pusher.push()
    epoch = json.loads(service.request("GET", f"/v1/models/{MODEL}").data)["epoch"]
    with redis.Redis.from_url(DataDir(service.data_dir).url) as server:
        held: Any = server
        ((_, entry),) = held.xrevrange(keys.log(epoch), count=1)
        if b"chunks" not in entry:
            return len(entry[b"payload"])
        token, count = entry[b"chunks"].decode().split(":")
        return sum(held.strlen(keys.chunk(epoch, token, index)) for index in range(int(count)))


def _making(plan: Plan, elements: int) -> str:
    gradient: dict[str, Any] = {TENSOR: noise(elements, 9)}
    cases = {form: timed(partial(compressed, gradient, wire)) for form, wire in FORMS.items() if wire}
    samples = take_turns(cases, plan.pick(10, 3))
    times = ", ".join(f"{samples.median(form) * 1e3:.0f} ms as {form}" for form in cases)
    return f"Not in the times: the Python client compresses {elements * 4 >> 20} MiB in {times}, on one core."


def _mib(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):.2f} MiB"
