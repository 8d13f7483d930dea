"""Pulls rest while a push is at work, for a share of the time at most; then nobody starves."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from gradledger_server.api.gate import EARNED_S, PIECE_BYTES, REST_SHARE, SHORTEST_S, Gate, pieces, to_puller
from tests.api.clock import timed

Message = dict[str, Any]

LARGE = 3 * PIECE_BYTES + 5
SOON_S = 0.005


async def passed(gate: Gate) -> float:
    """The seconds a piece has to wait."""
    clock = asyncio.get_running_loop().time
    began = clock()
    await gate.pull()
    return clock() - began


def test_without_a_push_the_gate_is_open() -> None:
    async def work(gate: Gate) -> None:
        assert await passed(gate) == 0.0
        with gate.push():
            pass
        assert await passed(gate) == 0.0

    timed(work)


def test_a_push_that_comes_now_and_then_has_the_loop_to_itself() -> None:
    async def push(gate: Gate, seconds: float) -> None:
        with gate.push():
            await asyncio.sleep(seconds)

    async def work(gate: Gate) -> None:
        for _ in range(3):
            pushing = asyncio.create_task(push(gate, 0.9 * EARNED_S))
            await asyncio.sleep(0)
            assert await passed(gate) == pytest.approx(0.9 * EARNED_S)
            await pushing
            await asyncio.sleep(EARNED_S / REST_SHARE)

    timed(work)


@pytest.mark.parametrize("several", [1, 8])
def test_whoever_pushes_for_ever_keeps_pulls_waiting_for_a_share_of_the_time(several: int) -> None:
    async def push_for_ever(gate: Gate, each_s: float) -> None:
        while True:
            with gate.push():
                await asyncio.sleep(each_s)

    async def work(gate: Gate) -> None:
        clock = asyncio.get_running_loop().time
        pushing = [asyncio.create_task(push_for_ever(gate, 0.03 + i / 1000)) for i in range(several)]
        began, waited_s, longest_s = clock(), 0.0, 0.0
        while clock() < began + 20.0:
            waited_s += (now := await passed(gate))
            longest_s = max(longest_s, now)
            await asyncio.sleep(0.0005)
        for task in pushing:
            task.cancel()
        assert waited_s / 20.0 == pytest.approx(REST_SHARE, rel=0.25)
        assert longest_s < 2 * EARNED_S

    timed(work)


def test_rests_are_short_once_none_are_left_of_before() -> None:
    async def work(gate: Gate) -> None:
        with gate.push():
            await asyncio.sleep(1.0)
            waits = []
            for _ in range(2000):
                waits.append(await passed(gate))
                await asyncio.sleep(0.0005)
        rests = [wait for wait in waits if wait]
        assert SHORTEST_S / 2 < min(rests[1:]) < max(rests) < 3 * SHORTEST_S

    timed(work)


def test_the_gate_stays_closed_until_the_last_of_several_pushes_is_answered() -> None:
    async def work(gate: Gate) -> None:
        with gate.push():
            with gate.push():
                await asyncio.sleep(SOON_S)
            waiting = asyncio.create_task(passed(gate))
            await asyncio.sleep(SOON_S)
            assert not waiting.done()
        assert await waiting == pytest.approx(SOON_S)

    timed(work)


def test_pieces_are_views_of_the_same_bytes() -> None:
    block = np.arange(LARGE, dtype=np.uint8)
    found = list(pieces([b"head", block.data]))
    assert b"".join(found) == b"head" + block.tobytes()
    assert [len(piece) for piece in found] == [4, PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 5]
    assert all(np.shares_memory(piece, block) for piece in found[1:])


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("nbytes", [0, 5, PIECE_BYTES, PIECE_BYTES + 1, LARGE])
def test_a_body_sent_to_a_puller_is_the_same_body(nbytes: int, more: bool) -> None:
    body, sent = bytes(np.arange(nbytes, dtype=np.uint8)), list[Message]()

    async def keep(message: Any) -> None:
        sent.append(message)

    async def work(gate: Gate) -> None:
        await to_puller(keep, gate)({"type": "http.response.body", "body": body, "more_body": more})

    timed(work)
    assert b"".join(message["body"] for message in sent) == body
    assert [message["more_body"] for message in sent] == [True] * (len(sent) - 1) + [more]
    assert max(len(message["body"]) for message in sent) <= PIECE_BYTES


def test_a_piece_to_a_puller_waits_while_pulls_rest() -> None:
    sent: list[int] = []

    async def keep(message: Any) -> None:
        sent.append(len(message["body"]))

    async def work(gate: Gate) -> None:
        message = {"type": "http.response.body", "body": bytes(LARGE), "more_body": False}
        with gate.push():
            sending = asyncio.ensure_future(to_puller(keep, gate)(message))
            await asyncio.sleep(SOON_S)
            assert sent == []
        await sending
        assert sum(sent) == LARGE

    timed(work)
