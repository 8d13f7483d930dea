"""Large bodies land where they are used: the socket is read straight into the request's own block.

uvicorn's protocol hands a body over in pieces that have been copied five times by then, which at 64 MiB takes
longer than the bytes need on the wire. Here it still parses the head and everything small; once the app knows
where a body belongs it says so, and the event loop reads what is left of it right there:

    await scope["extensions"][LANDING](block)      block: exactly Content-Length bytes

An app that does not ask gets its body by `receive`, as under any other server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.requests import ClientDisconnect
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from gradledger_server.api.lane import Lane
from gradledger_server.api.protocol import Protocol
from gradledger_server.api.shortcut import Shortcut
from gradledger_server.api.whole import LANDING

Landing = Callable[[memoryview], Awaitable[None]]

JOINED_BYTES = 64 << 10
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ROOM = memoryview(bytearray(72 << 10))  # for a head and a small body; read and parsed before any other read


class LandingProtocol(asyncio.BufferedProtocol):
    """uvicorn's `http` protocol. The loop reads into what `get_buffer` answers and tells `buffer_updated`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._http = _Parsed(self, config, server_state, app_state, _loop)
        lane: Lane | None = getattr(config.loaded_app, "lane", None)
        self._shortcut = None if lane is None else Shortcut(lane, self._http)
        self._http.shortcut = self._shortcut
        self._pace = None if lane is None else lane.pace
        self._rest: memoryview | None = None  # of the block, while a body is landing
        self._then: Callable[[], None] | None = None  # once it is full; it holds the block
        self._landed: asyncio.Future[None] | None = None

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return ROOM if self._rest is None else self._rest

    def buffer_updated(self, nbytes: int) -> None:
        self._http.heard_bytes += nbytes
        if self._rest is None:
            data = bytes(ROOM[:nbytes])
            if self._shortcut is None or not self._shortcut.takes(data):
                self._http.data_received(data)
            return
        self._rest = self._rest[nbytes:]
        if not self._rest and (then := self._then) is not None:
            self._rest = self._then = None
            then()

    def read_into(self, rest: memoryview, then: Callable[[], None]) -> None:
        """What arrives next is the rest of a body; `then` is called once it is full."""
        self._rest, self._then = rest, then

    async def land(self, cycle: RequestResponseCycle, block: memoryview) -> None:
        """Fills `block` with the body of `cycle`. Raises ClientDisconnect."""
        if cycle.disconnected:
            raise ClientDisconnect
        if cycle.waiting_for_100_continue:
            cycle.transport.write(CONTINUE)
            cycle.waiting_for_100_continue = False
        early = len(cycle.body)  # what came along with the head
        block[:early] = cycle.body
        cycle.body = bytearray()
        if cycle.more_body:
            self._landed = asyncio.get_running_loop().create_future()
            self.read_into(block[early:], self._has_landed)
            cycle.flow.resume_reading()
            await self._until_landed(cycle)
        cycle.message_event.clear()

    def _has_landed(self) -> None:
        self._http.restart()
        if self._landed is not None and not self._landed.done():
            self._landed.set_result(None)

    async def _until_landed(self, cycle: RequestResponseCycle) -> None:
        assert self._landed is not None
        try:
            await self._landed
        finally:
            if self._rest is not None:  # given up in the middle: the next byte would be taken for a head
                self._rest = self._then = None
                cycle.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._http.connection_made(cast("asyncio.Transport", transport))
        if self._pace is not None:
            self._pace.watch(self._http)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pace is not None:
            self._pace.forget(self._http)
        self._rest = self._then = None
        if self._landed is not None and not self._landed.done():
            self._landed.set_exception(ClientDisconnect())
        if self._shortcut is not None:
            self._shortcut.lost()
        self._http.connection_lost(exc)

    def eof_received(self) -> bool:
        return self._http.eof_received()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()


class _Joined:
    """A transport that sends an answer's head together with what comes next: one system call, and one
    waking of the client, instead of two."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes | memoryview) -> None:
        """Sends, unless it is the first half of a pair."""
        if not self._head and data != CONTINUE and bytes(data[:9]) == b"HTTP/1.1 ":
            self._head = bytes(data)
            return
        head, self._head = self._head, b""
        if len(data) <= JOINED_BYTES:
            self._transport.write(head + data)
        else:
            self._transport.write(head)
            self._transport.write(data)

    def flush(self) -> None:
        """Sends what is held back: an answer may have no second half."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Sends what is left and hangs up."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Parsed(Protocol):
    """The protocol below, which offers each request its landing."""

    def __init__(self, owner: LandingProtocol, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._owner = owner

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection begins, and its heads wait for their bodies."""
        self.wire, self._joined = transport, _Joined(transport)
        super().connection_made(cast("asyncio.Transport", self._joined))

    def on_response_complete(self) -> None:
        """An answer ends here."""
        self._joined.flush()
        super().on_response_complete()

    def on_headers_complete(self) -> None:
        """A request begins, with one thing more in its scope."""

        async def landing(block: memoryview) -> None:
            await self._owner.land(cycle, block)

        self.scope["extensions"] = {LANDING: landing}  # type: ignore[dict-item]
        super().on_headers_complete()
        cycle = self.cycle

    def read_into(self, rest: memoryview, then: Callable[[], None]) -> None:
        """See the owner's."""
        self._owner.read_into(rest, then)
