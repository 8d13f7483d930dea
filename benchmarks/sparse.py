"""Rows of a large table beside a dense push of the same bytes, and beside a small one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import numpy as np

from benchmarks.connection import Connection
from benchmarks.measure import Plan, Report, take_turns, timed
from benchmarks.noise import noise
from benchmarks.subject import HEADERS
from gradledger_server.wire import safetensors
from tests.service import SAFETENSORS, Service

TITLE = "Rows of a table"
GOAL = 1.5
WIDTH = 64
BODIES = 64  # different ones, so that the rows are not always the same
SMALL = 1024  # elements: 4 KiB


def run(plan: Plan) -> Report:
    """1,000 rows of 1,000,000 × 64 in Adam, any of them; one worker, one connection, durability `memory`."""
    report = Report("sparse", TITLE)
    rows, touched = plan.pick(1_000_000, 10_000), plan.pick(1000, 100)
    dense = touched * (WIDTH + 2)  # float32 numbers that take as much as the rows and their 64-bit ids
    init = {"name": "normal", "std": 0.05}
    table = {"shape": [rows, WIDTH], "rows": "lazy", "init": init}
    same, small, labelled = (
        "dense push of the same bytes",
        "dense push of 4 KiB",
        f"{touched:,} of {rows:,} rows",
    )
    with _serving(plan) as service:
        pushers = {
            "rows": Pusher(service, "rows", table, [_rows(rows, touched, seed) for seed in range(BODIES)]),
            same: Pusher(service, "same", {"shape": [dense]}, [_dense(dense)]),
            small: Pusher(service, "small", {"shape": [SMALL]}, [_dense(SMALL)]),
        }
        for _ in range(BODIES):  # every row of theirs has been touched once
            pushers["rows"].push()
        cases = {name: timed(pusher.push) for name, pusher in pushers.items()}
        samples = take_turns(cases, plan.pick(40, 3), warmups=plan.pick(20, 2), row=plan.pick(10, 3))
        for pusher in pushers.values():
            pusher.close(service)
    report.samples["push"] = dict(samples.seconds)
    report.figures.append(samples.figure(labelled, "rows", (same,), goal=GOAL))
    report.figures.append(samples.figure(labelled, "rows", (small,)))
    return report


class Pusher:
    """One worker of one model, on one connection, with bodies that take turns."""

    def __init__(
        self, service: Service, model: str, parameter: dict[str, Any], bodies: Sequence[bytes]
    ) -> None:
        self.path, self.sequence, self._bodies = f"/v1/models/{model}", 0, cycle(bodies)
        spec = {"optimizer": {"rule": "adam", "lr": 1e-3}, "parameters": {"w": parameter}}
        created = service.request("PUT", self.path, spec)
        assert created.status == 201, created
        if "rows" not in parameter:
            brought = service.request("PUT", f"{self.path}/parameters", bodies[0], Content_Type=SAFETENSORS)
            assert brought.status == 200, brought
        self._connection = Connection(service.port, max(map(len, bodies)))

    def push(self) -> None:
        """A gradient out, the new parameters in."""
        self.sequence += 1
        target = f"{self.path}/gradients?worker=bench&sequence={self.sequence}"
        self._connection.request("POST", target, HEADERS, next(self._bodies))

    def close(self, service: Service) -> None:
        """Every push must have made one step, or the figures mean nothing."""
        self._connection.close()
        assert json.loads(service.request("GET", self.path).data)["step"] == self.sequence


@contextmanager
def _serving(plan: Plan) -> Iterator[Service]:
    with Service(plan.directory / "service-sparse", "--durability", "memory") as service:
        yield service


def _rows(rows: int, touched: int, seed: int) -> bytes:
    ids = np.random.default_rng(seed).choice(rows, touched, replace=False)
    values = noise(touched * WIDTH, seed)
    shaped: list[tuple[str, str, tuple[int, ...], Any]] = [
        ("w", "F32", (touched, WIDTH), values),
        ("w#rows", "I64", (touched,), ids),
    ]
    return b"".join(safetensors.encode(shaped))


def _dense(elements: int) -> bytes:
    return b"".join(safetensors.encode([("w", "F32", (elements,), noise(elements, 1))]))
