"""The event loop's own line to the server: small commands of all models, pipelined, and no thread in between.

A thread's turn costs a small push more than its whole update. What waits in one turn of the loop leaves in
one packet, and the replies come back in the order of the commands.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import TimeoutError as TookTooLong

from gradledger_server.store import scripts
from gradledger_server.store.connection import Connection, in_our_words
from gradledger_server.store.packing import Command, pack

_KINDS = {"NOSCRIPT": NoScriptError, "OOM": OutOfMemoryError}

Replies = list[Any]
Told = Callable[[Replies | RedisError], None]


class LoopLine:
    """One connection, made by `connection` at the first command and after each loss. One event loop's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pipe: _Pipe | None = None
        self._opening: asyncio.Task[_Pipe | None] | None = None
        self._lives = 0
        self._by_threads = False  # with TLS, of which asyncio would want to do the greeting again

    @property
    def life(self) -> int | None:
        """Another number after each loss; None while there is no connection."""
        return None if self._pipe is None or self._pipe.lost else self._lives

    async def ask(self, commands: Sequence[Command], *, again: bool = False) -> Replies:
        """The replies in order, error replies in their places; `again`: they only read, and may be repeated.

        Raises StoreUnavailable: what became of the commands nobody knows.
        """
        with in_our_words():
            try:
                return await self._exchange(commands)
            except (LostConnection, OSError):
                if not again:
                    raise
            return await self._exchange(commands)

    def post(self, commands: Sequence[Command], told: Told) -> bool:
        """Sends the commands and does not wait: `told` gets the replies, or the error that came instead.

        False, and nothing sent, unless the line is open.
        """
        pipe = self._pipe
        if pipe is None or pipe.lost:
            return False
        pipe.post(commands, told)
        return True

    def close(self) -> None:
        """Hangs up. What waits for a reply is told that the line was lost."""
        if self._pipe is not None:
            self._pipe.abort(LostConnection("the line was closed"))

    async def _exchange(self, commands: Sequence[Command]) -> Replies:
        pipe = self._pipe
        if not self._by_threads and (pipe is None or pipe.lost):
            pipe = await self._open()
        if pipe is None:
            return await asyncio.to_thread(self._connection.replies, commands)
        replies = await pipe.send(commands)
        forgotten = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if forgotten:  # they certainly did not run
            rerun = await pipe.send([*scripts.LOAD, *(commands[i] for i in forgotten)])
            for i, reply in zip(forgotten, rerun[len(scripts.LOAD) :], strict=True):
                replies[i] = reply
        return replies

    async def _open(self) -> _Pipe | None:
        """A new connection, one for all who wait for it; None if it has to be left to threads."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    async def _connect(self) -> _Pipe | None:
        line = await asyncio.to_thread(self._connection.take)
        if isinstance(line._sock, ssl.SSLSocket):
            self._connection.give(line)
            self._by_threads = True
            return None
        line._sock.settimeout(0)
        loop, timeout_s = asyncio.get_running_loop(), self._connection.socket_timeout_s
        _, self._pipe = await loop.create_connection(lambda: _Pipe(line, timeout_s), sock=line._sock)
        self._lives += 1
        return self._pipe

    def _opened(self, task: asyncio.Task[_Pipe | None]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # whoever waited has it


class _Pipe(asyncio.Protocol):
    """Commands out, replies in, first come first served."""

    def __init__(self, line: Any, timeout_s: float) -> None:
        self._line = line  # owns the socket
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(replyError=_reply_error)
        self._asked: deque[tuple[Told, int]] = deque()
        self._replies: Replies = []  # to the first of them, as far as they are here
        self._answered = 0  # questions
        self._watch: asyncio.TimerHandle | None = None
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()
        self._leaving: list[bytearray | memoryview] = []
        self.lost = False

    def send(self, commands: Sequence[Command]) -> asyncio.Future[Replies]:
        """The replies to come."""
        future: asyncio.Future[Replies] = self._loop.create_future()
        self.post(commands, partial(_settle, future))
        return future

    def post(self, commands: Sequence[Command], told: Told) -> None:
        """Sends the commands; `told` gets their replies, or why there are none."""
        self._asked.append((told, len(commands)))
        if not self._leaving:
            self._loop.call_soon(self._leave)
        self._leaving += pack(commands)
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_s, self._look, self._answered)

    def _leave(self) -> None:
        """What was asked in one turn of the loop leaves in one packet."""
        leaving, self._leaving = self._leaving, []
        if not self.lost:
            self._transport.writelines(leaving)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            replies = self._replies
            replies.append(reply)
            if len(replies) == self._asked[0][1]:
                told, _ = self._asked.popleft()
                self._answered += 1
                self._replies = []
                told(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(LostConnection(f"the server hung up: {exc or 'without a word'}"))

    def abort(self, why: RedisError) -> None:
        """Hangs up; whoever waits for a reply is told why."""
        self._transport.abort()
        self._end(why)

    def _end(self, why: RedisError) -> None:
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
        while self._asked:
            told, _ = self._asked.popleft()
            told(why)

    def _look(self, answered: int) -> None:
        """Hangs up if nothing was answered in all the time since the last look; one timer for everybody."""
        self._watch = None
        if not self._asked:
            return
        if answered == self._answered:
            self.abort(TookTooLong(f"no reply in {self._timeout_s:g} s"))
            return
        self._watch = self._loop.call_later(self._timeout_s, self._look, self._answered)


def _settle(future: asyncio.Future[Replies], replies: Replies | RedisError) -> None:
    if future.done():
        return
    if isinstance(replies, RedisError):
        future.set_exception(replies)
    else:
        future.set_result(replies)


def _reply_error(text: str) -> ResponseError:
    return _KINDS.get(text.partition(" ")[0], ResponseError)(text)
