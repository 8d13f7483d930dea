"""Hundreds of pushes wait for one round, each on a connection of its own, and cost nobody else anything."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from typing import Any

from tests.api.talk import Model, head

WORKERS = 250
PATIENCE_S = 30


def request(model: Model, number: int) -> bytes:
    """A push of 1.0 by one of the workers, that wants to wait."""
    body = json.dumps({"gradients": {"w": [1.0]}, "worker": f"w{number}", "sequence": 1}).encode()
    named: dict[str, str | int] = {
        "Content_Type": "application/json",
        "Content_Length": len(body),
        "Prefer": f"wait={PATIENCE_S}",
        "Connection": "close",
    }
    return head("POST", f"{model.path}/gradients", **named) + body


def heard(line: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of the answer, read until the service hangs up."""
    answer = b"".join(iter(lambda: line.recv(65536), b""))
    first, _, body = answer.partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(body)


def alive_s(model: Model) -> float:
    """How long the service takes to say that it lives."""
    began = time.monotonic()
    assert model.service.request("GET", "/livez").status == 200
    return time.monotonic() - began


def test_a_full_round_is_answered_to_hundreds_that_wait(new: Model) -> None:
    new.create({"w": [8.0]}, sync={"mode": "bsp", "workers": WORKERS, "lease_s": 60})
    with ExitStack() as opened:
        lines = []
        for number in range(WORKERS - 1):
            address = ("127.0.0.1", new.service.port)
            line = opened.enter_context(socket.create_connection(address, timeout=2 * PATIENCE_S))
            line.sendall(request(new, number))
            lines.append(line)
        slowest_s = alive_s(new)
        deadline = time.monotonic() + PATIENCE_S
        while len(new.send("GET", "/workers").json["round"]["waiting"]) < WORKERS - 1:
            assert time.monotonic() < deadline
            slowest_s = max(slowest_s, alive_s(new))
        last = new.push({"w": [1.0]}, worker="last", sequence=1)
        slowest_s = max(slowest_s, alive_s(new))
        assert last.json["receipt"]["fate"] == "merged"
        began = time.monotonic()
        answers = [heard(line) for line in lines]
        answered_s = time.monotonic() - began
    receipts = [told["receipt"] for status, told in answers if status == 200]
    assert len(receipts) == WORKERS - 1
    assert {(r["fate"], r["step"], r["round"], r["replayed"]) for r in receipts} == {("merged", 1, 0, False)}
    assert all(told["parameters"] == {"w": [7.0]} for _, told in answers)
    assert slowest_s < 1.0, "who waits costs a connection, and no more"
    assert answered_s < 5.0
