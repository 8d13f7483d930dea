"""A connection to the service: it carries a request and its answer, and then the next.

It is the standard library's with three things more. A small body leaves in one packet with its head: one
system call and one waking of the service instead of two. The service's word is heard even where it does not
want to hear the rest of ours. And a time-out bounds silence, not how long a large body may be on its way.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any

JOINED_BYTES = 64 << 10  # up to here one packet more costs more than one copy


class Connection(HTTPConnection):
    """To http://…"""

    _holds = False
    _head = b""

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        parts: Sequence[bytes | memoryview],
        timeout_s: float,
    ) -> HTTPResponse:
        """The answer to a request whose body is the parts; what it brings must be read before the next one.

        `timeout_s` bounds the silence before it and within it.
        """
        if self.sock is None:
            self.connect()
        self.sock.settimeout(timeout_s)
        given = {name.lower() for name in headers}
        self.putrequest(
            method, target, skip_host="host" in given, skip_accept_encoding="accept-encoding" in given
        )
        for name, value in headers.items():
            self.putheader(name, value)
        self._holds = True
        self.endheaders()
        self._holds = False
        # Who refuses a body before its end may hang up while it is being sent: the reason can still be read.
        with suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            for packet in _packets((self._head, *parts)):
                self.put(packet)
        response = self.getresponse()
        if response.status < HTTPStatus.OK:  # the answer proper is still to come, and would be another's
            raise HTTPException(f"an interim answer of status {response.status}")
        return response

    def send(self, data: Any) -> None:
        """Sends the data, unless it is a head."""
        if self._holds:
            self._head = data
        else:
            super().send(data)

    def put(self, packet: bytes | memoryview) -> None:
        """Sends it all. The time-out is for each piece that the network takes, not for the whole."""
        rest = memoryview(packet)
        while rest:
            rest = rest[self.sock.send(rest) :]


class SecureConnection(Connection, HTTPSConnection):
    """To https://…"""


def _packets(parts: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Small parts that follow one another together, large ones as they are."""
    waiting: list[bytes | memoryview] = []
    room = JOINED_BYTES
    for part in parts:
        if len(part) > room and waiting:
            yield b"".join(waiting)
            waiting, room = [], JOINED_BYTES
        if len(part) > room:
            yield part
        else:
            waiting.append(part)
            room -= len(part)
    if waiting:
        yield b"".join(waiting)
