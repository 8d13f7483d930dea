"""The store that lasts: logs, snapshots and names in a Redis or Valkey server."""

from __future__ import annotations

from collections.abc import Sequence

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Logged, Record
from gradledger_server.store.connection import CONNECT_TIMEOUT_S, SOCKET_TIMEOUT_S, Connection
from gradledger_server.store.contract import (
    READ_BYTES,
    REMEMBERED_ENTRIES,
    Append,
    AsyncLog,
    Head,
    Outcome,
    Snapshot,
    StoreFacts,
    Told,
)
from gradledger_server.store.log import RedisLog
from gradledger_server.store.loop_line import LoopLine
from gradledger_server.store.names import RedisNames
from gradledger_server.store.snapshots import RedisSnapshots


class RedisStore:
    """`contract.Store` on the server at `url` (redis://, rediss://, unix://), at least as durable as asked.

    Connects at the first call. Every new connection reads again what the server is, and raises
    StoreUnsuitable if that is too little. Other processes find the same store by `url` and `durability`,
    unless this one is `alone`: then the server is its own, and nobody else has the key to it.
    """

    alone = False

    def __init__(
        self,
        url: str,
        durability: str = "memory",
        *,
        remembered: int = REMEMBERED_ENTRIES,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        socket_timeout_s: float = SOCKET_TIMEOUT_S,
    ) -> None:
        self.url, self.durability = url, durability
        self._connection = Connection(
            url, durability, connect_timeout_s=connect_timeout_s, socket_timeout_s=socket_timeout_s
        )
        self._log = RedisLog(self._connection, remembered)
        self._snapshots = RedisSnapshots(self._connection)
        self._names = RedisNames(self._connection, self._log)

    @property
    def blocks(self) -> Blocks:
        """The memory that large payloads and snapshots are received into."""
        return self._connection.blocks

    def facts(self) -> StoreFacts:
        """What the server is, as of the latest connection made to it."""
        return self._connection.facts()

    def names(self) -> dict[str, str]:
        """Every name and its epoch."""
        return self._names.all()

    def find(self, name: str) -> str | None:
        """The name's epoch."""
        return self._names.find(name)

    def create(self, name: str, epoch: str, record: Record) -> bool:
        """Begins a log and binds the name to it; False if the name is taken."""
        return self._names.create(name, epoch, record)

    def delete(self, name: str, epoch: str, record: Record) -> bool:
        """Ends the log and frees the name; False if the name is not this epoch's."""
        return self._names.delete(name, epoch, record)

    def append(self, epoch: str, appends: Sequence[Append]) -> list[Outcome]:
        """What became of each wish; one round trip for all."""
        return self._log.append(epoch, appends)

    def head(self, epoch: str) -> Head | None:
        """Where the log ends."""
        return self._log.head(epoch)

    def read(
        self, epoch: str, after: int, limit_bytes: int = READ_BYTES, *, payloads: bool = True
    ) -> list[Logged]:
        """The entries behind `after`. Raises Trimmed."""
        return self._log.read(epoch, after, limit_bytes, payloads=payloads)

    def save(self, epoch: str, snapshot: Snapshot) -> bool:
        """Publishes the snapshot and trims the log up to it; False if it is not the newest."""
        return self._snapshots.save(epoch, snapshot)

    def load(self, epoch: str) -> Snapshot | None:
        """The published snapshot, every byte checked."""
        return self._snapshots.load(epoch)

    def async_log(self) -> AsyncLog:
        """The log for an event loop."""
        return _LoopLog(self._log, LoopLine(self._connection), alone=self.alone)

    def close(self) -> None:
        """Hangs up."""
        self._connection.close()


class _LoopLog:
    """`contract.AsyncLog` over a line of its own."""

    def __init__(self, log: RedisLog, line: LoopLine, *, alone: bool) -> None:
        self._log, self._line, self._alone = log, line, alone

    @property
    def tenure(self) -> int | None:
        """Counts the lives of the line, where nobody else can write."""
        return self._line.life if self._alone else None

    async def append(self, epoch: str, appends: Sequence[Append]) -> list[Outcome]:
        """What became of each wish; one round trip for all."""
        return await self._log.append_soon(self._line, epoch, appends)

    def post(self, epoch: str, append: Append, told: Told) -> bool:
        """Sends one append and does not wait."""
        return self._log.post(self._line, epoch, append, told)

    async def head(self, epoch: str) -> Head | None:
        """Where the log ends."""
        return await self._log.head_soon(self._line, epoch)

    def close(self) -> None:
        """Hangs up."""
        self._line.close()
