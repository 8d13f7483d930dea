"""What comes back of a request, and how it is read: straight into its place."""

from __future__ import annotations

import json
import re
import weakref
from dataclasses import dataclass
from email.message import Message
from functools import partial
from http.client import HTTPResponse, IncompleteRead
from io import BufferedIOBase, BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger.connection import Connection
from gradledger.errors import MalformedAnswer
from gradledger.landing import Landing
from gradledger.memory import Memory

PIECE_BYTES = 256 << 10  # read at a time of what does not say how long it is
STOP = re.compile(r"(?:^|,)\s*([\w-]+);dur=([0-9]+(?:\.[0-9]+)?)(?=,|$)")  # of Server-Timing, in ms
UNDECLARED_BYTES = 1 << 30  # no more is read of an answer that does not declare its length


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: 2xx or 304. `tries` > 1 says that an earlier try may have been carried out as well."""

    status: int
    headers: Message
    body: NDArray[np.uint8]  # empty if it landed elsewhere
    tries: int
    asked_ms: float  # from the try's beginning to the answer's head
    read_ms: float  # how long the body took to arrive after that

    def json(self) -> Any:
        try:
            return json.loads(self.body.tobytes())
        except ValueError as error:
            raise MalformedAnswer(f"expected JSON, got {self.body[:80].tobytes()!r}") from error

    @property
    def timing_ms(self) -> dict[str, float]:
        """The last try's time: what the service tells of it, `network` between it and us, and `read`."""
        stops = {
            name: float(ms) for name, ms in STOP.findall(", ".join(self.headers.get_all("Server-Timing", ())))
        }
        return stops | {"network": max(0.0, self.asked_ms - sum(stops.values())), "read": self.read_ms}


class Stream:
    """An answer that goes on, and the connection that is its own."""

    def __init__(self, connection: Connection, response: HTTPResponse) -> None:
        self._connection, self._response = connection, response
        weakref.finalize(self, connection.close).atexit = False

    def read(self, nbytes: int) -> bytes:
        """What has come, up to so many bytes; waits for some. None come after the end."""
        return self._response.read1(nbytes)

    def close(self) -> None:
        """Hangs up."""
        self._response.close()
        self._connection.close()


def receive(response: HTTPResponse, landing: Landing | None, memory: Memory) -> NDArray[np.uint8]:
    """The answer's body; an empty array if it has landed."""
    with response:  # closed, it leaves the connection to the next request
        source, length = _declared(response)
        if landing is not None:
            landing.fill(partial(_fill, source), length)
            return np.empty(0, np.uint8)
        received = memory.take(length)
        _fill(source, received.data)
        return received


def _declared(response: HTTPResponse) -> tuple[BufferedIOBase, int]:
    """What to read the body from, and its length."""
    said = set(response.headers.get_all("Content-Length", ()))
    if len(said) > 1 or not all(length.strip().isdecimal() for length in said):
        raise MalformedAnswer(f"expected one Content-Length, got {sorted(said)}")
    if response.length is not None:
        return response, response.length
    received = bytearray()
    while piece := response.read(PIECE_BYTES):
        received += piece
        if len(received) > UNDECLARED_BYTES:
            raise MalformedAnswer(
                f"an answer without a declared length went on past {UNDECLARED_BYTES} bytes"
            )
    return BytesIO(received), len(received)


def _fill(source: BufferedIOBase, room: memoryview) -> None:
    while room:
        if not (count := source.readinto(room)):
            raise IncompleteRead(b"", len(room))
        room = room[count:]
