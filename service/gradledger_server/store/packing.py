"""Commands become bytes for the wire, and large values become chunks, without copying either.

redis-py joins what it sends, which costs more than the sending itself; here large values stay the views
they are: the socket reads straight from the request's own memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gradledger_server.store.keys import CHUNK_BYTES

Pieces = tuple[memoryview, ...]  # one value, in several places of memory
Argument = str | int | bytes | memoryview | Pieces
Command = Sequence[Argument]  # or bytes that are Ready


class Packed(bytes):
    """The first words of a command, in the server's protocol already; so many that are always the same."""

    words: int

    @classmethod
    def of(cls, *arguments: Argument) -> Packed:
        """To be a command's first argument."""
        buffers: list[bytearray | memoryview] = [bytearray()]
        _add(buffers, arguments)
        packed = cls(b"".join(buffers))
        packed.words = len(arguments)
        return packed


class Ready(bytes):
    """A whole command in the server's protocol already."""


_COPIED_BYTES = 16 << 10  # smaller values are copied into their command: a system call costs more


def as_bytes(view: memoryview) -> memoryview:
    """The view as plain bytes, whatever its shape and format."""
    if view.nbytes == 0:
        return memoryview(b"")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def cut(parts: Iterable[memoryview], size: int = CHUNK_BYTES) -> Iterator[Pieces]:
    """The bytes of all parts as chunks of exactly `size`, the last one shorter; views, nothing copied."""
    pieces: list[memoryview] = []
    room = size
    for part in map(as_bytes, parts):
        start = 0
        while start < len(part):
            piece = part[start : start + room]
            pieces.append(piece)
            start += len(piece)
            room -= len(piece)
            if room == 0:
                yield tuple(pieces)
                pieces, room = [], size
    if pieces:
        yield tuple(pieces)


def pack(commands: Iterable[Command]) -> list[bytearray | memoryview]:
    """The commands in the server's protocol, as buffers to be sent one after the other."""
    packed: list[bytearray | memoryview] = [bytearray()]
    for command in commands:
        if isinstance(command, Ready):
            packed[-1] += command  # type: ignore[operator]  # the last is small
            continue
        first = command[0]
        begun = first.words - 1 if isinstance(first, Packed) else 0
        packed[-1] += b"*%d\r\n" % (begun + len(command))  # type: ignore[operator]  # the last is small
        _add(packed, command)
    return packed


def _add(packed: list[bytearray | memoryview], arguments: Sequence[Argument]) -> None:
    """The arguments behind what is packed, the last of which is a bytearray and stays one."""
    small = packed[-1]
    assert isinstance(small, bytearray)
    for argument in arguments:
        if isinstance(argument, Packed):
            small += argument
            continue
        if isinstance(argument, str | int | bytes):
            text = argument if isinstance(argument, bytes) else str(argument).encode()
            small += b"$%d\r\n%b\r\n" % (len(text), text)
            continue
        pieces = argument if isinstance(argument, tuple) else (as_bytes(argument),)
        small += b"$%d\r\n" % sum(map(len, pieces))
        for piece in pieces:
            if len(piece) <= _COPIED_BYTES:
                small += piece
            else:
                small = bytearray()
                packed += (piece, small)
        small += b"\r\n"
