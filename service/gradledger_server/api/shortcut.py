"""The shortcut past the parser: small requests that arrive whole are answered as plain bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any
from typing import Protocol as Interface

from starlette.responses import Response
from uvicorn.protocols.http.flow_control import FlowControl

from gradledger_server.api import telemetry
from gradledger_server.api.gate import pieces
from gradledger_server.api.lane import Lane
from gradledger_server.api.responses import Parts
from gradledger_server.api.whole import Head, Whole, head_of

JOINED_BYTES = 64 << 10  # up to here copying a body is cheaper than sending it apart from its head

_CLOSE = (b"connection", b"close")
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Parser(Interface):
    """The connection as the parser keeps it, which takes what is not served here."""

    wire: asyncio.Transport  # as it is, with nothing held back
    loop: asyncio.AbstractEventLoop
    tasks: set[asyncio.Task[None]]

    @property
    def flow(self) -> FlowControl: ...

    @property
    def idle(self) -> bool: ...

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]: ...

    def data_received(self, data: bytes) -> None: ...

    def read_into(self, rest: memoryview, then: Callable[[], None]) -> None: ...

    def begins(self) -> None: ...

    def ends(self) -> None: ...


class Shortcut:
    """One connection's. While a request is served here, what arrives behind it waits."""

    def __init__(self, lane: Lane, parser: Parser) -> None:
        self._lane, self._parser = lane, parser
        self._request: Whole | None = None  # at work
        self.landing = False  # a body
        self._behind: list[bytes] = []
        self._last = False
        self._began = 0.0  # of that request

    @property
    def busy(self) -> bool:
        """Whether a request is being served, or on its way here."""
        return self.landing or self._request is not None

    @property
    def pushing(self) -> bool:
        """Whether that is a push that is here whole."""
        return self._request is not None and self._request.head.method == "POST"

    def takes(self, data: bytes) -> bool:
        """Whether what arrived is dealt with here; if not, it is the parser's."""
        if self._request is not None:
            self._behind.append(data)
            self._parser.flow.pause_reading()
            return True
        if not self._parser.idle or (head := head_of(data)) is None:
            return False
        if len(data) > head.nbytes:  # another request follows at once
            self._parser.data_received(data)
            return True
        self._parser.begins()
        body, there = self._lane.place(head.nbytes - head.start), len(data) - head.start
        body[:there] = memoryview(data)[head.start :]
        if there == len(body):
            self._begin(head, body)
        else:
            self.landing = True
            self._parser.read_into(body[there:], partial(self._begin, head, body))
        return True

    def leave(self) -> None:
        """The request being served is the connection's last."""
        self._last = True

    def lost(self) -> None:
        """The client hung up."""
        if self._request is not None:
            self._request.hung_up = True
        self._behind.clear()
        self.landing, self._last = False, True

    def _begin(self, head: Head, body: memoryview) -> None:
        request = Whole(head, body, telemetry.request_id(head.headers))
        self.landing = False
        self._request, self._began = request, time.perf_counter()
        self._lane.at_once(request, partial(self._told, request))

    def _told(self, request: Whole, response: Response | None) -> None:
        """The answer to what was served at once leaves at once if it is small, else as `_finish` sends it."""
        if response is None:
            self._start(self._serve(request))
            return
        try:
            if not request.hung_up:
                laid_out = self._laid_out(response, request.request_id)
                pulled = request.head.method == "GET" and len(laid_out) > 1
                if pulled or self._parser.flow.write_paused:
                    self._start(self._finish(request, response))
                    return
                self._parser.wire.writelines(laid_out)
        except BaseException:  # half an answer may be out
            self._give_up()
            raise
        self._served(request, response)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._parser.loop.create_task(work)
        self._parser.tasks.add(task)
        task.add_done_callback(self._parser.tasks.discard)

    async def _serve(self, request: Whole) -> None:
        try:
            response = await self._lane.serve(request)
        except BaseException:
            self._give_up()
            raise
        await self._finish(request, response)

    async def _finish(self, request: Whole, response: Response) -> None:
        try:
            if not request.hung_up:
                await self._send(response, request.request_id)
        except BaseException:  # half an answer may be out
            self._give_up()
            raise
        self._served(request, response)

    async def _send(self, response: Response, request_id: str) -> None:
        parser = self._parser
        head, *parts = self._laid_out(response, request_id)
        if parser.flow.write_paused:
            await parser.flow.drain()
        parser.wire.write(head)
        for piece in pieces(parts):
            await self._lane.gate.pull()
            if parser.wire.is_closing():
                return
            parser.wire.write(piece)
            await (parser.flow.drain() if parser.flow.write_paused else asyncio.sleep(0))

    def _laid_out(self, response: Response, request_id: str) -> list[bytes | memoryview]:
        """The answer as it goes over the wire: its head, together with the body if that is small."""
        parts: Sequence[bytes | memoryview] = (
            response.parts if isinstance(response, Parts) else (bytes(response.body),)
        )
        headers = [*self._parser.default_headers, *response.raw_headers]
        self._last = self._last or _CLOSE in headers
        lines = [_STATUS_LINES[response.status_code]]
        lines += [b"%b: %b\r\n" % header for header in headers]
        lines.append(b"x-request-id: %b\r\n\r\n" % request_id.encode())
        if len(parts) == 1 and len(parts[0]) <= JOINED_BYTES:
            lines.append(parts[0])  # type: ignore[arg-type]  # bytes join views as well
            return [b"".join(lines)]
        return [b"".join(lines), *parts]

    def _served(self, request: Whole, response: Response) -> None:
        self._lane.note(request, response.status_code, time.perf_counter() - self._began)
        self._request = None
        self._end()

    def _give_up(self) -> None:
        self._last, self._request = True, None
        self._end()

    def _end(self) -> None:
        if self._last:
            self._parser.wire.close()
            return
        self._parser.ends()
        if self._behind:
            data, self._behind = b"".join(self._behind), []
            if not self.takes(data):
                self._parser.data_received(data)
