"""Below the app: what is no HTTP at all is answered with a problem too."""

from __future__ import annotations

import secrets

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gradledger_server.api import problems
from gradledger_server.errors import MalformedRequest

_HEAD = (
    "HTTP/1.1 400 Bad Request\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n"
    "X-Request-ID: {request_id}\r\nConnection: close\r\n\r\n"
)


class Protocol(HttpToolsProtocol):
    """uvicorn's, with our words for what its parser refuses."""

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
