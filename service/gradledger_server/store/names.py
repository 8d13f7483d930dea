"""Which epoch a name means, and how models begin and end without leaving anything behind.

    create:  reserve ── the log's first record ── bind          unbound until bound
    delete:  unbind ── the log's last record ── wipe            unbound from then on

An epoch that has keys is bound to a name or listed as unbound with a deadline. Whoever creates, finds or
lists names wipes what is past its deadline, so a crash anywhere between the steps is mended by the next call.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from gradledger_server.entries import Record
from gradledger_server.errors import StoreFull, StoreUnavailable
from gradledger_server.store import keys, scripts
from gradledger_server.store.chunks import Row, drop
from gradledger_server.store.connection import Connection
from gradledger_server.store.log import RedisLog
from gradledger_server.store.packing import Command

_TABLES = [keys.NAMES, keys.UNBOUND]


class RedisNames:
    """The table of names; begins and ends logs."""

    def __init__(self, connection: Connection, log: RedisLog) -> None:
        self._connection = connection
        self._log = log

    def all(self) -> dict[str, str]:
        """See contract.Store.names."""
        pairs = self._ask_and_sweep(("HGETALL", keys.NAMES))
        return {name.decode(): epoch.decode() for name, epoch in zip(pairs[::2], pairs[1::2], strict=True)}

    def find(self, name: str) -> str | None:
        """See contract.Store."""
        epoch = self._ask_and_sweep(("HGET", keys.NAMES, name))
        return None if epoch is None else str(epoch.decode())

    def create(self, name: str, epoch: str, record: Record) -> bool:
        """See contract.Store."""
        ttl_ms = 1000 * keys.staged_ttl_s(record.payload.nbytes)
        reserved = self._ask_and_sweep(scripts.reserve(_TABLES, name, epoch, ttl_ms))
        if reserved == b"taken":
            return False
        self._log.begin(epoch, record, int(reserved))
        (bound,) = self._connection.ask(scripts.bind(_TABLES, name, epoch))
        if bound == b"bound":
            return True
        self._wipe(epoch)
        if bound == b"late":
            raise StoreUnavailable(f"creating {name!r} took longer than {ttl_ms // 1000} s and was undone")
        return False

    def delete(self, name: str, epoch: str, record: Record) -> bool:
        """See contract.Store."""
        (unbound,) = self._connection.ask(scripts.unbind(_TABLES, name, epoch))
        if not unbound:
            return False
        with suppress(StoreFull):  # who watches learns of the end from the head as well
            self._log.end(epoch, record)
        self._wipe(epoch)
        return True

    def _ask_and_sweep(self, command: Command) -> Any:
        reply, overdue = self._connection.ask(command, scripts.overdue([keys.UNBOUND]))
        for epoch in overdue:
            self._wipe(epoch.decode())
        return reply

    def _wipe(self, epoch: str) -> None:
        """Frees everything of an epoch. Safe to repeat and to interrupt: the list of chunks goes after the
        chunks, and the epoch stays listed as unbound until nothing of it is left."""
        _, groups = self._connection.ask(
            scripts.bury([keys.head(epoch)]), ("ZRANGE", keys.chunks(epoch), 0, -1)
        )
        drop(self._connection, [Row.parse(epoch, group) for group in groups])
        self._connection.ask(("UNLINK", *keys.of_model(epoch)))
        self._connection.ask(("ZREM", keys.UNBOUND, epoch))
