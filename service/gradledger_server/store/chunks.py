"""Large values in the server: rows of 1 MiB chunks, staged with a TTL until a script commits them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from gradledger_server.errors import StoreUnavailable
from gradledger_server.store import keys
from gradledger_server.store.connection import Connection
from gradledger_server.store.contract import Staged
from gradledger_server.store.packing import Command, Pieces, as_bytes, cut

AHEAD = 8  # chunks asked for before they are needed: what the server must hold for a slow reader
UNLINKED_AT_ONCE = 512


Check = Callable[[int, bytes], None]  # of a chunk's index and bytes


class ChunkMissing(Exception):
    """Chunk `index` of a row is not there, or not whole."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


@dataclass(frozen=True, slots=True)
class Row:
    """The chunks of one value."""

    epoch: str
    token: str
    count: int

    @classmethod
    def parse(cls, epoch: str, group: bytes) -> Row:
        """From the form "<token>:<count>" that the scripts write down."""
        token, count = group.decode().split(":")
        return cls(epoch, token, int(count))

    @classmethod
    def of(cls, epoch: str, staged: Staged) -> Row:
        return cls(epoch, staged.token, staged.chunks)

    def names(self) -> list[str]:
        return [keys.chunk(self.epoch, self.token, index) for index in range(self.count)]


def new_token() -> str:
    """A name for a row that nobody else uses."""
    return secrets.token_hex(8)


def put(epoch: str, token: str, index: int, chunk: Pieces, ttl_s: int) -> Command:
    """The command that stages one chunk."""
    return ("SET", keys.chunk(epoch, token, index), chunk, "EX", ttl_s)


def puts(epoch: str, payload: memoryview) -> tuple[Staged, list[Command]]:
    """The commands that stage a payload, and what it will be once they have run."""
    token, ttl_s = new_token(), keys.staged_ttl_s(payload.nbytes)
    commands = [put(epoch, token, index, chunk, ttl_s) for index, chunk in enumerate(cut([payload]))]
    return Staged(token, len(commands), payload.nbytes), commands


class RedisStaging:
    """Sends chunks as they fill up. A chunk that never gets its append vanishes with its TTL."""

    def __init__(self, connection: Connection, epoch: str, total_bytes: int) -> None:
        self._epoch, self._token = epoch, new_token()
        self._total_bytes, self._sent_bytes = total_bytes, 0
        self._ttl_s = keys.staged_ttl_s(total_bytes)
        self._rest: list[memoryview] = []
        self._rest_bytes = 0
        self._count = 0
        self._connection = connection

    def add(self, part: memoryview) -> None:
        """See contract.Staging."""
        part = as_bytes(part)
        self._rest.append(part)
        self._rest_bytes += len(part)
        if self._rest_bytes >= keys.CHUNK_BYTES:
            whole = [*cut(self._rest)]
            ragged = sum(map(len, whole[-1])) < keys.CHUNK_BYTES
            self._rest = list(whole.pop()) if ragged else []
            self._rest_bytes = sum(map(len, self._rest))
            self._send(whole)

    def done(self) -> Staged:
        """See contract.Staging."""
        if self._rest:
            self._send([tuple(self._rest)])
            self._rest, self._rest_bytes = [], 0
        if self._sent_bytes != self._total_bytes:
            raise ValueError(f"staged {self._sent_bytes} bytes; {self._total_bytes} were announced")
        return Staged(self._token, self._count, self._sent_bytes)

    def _send(self, chunks: Sequence[Pieces]) -> None:
        first = self._count
        self._connection.ask(
            *(put(self._epoch, self._token, first + i, chunk, self._ttl_s) for i, chunk in enumerate(chunks))
        )
        self._count += len(chunks)
        self._sent_bytes += sum(len(piece) for chunk in chunks for piece in chunk)


def fetch(connection: Connection, row: Row, nbytes: int, check: Check | None = None) -> memoryview:
    """The value of `nbytes`. Raises ChunkMissing, or what `check` raises."""
    try:
        return _fetch(connection, row, nbytes, check)
    except StoreUnavailable:  # the connection may have died of old age; the next one is fresh
        return _fetch(connection, row, nbytes, check)


def _fetch(connection: Connection, row: Row, nbytes: int, check: Check | None) -> memoryview:
    block = memoryview(bytearray(nbytes if row.count > 1 else 0))
    gets: list[Command] = [("GET", name) for name in row.names()]
    with closing(connection.stream(gets, AHEAD)) as chunks:
        for index, chunk in enumerate(chunks):
            start = index * keys.CHUNK_BYTES
            size = min(keys.CHUNK_BYTES, nbytes - start)
            if chunk is None or len(chunk) != size:
                raise ChunkMissing(index)
            if check is not None:
                check(index, chunk)
            if row.count == 1:
                block = memoryview(chunk)
            else:
                block[start : start + size] = chunk
    return block.toreadonly()


def drop(connection: Connection, rows: Sequence[Row]) -> None:
    """Frees the rows' chunks."""
    names = [key for row in rows for key in row.names()]
    for first in range(0, len(names), UNLINKED_AT_ONCE):
        connection.ask(("UNLINK", *names[first : first + UNLINKED_AT_ONCE]))
