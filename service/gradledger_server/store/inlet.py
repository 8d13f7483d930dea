"""Large values from the server, received where they are wanted.

A client library receives a value into a buffer of its own, makes `bytes` of it, and leaves it to us to copy
those where they belong. Of a chunk we know how long it is, so we know what comes before and behind it, and
the socket is read straight into its place: replaying a log moves each byte once.
"""

from __future__ import annotations

from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import ResponseError

from gradledger_server.store.connection import Line

_END = b"\r\n"
_LINE_BYTES = 4096  # the longest that the server says instead of a value, and more


class OtherValue(Exception):
    """The server has no such value, or one of another size. What follows on the line is not understood."""


class Inlet:
    """A line on which values have been asked for, in order, and nothing else."""

    def __init__(self, line: Line) -> None:
        self._socket = line._sock
        self._due = b""  # what ends the value before

    def receive(self, place: memoryview) -> None:
        """The next value, of as many bytes as there is place, into it.

        Raises OtherValue, or redis-py's errors: ResponseError if the server refuses, ConnectionError.
        """
        self._expect(self._due + b"$%d\r\n" % len(place))
        self._due = _END
        while place:
            place = place[self._counted(self._socket.recv_into(place)) :]

    def finish(self) -> None:
        """After the last value: the line is free for others."""
        self._expect(self._due)
        self._due = b""

    def _expect(self, expected: bytes) -> None:
        said = b""
        while said != expected:
            said += self._more(len(expected) - len(said))
            if not expected.startswith(said):
                self._refuse(said.removeprefix(self._due))

    def _refuse(self, said: bytes) -> None:
        while _END not in said and len(said) < _LINE_BYTES:
            said += self._more(_LINE_BYTES)
        if said.startswith(b"-"):
            raise ResponseError(said[1:].partition(_END)[0].decode(errors="replace"))
        raise OtherValue

    def _more(self, most: int) -> bytes:
        said: bytes = self._socket.recv(most)
        self._counted(len(said))
        return said

    @staticmethod
    def _counted(received: int) -> int:
        if not received:
            raise LostConnection("the server hung up in the middle of a value")
        return received
