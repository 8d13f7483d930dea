"""Below the app: what is no HTTP gets a problem too, a head has an end, and leaving is announced."""

from __future__ import annotations

import secrets

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gradledger_server.api import problems
from gradledger_server.errors import MalformedRequest

HEAD_BYTES = 64 << 10  # of a request line and its headers, to within what arrives at once

_HEAD = (
    "HTTP/1.1 400 Bad Request\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n"
    "X-Request-ID: {request_id}\r\nConnection: close\r\n\r\n"
)


class Protocol(HttpToolsProtocol):
    """uvicorn's, with our words for what its parser refuses."""

    _head_bytes: int | None = 0  # of the head being read; None while a body is
    _chunked = False  # no route takes a body of unknown length, and its trailers would have no end either

    def data_received(self, data: bytes) -> None:
        """Parses what arrived, unless it belongs to a head that has no end or to a body nobody takes."""
        if self._chunked:
            return
        if self._head_bytes is not None:
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response(f"The request line and headers are longer than {HEAD_BYTES} bytes.")
                return
            self._head_bytes += len(data)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """A head ends here; its body is not counted."""
        self._head_bytes = None
        self._chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        super().on_headers_complete()
        if self._chunked:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The next head begins."""
        self._head_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers and hangs up; if a request before this one is still at work, its own answer is the last."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            return
        request_id = secrets.token_hex(8)
        error = MalformedRequest(msg, hint="Check the request line, the headers and Content-Length.")
        body = problems.render(error, request_id)
        head = _HEAD.format(media_type=problems.MEDIA_TYPE, length=len(body), request_id=request_id)
        self.transport.write(head.encode() + body)
        self.transport.close()

    def shutdown(self) -> None:
        """Tells those who wait for news that there will be none from here."""
        self.app_state["leaving"].set()
        super().shutdown()
