"""The vocabulary of the log: what happened to a model, as frozen, absolute facts.

An entry holds everything `machine.apply` needs. Whatever was measured, drawn or read from a clock before
the append (the time, the norm, the server's durability) is written down here once and never recomputed,
so a replay needs neither clock nor luck.

    Entry  --wire.records-->  Record  --store-->  Logged
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one tensor lies in a block of tensor bytes: `data[start:stop]`, row-major, little-endian."""

    dtype: str  # the safetensors name: "F64", "F32", "F16", "BF16", "I64" …
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(slots=True, eq=False)  # not frozen, which would be the larger half of making one
class Tensors:
    """Named tensors over one block of bytes; views, never copies.

    `payload` is the whole safetensors body as it arrived (and as it is logged); `data` is its part behind
    the header. `table` is in wire order and shared between bodies with the same header, so its identity
    can key a cache.
    """

    table: Mapping[str, Placement]
    payload: memoryview
    data: memoryview

    def __getitem__(self, name: str) -> memoryview:
        place = self.table[name]
        return self.data[place.start : place.stop]


@dataclass(frozen=True, slots=True)
class Create:
    """The model begins. `spec` is fully expanded: a preset changed later never changes an old run.

    `tensors` holds the initial values the request brought along, so that a model and its values appear in
    one entry; what they leave out arrives as an Upload.
    """

    spec: Json
    tensors: Tensors | None
    digest: str | None  # of the tensors' payload
    at_ms: int


@dataclass(frozen=True, slots=True)
class Upload:
    """Parameter values arrive: the initial ones, or a replacement, which is a step of its own."""

    tensors: Tensors
    digest: str
    at_ms: int


class Push(NamedTuple):
    """A worker's gradient, validated: names, shapes and dtypes fit the model and every number is finite.

    (`worker`, `sequence`) names it; without a worker, `key` may (an Idempotency-Key). `base` is the step
    the gradient was computed at, None if the worker did not say. Where the model's guard takes gradients
    that are not finite, `zeroed` says how many of its numbers count as 0, and a `grad_norm` that is NaN that
    it is skipped.
    """

    tensors: Tensors
    digest: str
    worker: str | None
    sequence: int | None
    key: str | None
    base: int | None
    weight: float
    grad_norm: float  # Euclidean norm over all tensors of the push, by the canonical tree
    durability: str  # of the server at the append: "fsync", "everysec" or "memory"
    at_ms: int
    zeroed: int = 0


@dataclass(frozen=True, slots=True)
class Metric:
    """What a client measured of the model, finite: plateau schedules follow it. Named as a push is."""

    value: float
    worker: str | None
    sequence: int | None
    key: str | None
    durability: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Configure:
    """The optimizer changes; `spec` is the whole expanded spec from here on."""

    spec: Json
    at_ms: int


@dataclass(frozen=True, slots=True)
class Join:
    """A worker becomes a member, or shows that it still is one: its lease runs anew from `at_ms`."""

    worker: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Leave:
    """A worker is a member no longer; `reason` is "left" or "lease" (it ran out)."""

    worker: str
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Close:
    """Round number `round` waits no longer for who is missing; `reason` is "grace" or "lease".

    If the round is over already, nothing happens: two replicas cannot close one round twice.
    """

    round: int
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Somebody puts a worker into quarantine, or lets it out. What a guard rail does is no entry."""

    worker: str
    begins: bool
    at_ms: int


@dataclass(frozen=True, slots=True)
class Delete:
    """The model ends. Nothing follows."""

    at_ms: int


Entry = Create | Upload | Push | Metric | Configure | Join | Leave | Close | Quarantine | Delete


class Record(NamedTuple):
    """An entry as the log keeps it: its facts as canonical JSON, and its tensor bytes (empty if none).

    `meta` holds the digest of `payload`, so a chain over metas vouches for the payloads too.
    """

    meta: bytes
    payload: memoryview


def chained(chain: str, record: Record) -> str:
    """The chain of a log that had the other one before this record."""
    return hashlib.sha1(chain.encode() + record.meta, usedforsecurity=False).hexdigest()


class Logged(NamedTuple):
    """A record at its place: `chain` = sha1(previous chain + meta), hex. Equal chains, equal logs."""

    offset: int
    chain: str
    record: Record
