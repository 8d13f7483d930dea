"""Every key in the server: what it is, its unit, how long it lives. There are no others.

  gradledger:{names}                  hash    name → epoch
  gradledger:{names}:unbound          zset    epoch → ms of Unix time from which it may be wiped
  gradledger:{<epoch>}:head           hash    offset, chain, saved, deleted; and of each worker, never
                                              forgotten, "w:<name>" → last sequence
  gradledger:{<epoch>}:log            stream  <offset>-0: meta, chain, and payload or chunks with nbytes
  gradledger:{<epoch>}:keys           zset    identity → offset, of the last 10,000 entries
  gradledger:{<epoch>}:snapshot       hash    offset, chain, chunks, nbytes, meta_bytes, digests
  gradledger:{<epoch>}:chunks         zset    "<token>:<count>" → the last `saved` that needs the row
  gradledger:{<epoch>}:chunk:<t>:<i>  string  up to 1 MiB of a payload or snapshot

A chunk has a TTL (seconds) until it is committed. Nothing else has one: a model's keys go when it is deleted.
Two invariants make crashes harmless: an epoch with keys is in `names` or in `unbound`, and a chunk has a TTL
or is listed in `chunks`. The braces are the cluster's hash tag: what one script touches lies in one slot.
"""

from __future__ import annotations

PREFIX = "gradledger:"

NAMES = PREFIX + "{names}"
UNBOUND = PREFIX + "{names}:unbound"

CHUNK_BYTES = 1 << 20  # single values of 4 MiB and more move ten times slower
INLINE_BYTES = 64 << 10  # smaller payloads ride inside the entry
STAGED_TTL_S = 120


def staged_ttl_s(nbytes: int) -> int:
    """How long uncommitted chunks live: two minutes, and as long as sending takes at 1 MiB/s."""
    return STAGED_TTL_S + (nbytes >> 20)


def head(epoch: str) -> str:
    return f"{PREFIX}{{{epoch}}}:head"


def log(epoch: str) -> str:
    return f"{PREFIX}{{{epoch}}}:log"


def keys(epoch: str) -> str:
    return f"{PREFIX}{{{epoch}}}:keys"


def snapshot(epoch: str) -> str:
    return f"{PREFIX}{{{epoch}}}:snapshot"


def chunks(epoch: str) -> str:
    return f"{PREFIX}{{{epoch}}}:chunks"


def chunk(epoch: str, token: str, index: int) -> str:
    return f"{PREFIX}{{{epoch}}}:chunk:{token}:{index}"


def of_model(epoch: str) -> list[str]:
    """The keys of a model that are not chunks."""
    return [key(epoch) for key in (log, keys, snapshot, chunks, head)]
