"""Large values in the server: rows of 1 MiB chunks, staged with a TTL until a script commits them.

A server that syncs always does so once for all that one turn of its event loop has written. A chunk alone is
a turn, so some of them go together in a transaction: few, because it copies them all before anybody else
gets a turn.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gradledger_server.errors import StoreUnavailable
from gradledger_server.store import keys
from gradledger_server.store.connection import Connection, send
from gradledger_server.store.inlet import Inlet, OtherValue
from gradledger_server.store.packing import Command, Pieces, cut

AHEAD = 8  # chunks asked for before they are needed: what the server must hold for a slow reader
SET_AT_ONCE = 4  # chunks; with one, fsync takes half as long again, and more than eight are no faster
UNLINKED_AT_ONCE = 512


Check = Callable[[int, memoryview], None]  # of a chunk's index and bytes


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

    @property
    def group(self) -> str:
        """That form."""
        return f"{self.token}:{self.count}"

    def names(self) -> list[str]:
        return [keys.chunk(self.epoch, self.token, index) for index in range(self.count)]


def new_token() -> str:
    """A name for a row that nobody else uses."""
    return secrets.token_hex(8)


def put(epoch: str, token: str, first: int, chunks: Sequence[Pieces], ttl_s: int) -> list[Command]:
    """The commands that stage a row's chunks from `first` on."""
    sets: list[Command] = [
        ("SET", keys.chunk(epoch, token, index), chunk, "EX", ttl_s)
        for index, chunk in enumerate(chunks, first)
    ]
    if len(sets) == 1:
        return sets
    groups = (sets[start : start + SET_AT_ONCE] for start in range(0, len(sets), SET_AT_ONCE))
    return [command for group in groups for command in (("MULTI",), *group, ("EXEC",))]


def puts(epoch: str, payload: memoryview) -> tuple[Row, list[Command]]:
    """The commands that stage a payload, and the row it will be once they have run."""
    token, chunks = new_token(), list(cut([payload]))
    return Row(epoch, token, len(chunks)), put(epoch, token, 0, chunks, keys.staged_ttl_s(payload.nbytes))


def fetch(connection: Connection, row: Row, nbytes: int, check: Check | None = None) -> memoryview:
    """The value of `nbytes`. Raises ChunkMissing, or what `check` raises."""
    try:
        return _fetch(connection, row, nbytes, check)
    except StoreUnavailable:  # the connection may have died of old age; the next one is fresh
        return _fetch(connection, row, nbytes, check)


def _fetch(connection: Connection, row: Row, nbytes: int, check: Check | None) -> memoryview:
    block = connection.blocks.take(nbytes).data
    places = [block[start : start + keys.CHUNK_BYTES] for start in range(0, nbytes, keys.CHUNK_BYTES)]
    if len(places) != row.count:
        raise ChunkMissing(min(len(places), row.count))
    gets: list[Command] = [("GET", name) for name in row.names()]
    with connection.line() as line:
        inlet = Inlet(line)
        send(line, gets[:AHEAD])
        for index, place in enumerate(places):
            try:
                inlet.receive(place)
            except OtherValue:
                raise ChunkMissing(index) from None
            send(line, gets[index + AHEAD : index + AHEAD + 1])
            if check is not None:
                check(index, place)
        inlet.finish()
    return block.toreadonly()


def batches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows in order, as many at once as may be freed without keeping others waiting; at least one."""
    batch: list[Row] = []
    for row in rows:
        if batch and sum(each.count for each in batch) + row.count > UNLINKED_AT_ONCE:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def unlinks(rows: Sequence[Row]) -> list[Command]:
    """The commands that free the rows' chunks."""
    names = [key for row in rows for key in row.names()]
    return [
        ("UNLINK", *names[first : first + UNLINKED_AT_ONCE])
        for first in range(0, len(names), UNLINKED_AT_ONCE)
    ]


def drop(connection: Connection, rows: Sequence[Row]) -> None:
    """Frees the rows' chunks."""
    for command in unlinks(rows):
        connection.ask(command)
