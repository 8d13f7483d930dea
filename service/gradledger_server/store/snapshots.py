"""5/6 snapshot: the state becomes durable, and the log up to it is let go.

    chunks with a TTL → publish (compare-and-set, never backwards) → trim the log → free what nobody needs

A crash between any two steps is harmless: what was staged expires, what was published stands, and what was
not freed is listed in `chunks` and freed after the next one. So is a failover: each step that frees something
asks first, in the same script, whether this very server has the snapshot. A chunk's digest is checked
whenever it is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice

import xxhash

from gradledger_server.errors import ModelQuarantined, StoreUnavailable
from gradledger_server.store import keys, scripts
from gradledger_server.store.chunks import ChunkMissing, Row, batches, drop, fetch, new_token, put
from gradledger_server.store.connection import Connection
from gradledger_server.store.contract import Snapshot
from gradledger_server.store.packing import Pieces, cut

SENT_AT_ONCE = 16  # chunks between two looks at the replies: a full server is noticed soon, and memory let go
TRIMMED_AT_ONCE = 1000  # entries, so that no other client waits long
ATTEMPTS = 10  # to read a snapshot that others keep replacing
DIGEST_BYTES = 8


class RedisSnapshots:
    """The published snapshot of each model."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save(self, epoch: str, snapshot: Snapshot) -> bool:
        """See contract.Store."""
        # The facts come last, so that the tensors begin where the block begins and stay aligned.
        nbytes = sum(part.nbytes for part in snapshot.parts) + len(snapshot.meta)
        row, digests = self._stage(epoch, chain(snapshot.take_out(), [memoryview(snapshot.meta)]), nbytes)
        (reply,) = self._connection.ask(
            scripts.publish(
                [keys.head(epoch), keys.log(epoch), keys.snapshot(epoch), keys.chunks(epoch), *row.names()],
                snapshot.offset,
                snapshot.chain,
                row.token,
                len(snapshot.meta),
                nbytes,
                digests,
            )
        )
        match reply:
            case [b"published", before]:
                self._trim(epoch, int(before), snapshot.offset)
                return True
            case [b"expired"]:
                raise StoreUnavailable("the snapshot expired in the server before it could be published")
        drop(self._connection, [row])
        return False

    def load(self, epoch: str) -> Snapshot | None:
        """See contract.Store."""
        for _ in range(ATTEMPTS):
            manifest = self._manifest(epoch)
            if not manifest:
                return None
            try:
                return self._read(epoch, manifest)
            except ChunkMissing as missing:
                if self._manifest(epoch) == manifest:
                    raise ModelQuarantined(f"{_name(epoch, manifest, missing.index)} is missing") from None
        raise StoreUnavailable("the snapshot was replaced again and again while it was read")

    def _stage(self, epoch: str, parts: Iterable[memoryview], nbytes: int) -> tuple[Row, bytes]:
        token, ttl_s = new_token(), keys.staged_ttl_s(nbytes)
        digests, sent = b"", 0
        chunks = cut(parts)
        while some := list(islice(chunks, SENT_AT_ONCE)):
            digests += b"".join(map(_digest, some))
            self._connection.ask(*put(epoch, token, sent, some, ttl_s))
            sent += len(some)
        return Row(epoch, token, sent), digests

    def _trim(self, epoch: str, before: int, saved: int) -> None:
        names = [keys.head(epoch), keys.log(epoch), keys.chunks(epoch)]
        for upto in (*range(before + TRIMMED_AT_ONCE, saved, TRIMMED_AT_ONCE), saved):
            self._connection.ask(scripts.trim(names, upto))
        (groups,) = self._connection.ask(("ZRANGEBYSCORE", keys.chunks(epoch), "-inf", f"({saved}"))
        for rows in batches([Row.parse(epoch, group) for group in groups]):
            freed = [name for row in rows for name in row.names()]
            self._connection.ask(scripts.trim([*names, *freed], saved, *(row.group for row in rows)))

    def _manifest(self, epoch: str) -> dict[str, bytes]:
        (reply,) = self._connection.ask(("HGETALL", keys.snapshot(epoch)), again=True)
        return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}

    def _read(self, epoch: str, manifest: dict[str, bytes]) -> Snapshot:
        digests = manifest["digests"]

        def check(index: int, chunk: memoryview) -> None:
            expected = digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
            found = _digest((chunk,))
            if found != expected:
                raise ModelQuarantined(
                    f"{_name(epoch, manifest, index)} is damaged: "
                    f"its digest is {found.hex()}, expected {expected.hex()}"
                )

        nbytes, meta_bytes = int(manifest["nbytes"]), int(manifest["meta_bytes"])
        block = fetch(self._connection, Row.parse(epoch, manifest["chunks"]), nbytes, check)
        body, meta = block[: nbytes - meta_bytes], bytes(block[nbytes - meta_bytes :])
        return Snapshot(int(manifest["offset"]), manifest["chain"].decode(), meta, [body])


def _digest(chunk: Pieces) -> bytes:
    hasher = xxhash.xxh3_64()
    for piece in chunk:
        hasher.update(piece)
    return hasher.digest()


def _name(epoch: str, manifest: dict[str, bytes], index: int) -> str:
    return f"chunk {index} of the snapshot at offset {int(manifest['offset'])} of epoch {epoch}"
