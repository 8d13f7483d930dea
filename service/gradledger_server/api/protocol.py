"""Below the app: what is no HTTP gets a problem too, a head has an end, and leaving is announced.

A client may ask again before it is answered, but what it has sent is not read, and takes no memory, while
other questions of its wait: the socket keeps it. One that offers to go on in another protocol is answered in
this one, as RFC 9110, 7.8 has it.
"""

from __future__ import annotations

import asyncio
import secrets
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gradledger_server.api import problems
from gradledger_server.api.pace import LEAST_BYTES_PER_S
from gradledger_server.api.shortcut import Shortcut
from gradledger_server.errors import MalformedRequest, Refused, RequestTimeout

HEAD_BYTES = 64 << 10  # of a request line and its headers, to within what arrives at once

_HEAD = (
    "HTTP/1.1 {status} {phrase}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n"
    "X-Request-ID: {request_id}\r\nConnection: close\r\n\r\n"
)


class _Flow(FlowControl):
    """uvicorn's, which goes on reading at every occasion, unless it is held back."""

    held = False

    def resume_reading(self) -> None:
        """Reads on, if that is wanted."""
        if not self.held:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """uvicorn's, with our words for what its parser refuses."""

    flow: _Flow
    heard_bytes = 0  # from the client, so far; counted by whoever reads the socket
    _head_bytes: int | None = 0  # of the head being read; None while a body is
    shortcut: Shortcut | None = None
    _rests_since: float | None = None  # on the loop's clock; None while a request is at work
    _chunked = False  # no route takes a body of unknown length, and its trailers would have no end either
    _unparsed = 0  # bytes to come of a body whose head offered another protocol: the parser would stop there

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection begins."""
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self._behind: list[bytes] = []  # what arrived while requests waited for others

    def data_received(self, data: bytes) -> None:
        """Parses what arrived, unless it belongs to a head that has no end or to a body nobody takes."""
        if self._chunked:
            return
        if self.pipeline:
            self._behind.append(data)
            self.flow.held = True
            self.flow.pause_reading()
            return
        if self._unparsed:
            data = self._take(data)
        if data:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self._head_bytes is not None:
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response(f"The request line and headers are longer than {HEAD_BYTES} bytes.")
                return
            self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as offer:
            self._parse_anew()
            self.data_received(data[offer.args[0] :])

    def _take(self, data: bytes) -> bytes:
        """What is left of the data behind a body that the parser does not take."""
        body, data = data[: self._unparsed], data[self._unparsed :]
        self._unparsed -= len(body)
        self.on_body(body)
        if not self._unparsed:
            self.on_message_complete()
        return data

    def restart(self) -> None:
        """A body came without the parser: the next byte begins another head."""
        self._unparsed = 0
        self.on_message_complete()
        self._parse_anew()

    def _parse_anew(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def on_message_begin(self) -> None:
        """A head begins, perhaps behind another request in the same packet."""
        self._head_bytes = self._head_bytes or 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head ends here; its body is not counted."""
        self._head_bytes = None
        self._chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        if self.parser.should_upgrade():
            self._unparsed = sum(int(value) for name, value in self.headers if name == b"content-length")
        super().on_headers_complete()
        if self._chunked:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The next head begins."""
        if self._unparsed:  # the parser's end, not the body's
            return
        self._head_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers and hangs up; if a request before this one is still at work, its own answer is the last."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            return
        hint = "Check the request line, the headers and Content-Length."
        self._refuse(MalformedRequest(msg, hint=hint))

    def _refuse(self, error: Refused) -> None:
        request_id = secrets.token_hex(8)
        body = problems.render(error, request_id)
        head = _HEAD.format(
            status=error.status,
            phrase=HTTPStatus(error.status).phrase,
            media_type=problems.MEDIA_TYPE,
            length=len(body),
            request_id=request_id,
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    @property
    def owes(self) -> bool:
        """Whether the client has begun a request, or never did, and nobody but it is waited for."""
        if self.transport.is_closing() or self.flow.read_paused:
            return False
        if self.shortcut is not None and self.shortcut.landing:
            return True
        if self.pipeline or (self.cycle is not None and self.cycle.waiting_for_100_continue):
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return self._head_bytes is None  # of its body; whatever is begun behind has to wait anyway
        return self._head_bytes != 0 or not self.heard_bytes

    def give_up(self, window_s: float) -> None:
        """Hangs up on a client that is too slow; it is told why, unless it has an answer or asked nothing."""
        answered = self._head_bytes is None and self.cycle.response_started
        if answered or not self.heard_bytes:
            self.transport.close()
            return
        self._refuse(
            RequestTimeout(
                f"the request was not finished, and came with less than {LEAST_BYTES_PER_S} bytes/s for "
                f"{window_s:g} s",
                hint="Send it again; over a slow line send fewer bytes at once, such as int8 gradients.",
            )
        )

    @property
    def idle(self) -> bool:
        """Whether the next byte begins a request, and none is at work."""
        at_rest = self.cycle is None or self.cycle.response_complete
        return self._head_bytes == 0 and not self._chunked and at_rest

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer says."""
        return self.server_state.default_headers

    def begins(self) -> None:
        """Something arrived that is not for the parser."""
        self._rests_since = None

    def ends(self) -> None:
        """A request was answered that the parser did not see."""
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._rests_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_for_more(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Hangs up on whoever has been silent for long; the timer is not set anew for each request."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        since = None if self.flow.write_paused else self._rests_since  # the last answer may be under way
        rested_s = None if since is None else self.loop.time() - since
        if rested_s is None or rested_s < self.timeout_keep_alive:
            self._wait_for_more(self.timeout_keep_alive - (rested_s or 0.0))
        else:
            super().timeout_keep_alive_handler()

    def on_response_complete(self) -> None:
        """An answer ends here."""
        self._rests_since = self.loop.time()
        super().on_response_complete()
        if self._behind and not self.pipeline and not self.transport.is_closing():
            behind, self._behind = b"".join(self._behind), []
            self.flow.held = False
            self.flow.resume_reading()
            self.data_received(behind)

    def _wait_for_more(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def shutdown(self) -> None:
        """Tells those who wait for news that there will be none from here."""
        self.app_state["leaving"].set()
        self._leave()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client says no more, and hears what becomes of a push. Who only looks is taken to be gone."""
        if self.scheme != "http" or not self._pushing:  # TLS has no half of a connection
            return False
        self._leave()
        return True

    @property
    def _pushing(self) -> bool:
        """Whether what is at work changes something, and is here whole."""
        if self.shortcut is not None and self.shortcut.busy:
            return self.shortcut.pushing
        cycle = self.cycle
        at_work = cycle is not None and not cycle.response_complete and not cycle.more_body
        return at_work and not self.pipeline and cycle.scope["method"] != "GET"

    def _leave(self) -> None:
        """The answer to the request at work is the connection's last."""
        if self.shortcut is not None and self.shortcut.busy:
            self.shortcut.leave()
        else:
            super().shutdown()
