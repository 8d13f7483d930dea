"""The gate on the way out: large answers leave piece by piece, and pulls' rest while a push is at work.

The event loop goes from socket to socket, and whatever works for a push waits until the loop comes round or
lets go of the interpreter. Beside many pulls a push would get one share of so many at every turn. So while a
push is at work the gate is closed to pulls, but for no more than a share of the time: rests are earned while
it is open, and whoever pushes for ever cannot keep it closed. They are short, since a reader lives through
them on what its socket holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from starlette.types import Message, Send

PIECE_BYTES = 1 << 20  # smaller ones cost the loop more turns, larger ones keep it from everybody else
REST_SHARE = 0.05  # of the time, at most
EARNED_S = 0.05  # of rest, at most: a push that comes now and then has the loop to itself
SHORTEST_S = 0.003  # a rest that is worth beginning
_TICK_S = 0.001  # of the timers


class Gate:
    """One for all connections of an event loop."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._pushes = 0  # at work
        self._earned_s, self._counted_at = EARNED_S, 0.0  # the latter on the loop's clock
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def push(self) -> Iterator[None]:
        """A push is at work inside."""
        self._pushes += 1
        self._turn()
        try:
            yield
        finally:
            self._pushes -= 1
            self._turn()

    async def pull(self) -> None:
        """Waits until the next piece of a pull's answer may leave."""
        if not self._open.is_set():
            await self._open.wait()

    def _turn(self) -> None:
        """Opens or closes as it is time to, and sets the timer for the next time."""
        loop = asyncio.get_running_loop()
        now, resting = loop.time(), not self._open.is_set()
        gained_s = (now - self._counted_at) * (REST_SHARE - resting)
        self._earned_s, self._counted_at = min(self._earned_s + gained_s, EARNED_S), now
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pushes:
            self._open.set()
        elif self._earned_s > (0.0 if resting else SHORTEST_S):
            self._open.clear()
            self._timer = loop.call_later(self._earned_s / (1.0 - REST_SHARE) + _TICK_S, self._turn)
        else:
            self._open.set()
            self._timer = loop.call_later((SHORTEST_S - self._earned_s) / REST_SHARE + _TICK_S, self._turn)


def pieces(parts: Sequence[bytes | memoryview]) -> Iterator[memoryview]:
    """The same bytes in views of at most so many."""
    for part in parts:
        for start in range(0, len(part), PIECE_BYTES):
            yield memoryview(part)[start : start + PIECE_BYTES]


def to_puller(send: Send, gate: Gate) -> Send:
    """`send` for a pull: large pieces of a body leave as the gate lets them."""

    async def sent(message: Message) -> None:
        body = message.get("body", b"")
        if len(body) <= PIECE_BYTES:
            await send(message)
            return
        *others, last = pieces([body])
        for piece in others:
            await gate.pull()
            await send({**message, "body": piece, "more_body": True})
            await asyncio.sleep(0)  # `send` itself waits for nothing while the socket takes everything
        await gate.pull()
        await send({**message, "body": last})

    return sent


def to_pusher(send: Send) -> Send:
    """`send` for a push: it is over when its answer has left, not when the last of it is to be sent."""

    async def sent(message: Message) -> None:
        if len(message.get("body", b"")) <= PIECE_BYTES or message.get("more_body", False):
            await send(message)
            return
        await send({**message, "more_body": True})
        await send({**message, "body": b""})  # goes when what was sent before is out

    return sent
