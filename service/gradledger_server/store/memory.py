"""The plain store: what contract.py promises, in dictionaries. The reference for the one that lasts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Logged, Record, chained
from gradledger_server.errors import GradledgerError
from gradledger_server.store.contract import (
    READ_BYTES,
    REMEMBERED_ENTRIES,
    Append,
    Appended,
    AsyncLog,
    Gap,
    Gone,
    Head,
    Moved,
    Outcome,
    Seen,
    Snapshot,
    Store,
    StoreFacts,
    Told,
    Trimmed,
)


@dataclass(slots=True)
class _Log:
    """One epoch. `entries` are those behind offset `saved`."""

    entries: list[Logged] = field(default_factory=list)
    offset: int = 0
    chain: str = ""
    workers: dict[str, int] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    snapshot: Snapshot | None = None

    @property
    def saved(self) -> int:
        return self.snapshot.offset if self.snapshot else 0

    def put(self, record: Record) -> Appended:
        self.offset += 1
        self.chain = chained(self.chain, record)
        self.entries.append(Logged(self.offset, self.chain, record))
        return Appended(self.offset, self.chain)


class MemoryStore:
    """`contract.Store` for one process and as long as it lives."""

    def __init__(self, *, remembered: int = REMEMBERED_ENTRIES) -> None:
        self._remembered = remembered
        self.blocks = Blocks()
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        self._logs: dict[str, _Log] = {}

    def facts(self) -> StoreFacts:
        """Volatile, unlimited."""
        return StoreFacts("memory", "0", "memory", 0, "noeviction")

    def names(self) -> dict[str, str]:
        """Every name and its epoch."""
        with self._lock:
            return dict(self._names)

    def find(self, name: str) -> str | None:
        """The name's epoch."""
        with self._lock:
            return self._names.get(name)

    def create(self, name: str, epoch: str, record: Record) -> bool:
        """Begins a log and binds the name to it; False if the name is taken."""
        with self._lock:
            if name in self._names:
                return False
            self._names[name] = epoch
            self._logs[epoch] = _Log()
            self._logs[epoch].put(_kept(record))
            return True

    def delete(self, name: str, epoch: str, record: Record) -> bool:
        """Drops the log and frees the name; False if the name is not this epoch's."""
        with self._lock:
            if self._names.get(name) != epoch:
                return False
            self._logs[epoch].put(record)
            del self._names[name], self._logs[epoch]
            return True

    def append(self, epoch: str, appends: Sequence[Append]) -> list[Outcome]:
        """What became of each wish."""
        with self._lock:
            return [self._append(epoch, append) for append in appends]

    def _append(self, epoch: str, wish: Append) -> Outcome:
        log = self._logs.get(epoch)
        if log is None:
            return Gone()
        if (known := self._known(log, wish)) is not None:
            return known
        if wish.expected is not None and wish.expected != log.chain:
            return Moved()
        appended = log.put(_kept(wish.record))
        if wish.identity is not None:
            table = log.keys if wish.identity.startswith("k:") else log.workers
            table[wish.identity] = appended.offset if table is log.keys else wish.sequence or 1
        return appended

    def _known(self, log: _Log, wish: Append) -> Outcome | None:
        if wish.identity is None:
            return None
        if wish.identity.startswith("k:"):
            at = log.keys.get(wish.identity)
            return Seen() if at is not None and at + self._remembered > log.offset else None
        last, sequence = log.workers.get(wish.identity, 0), wish.sequence or 1
        if sequence <= last:
            return Seen()
        return Gap(last + 1) if sequence > last + 1 else None

    def head(self, epoch: str) -> Head | None:
        """Where the log ends."""
        with self._lock:
            log = self._logs.get(epoch)
            return Head(log.offset, log.chain, log.saved) if log else None

    def read(
        self, epoch: str, after: int, limit_bytes: int = READ_BYTES, *, payloads: bool = True
    ) -> list[Logged]:
        """The entries behind `after`. Raises Trimmed."""
        with self._lock:
            log = self._logs.get(epoch)
            if log is None or log.offset <= after:
                return []
            if after < log.saved:
                raise Trimmed
            taken, nbytes = [], 0
            for logged in log.entries[after - log.saved :]:
                record = logged.record if payloads else Record(logged.record.meta, memoryview(b""))
                taken.append(Logged(logged.offset, logged.chain, record))
                nbytes += len(record.meta) + len(record.payload)
                if nbytes >= limit_bytes:
                    break
            return taken

    def save(self, epoch: str, snapshot: Snapshot) -> bool:
        """Publishes the snapshot and trims the log up to it; False if it is not the newest."""
        body = b"".join(part.cast("B") if part.nbytes else b"" for part in snapshot.take_out())
        kept = Snapshot(snapshot.offset, snapshot.chain, snapshot.meta, [memoryview(body)])
        with self._lock:
            log = self._logs.get(epoch)
            if log is None or not log.saved < kept.offset <= log.offset:
                return False
            behind = kept.offset - log.saved
            if log.entries[behind - 1].chain != kept.chain:
                return False
            log.snapshot, log.entries = kept, log.entries[behind:]
            return True

    def load(self, epoch: str) -> Snapshot | None:
        """The published snapshot."""
        with self._lock:
            log = self._logs.get(epoch)
            return log.snapshot if log else None

    def async_log(self) -> AsyncLog:
        """The same, at once."""
        return InlineLog(self)

    def close(self) -> None:
        """Nothing to let go of."""


class InlineLog:
    """`contract.AsyncLog` of a store that never lets anybody wait, and that several replicas may share."""

    tenure: int | None = None

    def __init__(self, store: Store) -> None:
        self._store = store

    async def append(self, epoch: str, appends: Sequence[Append]) -> list[Outcome]:
        """What became of each wish."""
        return self._store.append(epoch, appends)

    def post(self, epoch: str, append: Append, told: Told) -> bool:
        """One append; what became of it is told in the loop's next turn."""
        asyncio.get_running_loop().call_soon(told, self._became(epoch, append))
        return True

    def _became(self, epoch: str, append: Append) -> Outcome | GradledgerError:
        try:
            (outcome,) = self._store.append(epoch, [append])
        except GradledgerError as failure:
            return failure
        return outcome

    async def head(self, epoch: str) -> Head | None:
        """Where the log ends."""
        return self._store.head(epoch)

    def close(self) -> None:
        """Nothing to let go of."""


def _kept(record: Record) -> Record:
    # The caller may use its memory for something else as soon as the call is over.
    return Record(record.meta, memoryview(bytes(record.payload)))
