"""Large answers leave through the gate, whichever way a request came, and come out as they went in."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from safetensors.numpy import load, save
from starlette.responses import Response

from gradledger_server.api.gate import EARNED_S, PIECE_BYTES, Gate
from gradledger_server.api.haste import Told
from gradledger_server.api.lane import Lane
from gradledger_server.api.pace import Pace
from gradledger_server.api.responses import Parts
from gradledger_server.api.shortcut import Shortcut
from gradledger_server.api.telemetry import Metrics
from tests.api.clock import timed
from tests.api.talk import Model, head
from tests.service import SAFETENSORS

LARGE = 3 * PIECE_BYTES + 5
SOON_S = 0.005


class Line:
    """All around a shortcut: its parser, its transport, and a lane that answers `LARGE` bytes."""

    def __init__(self, gate: Gate) -> None:
        self.gate, self.wire, self.flow = gate, self, self
        self.loop, self.tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        self.written = self.writes = 0
        self.idle, self.write_paused, self.closing = True, False, False
        self.default_headers: list[tuple[bytes, bytes]] = []
        self.begins = self.ends = self.note = lambda *_: None
        self.hasty = False  # then answers are there at once
        self.shortcut = Shortcut(self, self)  # type: ignore[arg-type]

    def place(self, nbytes: int) -> memoryview:
        return memoryview(bytearray(nbytes))

    def at_once(self, _: object, told: Told) -> None:
        told(self.answer if self.hasty else None)

    async def serve(self, _: object) -> Response:
        return self.answer

    @property
    def answer(self) -> Response:
        return Parts([b"header", bytes(LARGE)], SAFETENSORS)

    def write(self, data: bytes) -> None:
        assert len(data) <= PIECE_BYTES
        self.written, self.writes = self.written + len(data), self.writes + 1

    def is_closing(self) -> bool:
        return self.closing

    def pull(self) -> None:
        assert self.shortcut.takes(head("GET", "/v1/models/m/parameters", Accept=SAFETENSORS))


@pytest.mark.parametrize("hasty", [False, True])
def test_a_large_answer_of_the_shortcut_rests_while_a_push_is_at_work(*, hasty: bool) -> None:
    async def work(gate: Gate) -> None:
        line = Line(gate)
        line.hasty = hasty
        with gate.push():
            line.pull()
            await asyncio.sleep(SOON_S)
            assert line.writes == 1, "only the head is out"
        await asyncio.gather(*line.tasks)
        assert line.written > LARGE

    timed(work)


def test_it_gets_on_while_somebody_pushes_for_ever() -> None:
    async def work(gate: Gate) -> None:
        with gate.push():
            line = Line(gate)
            line.pull()
            async with asyncio.timeout(2 * EARNED_S):
                await asyncio.gather(*line.tasks)
            assert line.written > LARGE

    timed(work)


def test_nothing_is_written_to_whoever_hung_up_while_waiting() -> None:
    async def work(gate: Gate) -> None:
        line = Line(gate)
        with gate.push():
            line.pull()
            await asyncio.sleep(SOON_S)
            line.closing = True
            line.shortcut.lost()
        line.close = lambda: None  # type: ignore[attr-defined]
        await asyncio.gather(*line.tasks)
        assert line.writes == 1

    timed(work)


def a_lane(gate: Gate, pushed: asyncio.Event) -> Lane:
    """A lane whose pushes and pulls answer `LARGE` bytes, a push once it is told to."""

    async def push(*_: object) -> Response:
        await pushed.wait()
        return Parts([bytes(LARGE)], SAFETENSORS)

    async def pull(*_: object) -> Response:
        return Parts([bytes(LARGE)], SAFETENSORS)

    lane = Lane(FastAPI(), Metrics(), Pace(0))
    lane.gate, lane.app.state.context = gate, None
    for place, work in ((("POST", "gradients"), push), (("GET", "parameters"), pull)):
        lane._routes[place] = SimpleNamespace(endpoint=work)  # type: ignore[assignment]
    return lane


def test_a_push_is_at_work_from_its_head_until_its_answer_has_left() -> None:
    async def work(gate: Gate) -> None:
        pushed, left = asyncio.Event(), asyncio.Event()
        lane, answers = a_lane(gate, pushed), {"POST": 0, "GET": 0}

        async def ask(method: str, noun: str) -> None:
            async def send(message: Any) -> None:
                if answers["POST"] and not left.is_set() and method == "POST":
                    await left.wait()  # as uvicorn does: what was sent before is on its way
                answers[method] += len(message.get("body", b""))

            scope = {"type": "http", "method": method, "path": f"/v1/models/m/{noun}", "headers": []}
            await lane(scope, None, send)  # type: ignore[arg-type]

        asking = [
            asyncio.create_task(ask("POST", "gradients")),
            asyncio.create_task(ask("GET", "parameters")),
        ]
        await asyncio.sleep(SOON_S)
        assert answers == {"POST": 0, "GET": 0}
        pushed.set()
        await asyncio.sleep(SOON_S)
        assert answers == {"POST": LARGE, "GET": 0}, "the push's answer goes first, and in full"
        left.set()
        await asyncio.gather(*asking)
        assert answers == {"POST": LARGE, "GET": LARGE}

    timed(work)


@pytest.mark.parametrize("unusual", [{}, {"TE": "trailers"}], ids=["shortcut", "parser"])
def test_whole_steps_are_pulled_while_somebody_pushes_without_a_pause(
    new: Model, unusual: dict[str, str]
) -> None:
    elements = LARGE // 4
    model, ones = new.create({"w": {"shape": [elements]}}), {"w": np.ones(elements, np.float32)}
    zeros = save({"w": np.zeros(elements, np.float32)})
    assert model.send("PUT", "/parameters", zeros, Content_Type=SAFETENSORS).status == 200
    over, fates = threading.Event(), list[int]()

    def push() -> None:
        while not over.is_set():
            facts = {"worker": "w", "sequence": len(fates) + 1}
            fates.append(model.service.push(model.name, ones, **facts).status)

    pushing = threading.Thread(target=push)
    pushing.start()
    try:
        answers = [model.send("GET", "/parameters", Accept=SAFETENSORS, **unusual) for _ in range(20)]
    finally:
        over.set()
        pushing.join()
    assert set(fates) == {200}
    for answer in answers:
        step = int(answer.headers["etag"].strip('"').split(".")[1])
        assert (load(answer.data)["w"] == -step).all()
