"""3/6 log: a push becomes durable.

One pipeline carries all wishes of a call: a large payload's chunks go ahead as plain values with a TTL, then
a script of constant cost checks everything, gives the offset, keeps the chunks and writes the entry. A
crash before the script leaves chunks that vanish by themselves; after it, nothing is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from redis.exceptions import RedisError

from gradledger_server.entries import Logged, Record
from gradledger_server.errors import GradledgerError, ModelQuarantined, StoreUnavailable
from gradledger_server.store import keys, scripts
from gradledger_server.store.chunks import ChunkMissing, Row, drop, fetch, puts, unlinks
from gradledger_server.store.connection import Connection, raise_in_our_words
from gradledger_server.store.contract import (
    REMEMBERED_ENTRIES,
    Append,
    Head,
    Outcome,
    Told,
    Trimmed,
)
from gradledger_server.store.loop_line import LoopLine, Replies
from gradledger_server.store.outcomes import Wish, outcome, outcomes
from gradledger_server.store.packing import Command, Packed, Ready

READ_ENTRIES = 1024  # in one reply


class RedisLog:
    """The logs of all models. `remembered` is how many entries an idempotency key is known for."""

    def __init__(self, connection: Connection, remembered: int = REMEMBERED_ENTRIES) -> None:
        self._connection = connection
        self._remembered = remembered
        self._no_chunks = Packed.of(remembered, "", 0)

    def begin(self, epoch: str, record: Record, deadline_ms: int) -> None:
        """A log's first record. Raises StoreUnavailable if the server's time is past the deadline."""
        self._carry_out([self._wish(epoch, Append(record), "first", deadline_ms)])

    def end(self, epoch: str, record: Record) -> None:
        """A log's last record."""
        self._carry_out([self._wish(epoch, Append(record), "last")])

    def append(self, epoch: str, appends: Sequence[Append]) -> list[Outcome]:
        """See contract.Store."""
        return self._carry_out([self._wish(epoch, append) for append in appends])

    def _carry_out(self, wishes: Sequence[Wish]) -> list[Outcome]:
        replies = self._connection.replies([command for wish in wishes for command in wish.commands])
        became, left = outcomes(wishes, replies)
        if left:
            with contextlib.suppress(StoreUnavailable):  # they have a TTL; what became of the wishes is known
                drop(self._connection, left)
        return became

    async def append_soon(self, line: LoopLine, epoch: str, appends: Sequence[Append]) -> list[Outcome]:
        """The same on the event loop's line, of small payloads."""
        wishes = [self._wish(epoch, append) for append in appends]
        became, left = outcomes(wishes, await line.ask([c for wish in wishes for c in wish.commands]))
        if left:
            line.post(unlinks(left), _whatever)
        return became

    def post(self, line: LoopLine, epoch: str, append: Append, told: Told) -> bool:
        """One small append on the line, if that is open; `told` hears what became of it."""
        wish = self._wish(epoch, append)
        return line.post(wish.commands, lambda replies: told(_became(line, wish, replies)))

    async def head_soon(self, line: LoopLine, epoch: str) -> Head | None:
        """See `head`."""
        (reply,) = await line.ask([_ask_head(epoch)], again=True)
        if isinstance(reply, RedisError):
            raise_in_our_words(reply)
        return _head(reply)

    def head(self, epoch: str) -> Head | None:
        """See contract.Store."""
        (reply,) = self._connection.ask(_ask_head(epoch), again=True)
        return _head(reply)

    def read(self, epoch: str, after: int, limit_bytes: int, *, payloads: bool) -> list[Logged]:
        """See contract.Store."""
        # The head is asked first: what it counts must be found behind it, or was trimmed.
        count = min(max(1, limit_bytes // keys.INLINE_BYTES), READ_ENTRIES)
        entries: Command = ("XRANGE", keys.log(epoch), f"{after + 1}-0", "+", "COUNT", count)
        reply, found = self._connection.ask(_ask_head(epoch), entries, again=True)
        head = _head(reply)
        if head is None or head.offset <= after:
            return []
        if not found or _offset(found[0]) != after + 1:
            raise Trimmed
        logged, nbytes = [], 0
        for entry in found:
            logged.append(self._logged(epoch, entry, payloads))
            nbytes += len(logged[-1].record.meta) + len(logged[-1].record.payload)
            if nbytes >= limit_bytes:
                break
        return logged

    def _wish(self, epoch: str, append: Append, mode: str = "next", deadline_ms: int = 0) -> Wish:
        if append.record.payload.nbytes > keys.INLINE_BYTES:
            row, sets = puts(epoch, append.record.payload)
            return Wish([*sets, self._commit(epoch, append, row, mode, deadline_ms)], row)
        if mode == "next":
            return Wish([self._usual(epoch, append)])
        return Wish([self._commit(epoch, append, None, mode, deadline_ms)])

    def _commit(self, epoch: str, append: Append, row: Row | None, mode: str, deadline_ms: int) -> Command:
        return (
            *_head_of(epoch, mode, row),
            append.record.meta,
            b"" if row else append.record.payload,
            append.identity or "",
            append.sequence or 1,
            "any" if append.expected is None else append.expected,
            self._remembered,
            row.token if row else "",
            append.record.payload.nbytes,
            deadline_ms,
        )

    def _usual(self, epoch: str, append: Append) -> Ready:
        """The same of a small record behind others, written down in one go."""
        meta, payload = append.record
        name, sequence = (append.identity or "").encode(), b"%d" % (append.sequence or 1)
        chain = b"any" if append.expected is None else append.expected.encode()
        return Ready(
            _USUAL
            % (
                _next(epoch),
                *(len(meta), meta),
                *(payload.nbytes, payload),
                *(len(name), name),
                *(len(sequence), sequence),
                *(len(chain), chain),
                self._no_chunks,
            )
        )

    def _logged(self, epoch: str, entry: Any, payloads: bool) -> Logged:
        offset, fields = _offset(entry), dict(zip(entry[1][::2], entry[1][1::2], strict=True))
        payload = memoryview(b"")
        if payloads and b"chunks" in fields:
            payload = self._payload(epoch, offset, fields)
        elif payloads:
            payload = memoryview(fields[b"payload"])
        return Logged(offset, fields[b"chain"].decode(), Record(fields[b"meta"], payload))

    def _payload(self, epoch: str, offset: int, fields: dict[bytes, bytes]) -> memoryview:
        try:
            return fetch(self._connection, Row.parse(epoch, fields[b"chunks"]), int(fields[b"nbytes"]))
        except ChunkMissing as missing:
            head = self.head(epoch)
            if head is None or head.saved >= offset:
                raise Trimmed from None
            raise ModelQuarantined(
                f"chunk {missing.index} of entry {offset} of epoch {epoch} is missing from the server"
            ) from None


_USUAL = b"%b" + 5 * b"$%d\r\n%b\r\n" + b"%b"


def _next(epoch: str) -> bytes:
    """What every small push of a model begins with. Nothing is kept by model: there may be very many."""
    return _next_of("\0" * len(epoch)).replace(b"\0" * len(epoch), epoch.encode())


@lru_cache(maxsize=64)
def _next_of(stand_in: str) -> bytes:
    head = _head_of(stand_in, "next", None)
    return b"*%d\r\n%b" % (len(head) + 8, Packed.of(*head))


def _head_of(epoch: str, mode: str, row: Row | None) -> Command:
    names = [key(epoch) for key in (keys.head, keys.log, keys.keys, keys.chunks)]
    return scripts.commit(names + (row.names() if row else []), mode)


@lru_cache(maxsize=4096)
def _ask_head(epoch: str) -> Command:
    return (Packed.of("HMGET", keys.head(epoch), "offset", "chain", "saved", "deleted"),)


def _head(reply: list[bytes | None]) -> Head | None:
    offset, chain, saved, deleted = reply
    if offset is None or chain is None or deleted is not None:
        return None
    return Head(int(offset), chain.decode(), int(saved or 0))


def _offset(entry: Any) -> int:
    return int(entry[0].partition(b"-")[0])


def _became(line: LoopLine, wish: Wish, replies: Replies | RedisError) -> Outcome | GradledgerError:
    try:
        if isinstance(replies, RedisError) or wish.row is None:
            return outcome(replies if isinstance(replies, RedisError) else replies[0])
        (became,), left = outcomes([wish], replies)
    except GradledgerError as failure:
        return failure
    if left:
        line.post(unlinks(left), _whatever)
    return became


def _whatever(_: Replies | RedisError) -> None:
    """Chunks that nobody needs have a TTL, should it not have worked."""
