"""What became of each push, and who has pushed what: the table that makes a push count once.

A worker's pushes are numbered from 1 without gaps and never expire; the last 64 receipts are kept whole.
An anonymous push may carry an Idempotency-Key instead, remembered for the next 10,000 entries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

from gradledger_server.errors import SequenceReused

RECEIPTS_KEPT = 64
# The store forgets a key after 10,000 entries; an answer on its way may ask for the receipt a little later.
KEYS_KEPT_ENTRIES = 11_000
KEYS_SURE_ENTRIES = 9_000  # so long the store knows a key for certain, whatever is on its way to the log


class Receipt(NamedTuple):
    """The fate of one push: "applied" and the step it made, or "accumulated" for one to come.

    `lr` is the model's own; groups may use another. `grad_norm` is the push's, before clipping; `clip_factor`
    is what clipping by global norm did to it, or to the mean of the pushes it completed.
    """

    fate: str
    step: int
    offset: int
    base: int | None
    staleness: int | None
    lr: float | None
    clip_factor: float | None
    grad_norm: float | None
    durability: str | None
    worker: str | None
    sequence: int | None
    round: int | None = None  # the number of the round it counted in, if it counted with others
    zeroed: int = 0  # how many of its numbers were not finite and count as 0

    @classmethod
    def repeated(cls, worker: str | None, sequence: int) -> Receipt:
        """What is left to say of a push whose receipt is not kept any more."""
        return cls("repeated", 0, 0, None, None, None, None, None, None, worker, sequence)


class Named(Protocol):
    """What an entry says of who named it."""

    @property
    def worker(self) -> str | None: ...
    @property
    def key(self) -> str | None: ...


def identity_of(entry: Named) -> str | None:
    """Who names the entry: its worker, its key, or nobody."""
    if entry.worker is not None:
        return f"w:{entry.worker}"
    return None if entry.key is None else f"k:{entry.key}"


class Kind(Protocol):
    """A receipt of whatever is told apart by (worker, sequence) or key."""

    @property
    def offset(self) -> int: ...
    @property
    def sequence(self) -> int | None: ...
    def __iter__(self) -> Iterator[Any]: ...
    @classmethod
    def repeated(cls, worker: str | None, sequence: int) -> Self: ...


R = TypeVar("R", bound=Kind)


@dataclass(slots=True)
class Pushes(Generic[R]):
    """One identity's pushes: the last sequence and the latest receipts with their bodies' digests."""

    last: int = 0
    offset: int = 0
    kept: deque[tuple[str, R]] = field(default_factory=lambda: deque(maxlen=RECEIPTS_KEPT))


class Table(Generic[R]):
    """All identities of a model. Workers and keys have names of their own: "w:…" and "k:…"."""

    kind: type[R]

    def __init__(self) -> None:
        self._workers: dict[str, Pushes[R]] = {}
        self._keys: dict[str, Pushes[R]] = {}
        self._offset = 0  # up to which keys were forgotten

    def record(self, identity: str, digest: str, receipt: R) -> None:
        """Notes an applied push."""
        if identity.startswith("w:"):
            pushes = self._workers.get(identity) or Pushes()
            self._workers[identity] = pushes
        else:
            self._keys.pop(identity, None)  # a key used anew is the youngest again
            pushes = self._keys[identity] = Pushes()
        pushes.last = receipt.sequence or 1
        pushes.offset = receipt.offset
        pushes.kept.append((digest, receipt))

    def find(self, identity: str, sequence: int, digest: str) -> R | None:
        """The receipt of a push made before, a bare "repeated" if it is older than those kept, else None.

        Raises SequenceReused if the push had another body.
        """
        pushes = self._workers.get(identity) or self._keys.get(identity)
        if pushes is None or sequence > pushes.last:
            return None
        behind = pushes.last - sequence
        if behind >= len(pushes.kept):
            name = identity[2:] if identity.startswith("w:") else None
            return self.kind.repeated(name, sequence)
        known, receipt = pushes.kept[-1 - behind]
        if known != digest:
            who, name = ("worker", f"sequence {sequence} of worker {identity[2:]!r}")
            if identity.startswith("k:"):
                who, name = ("key", f"Idempotency-Key {identity[2:]!r}")
            raise SequenceReused(
                f"{name} was used for another body", got=digest, expected=known, **{who: identity[2:]}
            )
        return receipt

    def knows(self, identity: str, sequence: int) -> bool:
        """Whether the store will know this push again. A key it may have forgotten names a new one."""
        pushes = self._workers.get(identity) or self._keys.get(identity)
        if pushes is None or sequence > pushes.last:
            return False
        return identity in self._workers or self._offset < pushes.offset + KEYS_SURE_ENTRIES

    def kept(self, identity: str, sequence: int) -> R | None:
        """The receipt of this sequence, if it is among those kept whole."""
        pushes = self._workers.get(identity)
        behind = -1 if pushes is None else pushes.last - sequence
        return pushes.kept[-1 - behind][1] if pushes and 0 <= behind < len(pushes.kept) else None

    def last(self, identity: str) -> int:
        """The last sequence of a worker; 0 before its first."""
        pushes = self._workers.get(identity)
        return 0 if pushes is None else pushes.last

    def workers(self) -> Iterator[tuple[str, int, R]]:
        """Each worker with its last sequence and that push's receipt, by name."""
        for identity, pushes in sorted(self._workers.items()):
            yield identity[2:], pushes.last, pushes.kept[-1][1]

    def dump(self) -> list[Any]:
        """As JSON, for a snapshot: [[identity, last, offset, [[digest, receipt] …]] …]."""
        return [
            [
                identity,
                pushes.last,
                pushes.offset,
                [[digest, list(receipt)] for digest, receipt in pushes.kept],
            ]
            for table in (self._workers, self._keys)
            for identity, pushes in table.items()
        ]

    @classmethod
    def load(cls, dumped: list[Any]) -> Self:
        receipts = cls()
        for identity, last, offset, kept in dumped:
            table = receipts._workers if identity.startswith("w:") else receipts._keys
            pushes = table[identity] = Pushes(last, offset)
            pushes.kept.extend((digest, cls.kind(*fields)) for digest, fields in kept)
        return receipts

    def forget(self, offset: int) -> None:
        """Drops the keys that an entry behind `offset` may use anew, some time after the store did."""
        self._offset = offset
        # Keys enter in the order of their offsets, so the oldest is always the first.
        while self._keys:
            identity, pushes = next(iter(self._keys.items()))
            if pushes.offset + KEYS_KEPT_ENTRIES > offset:
                return
            del self._keys[identity]


class Receipts(Table[Receipt]):
    """What became of each push."""

    kind = Receipt

    def note(self, identity: str, digest: str, receipt: Receipt) -> None:
        """Notes a push, or what became of one that was noted as waiting, if that is still kept."""
        pushes = self._workers.get(identity) or self._keys.get(identity)
        if pushes is None or receipt.offset > pushes.offset:
            self.record(identity, digest, receipt)
            return
        for index, (_, known) in enumerate(pushes.kept):
            if known.offset == receipt.offset:
                pushes.kept[index] = digest, receipt
