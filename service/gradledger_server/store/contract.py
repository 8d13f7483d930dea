"""The memory's contract: what a log, its snapshots and its names promise, whoever keeps them.

The protocol
  A model's life is an *epoch*: a random id, never used twice. A name points to one epoch at most. An epoch's
  log is a row of records with offsets 1, 2, 3 … and a chain: chain(n) = sha1(chain(n-1) + meta(n)) in hex,
  chain(0) = "". The chain names the whole log up to there.

      create ── append* ── delete          a snapshot may be saved at any offset of the log;
              └ save, load, read, head     saving one trims the log up to it

Ownership
  The store reads the memoryviews it is given during the call and never after it.
  What it returns belongs to the caller and never changes.

Ordering
  An append is atomic: the checks, the offset, the dedupe table and the record, all or nothing. The wishes
  of one call are taken in their order; wishes of other replicas may come in between. An `Appended` entry is
  as durable as `facts().durability` says, and every later `head` and `read` on any replica sees it.

Errors
  StoreUnavailable: the server does not answer. A read changed nothing; whether a write was made nobody
  knows, so it is never repeated here: ask `head`, or repeat the same named push. StoreFull: the server has
  no memory left; of a row of wishes some may have been appended. StoreUnsuitable: the server cannot keep
  these promises. ModelQuarantined: stored bytes are damaged or missing; the message names them.

All methods are synchronous and may be called from any thread; an `AsyncLog` asks the same for an event loop,
where nothing may block. `memory.MemoryStore` is the reference; `ledger.RedisStore` is the one that lasts; one
test suite holds both to this page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Logged, Record
from gradledger_server.errors import GradledgerError

READ_BYTES = 64 << 20
REMEMBERED_ENTRIES = 10_000  # how long an idempotency key is known: through so many entries after its own
SMALL_BYTES = (1 << 20) + (64 << 10)  # of payload, with its header: appended without a thread's help
DURABILITIES = ("memory", "everysec", "fsync")  # from the weakest to the strongest


class Trimmed(Exception):
    """The entry asked for was folded into a snapshot: load that one and read on from there."""


class Append(NamedTuple):
    """A wish: put this record at the log's end.

    `identity` names the push: a worker ("w:<name>", `sequence` counts from 1 without gaps, never forgotten)
    or an idempotency key ("k:<key>", `sequence` is 1, known for `REMEMBERED_ENTRIES`). With `expected` the
    record is appended only if the log's chain is exactly that. The checks come in this order:
    Gone, Seen, Gap, Moved.
    """

    record: Record
    identity: str | None = None
    sequence: int | None = None
    expected: str | None = None


class Appended(NamedTuple):
    """The record is in the log, at `offset`; `chain` includes it."""

    offset: int
    chain: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A push of this identity and sequence is in the log already."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The identity's next sequence is `expected`, not this one."""

    expected: int


@dataclass(frozen=True, slots=True)
class Moved:
    """The log's chain is not the expected one."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The epoch was deleted, or never was."""


Outcome = Appended | Seen | Gap | Moved | Gone


class Head(NamedTuple):
    """Where the log ends, and the offset of the published snapshot (0 if there is none)."""

    offset: int
    chain: str
    saved: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state at an offset: its facts, and its bytes in any number of parts. A loaded one has one part.

    Saving it takes the parts out, each when its turn comes: what is written down needs no memory any more.
    """

    offset: int
    chain: str
    meta: bytes
    parts: list[memoryview]

    def take_out(self) -> Iterator[memoryview]:
        """The parts in order, each forgotten here as it is given."""
        while self.parts:
            yield self.parts.pop(0)


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What the server is and promises. `note` says why `durability` is not read but assumed, if so."""

    server: str  # "redis", "valkey" or "memory"
    version: str
    durability: str  # of an acknowledged append: one of DURABILITIES
    maxmemory_bytes: int  # 0: no limit
    policy: str
    note: str = ""


Told = Callable[[Outcome | GradledgerError], None]  # what became of it, or why nobody knows


class AsyncLog(Protocol):
    """What a small push asks of the log, for one event loop, without blocking it.

    As long as `tenure` is the same number, nobody but this process has written to the server, and no
    connection was lost with something on its way: what was known to be the log's end still is, but for what
    this process appended since. None where others may write, or as long as nobody has asked.
    """

    @property
    def tenure(self) -> int | None: ...

    async def append(self, epoch: str, appends: Sequence[Append]) -> list[Outcome]:
        """See `Store.append`; payloads of at most SMALL_BYTES."""

    def post(self, epoch: str, append: Append, told: Told) -> bool:
        """The same of one, sent before this returns; `told` is called once, later, in the order of posting.

        False, and nothing sent, while there is no connection.
        """

    async def head(self, epoch: str) -> Head | None:
        """See `Store.head`."""

    def close(self) -> None:
        """Lets go of the connection."""


class Store(Protocol):
    """See the module's docstring. What is large and comes from here lies in `blocks`, and is recycled."""

    @property
    def blocks(self) -> Blocks: ...

    def facts(self) -> StoreFacts:
        """What the server is, as of the latest connection made to it. Costs nothing after the first call."""

    def names(self) -> dict[str, str]:
        """Every name and its epoch."""

    def find(self, name: str) -> str | None:
        """The name's epoch."""

    def create(self, name: str, epoch: str, record: Record) -> bool:
        """Begins a log with this record and binds the name to it; False, and no trace, if it is taken."""

    def delete(self, name: str, epoch: str, record: Record) -> bool:
        """Ends the log with this record, frees the name and drops everything; False if the name is not (or
        no longer) this epoch's. Interrupted, it is finished by the next `find`, `names` or `create`."""

    def append(self, epoch: str, appends: Sequence[Append]) -> list[Outcome]:
        """What became of each wish, in order; one round trip for all."""

    def head(self, epoch: str) -> Head | None:
        """Where the log ends; None if the epoch is gone."""

    def read(
        self, epoch: str, after: int, limit_bytes: int = READ_BYTES, *, payloads: bool = True
    ) -> list[Logged]:
        """The entries behind offset `after`, about `limit_bytes` of them but at least one if there is one.

        Without `payloads` they come with empty ones. Raises Trimmed if the next entry is no longer there.
        """

    def save(self, epoch: str, snapshot: Snapshot) -> bool:
        """Publishes the snapshot and trims the log up to it. False, and no trace, if one at the same offset
        or a later one is there, or if the log has no such offset and chain."""

    def load(self, epoch: str) -> Snapshot | None:
        """The published snapshot, every byte checked. Raises ModelQuarantined naming the damaged chunk."""

    def async_log(self) -> AsyncLog:
        """The log for the event loop that will use it, and close it."""

    def close(self) -> None:
        """Lets go of the connections."""
