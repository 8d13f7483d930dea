"""A model's log, played into its state: start-up, catching up with others and live traffic are one loop.

saved  <=  applied  <=  appended (the log's end, which other replicas may move at any time)
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Create, Entry, Logged, chained
from gradledger_server.errors import ModelNotFound, ModelQuarantined
from gradledger_server.kernels.device import Device
from gradledger_server.machine import image
from gradledger_server.machine.apply import apply, begin
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipt
from gradledger_server.replica import events
from gradledger_server.replica.draft import Draft
from gradledger_server.store.contract import Head, Store, Trimmed
from gradledger_server.wire import records, safetensors

Own = Mapping[int, tuple[Logged, Draft]]  # what this replica just appended, by offset


ATTEMPTS = 10  # to load a snapshot while other replicas publish newer ones
BROKEN = "broken"  # no log has this chain


class Diverged(Exception):
    """The log is not the one this state was played from: the server was rolled back."""


class Playback:
    """The state at offset `applied`, whose log has the chain `chain`.

    `unsaved_bytes` and `unsaved_entries` count what was played since the snapshot at `saved`; `receipts`
    holds those of the pushes played since somebody emptied it, by chain; `ring` what happened lately.
    `settled` counts the pushes seen to get their last fate, `heard` the entries that came from the log, not
    from here. One thread at a time.
    """

    def __init__(self, name: str, epoch: str, store: Store, device: Device, blocks: Blocks) -> None:
        self.name, self.epoch = name, epoch
        self._store, self._device, self._blocks = store, device, blocks
        self.receipts: dict[str, Receipt] = {}
        self.ring = events.Ring()
        self.model: Model
        self.applied = self.saved = self.unsaved_entries = self.unsaved_bytes = 0
        self.settled = self.heard = 0
        self.chain = ""
        self._replay()

    def load(self) -> None:
        """The state of the latest snapshot, or of the first entry. Raises ModelNotFound."""
        snapshot = self._store.load(self.epoch)
        if snapshot is None:
            first = self._first()
            created = self._create_in(first)
            self.model = begin(created, self._device, self._blocks)
            self.applied, self.chain, self.saved = first.offset, first.chain, 0
            self.ring.begin(0)
            self._tell(first.offset, created, events.Before({}, member=False))
        else:
            (body,) = snapshot.parts
            tensors = safetensors.decode(body, safetensors.OWN)
            self.model = image.restore(records.from_json(snapshot.meta), tensors, self._device, self._blocks)
            self.model.receipts.forget(snapshot.offset - 1)  # as the entry there did
            self.applied, self.chain, self.saved = snapshot.offset, snapshot.chain, snapshot.offset
            self.ring.begin(snapshot.offset)
        self.unsaved_entries = self.unsaved_bytes = 0

    def catch_up(self) -> None:
        """Plays what other replicas have appended. Raises ModelNotFound if the model was deleted."""
        head = self._head()
        if head.chain != self.chain:
            self.play(head.offset)
        self.note_saved(head.saved)

    def note_saved(self, offset: int) -> None:
        """A snapshot at `offset` is published, by whomever."""
        if self.saved < offset <= self.applied:
            self.saved = offset
            self.unsaved_bytes = self.unsaved_bytes * (self.applied - offset) // max(self.unsaved_entries, 1)
            self.unsaved_entries = self.applied - offset
            self.ring.saved(offset)

    def read_again(self, after: int) -> list[Logged]:
        """What the log still holds behind `after`, without payloads; nothing if a snapshot holds it."""
        with contextlib.suppress(Trimmed):
            return self._store.read(self.epoch, max(after, self.saved), payloads=False)
        return []

    @property
    def broken(self) -> bool:
        """Whether the state is none, and whoever asks next plays it anew."""
        return self.chain == BROKEN

    def give_up(self) -> None:
        """The state may be of no log: it is played anew."""
        self.chain = BROKEN

    def play_ahead(self, logged: Logged, draft: Draft) -> Receipt:
        """Applies a push that will be the next entry, with the chain that it will have."""
        receipt = self._advance(logged, draft)
        assert receipt is not None
        return receipt

    def play(self, upto: int, own: Own | None = None) -> None:
        """Applies the log up to `upto`; entries of our own need not be read back."""
        try:
            if self.applied >= upto:  # as long as the log or longer, and yet another one
                raise Diverged
            self._step_through(upto, own or {})
        except (Diverged, Trimmed):
            self._replay()

    def _replay(self) -> None:
        """Everything anew, from the latest snapshot; once more if another replica saves one meanwhile."""
        for _ in range(ATTEMPTS):
            with contextlib.suppress(Diverged, Trimmed):
                self.load()
                self._step_through(self._head().offset, {})
                return
        raise ModelQuarantined(f"the log of model {self.name!r} cannot be followed: it is never what it was")

    def _step_through(self, upto: int, own: Own) -> None:
        while self.applied < upto:
            if (mine := own.get(self.applied + 1)) is not None:
                self._apply(*mine)
                continue
            entries = self._store.read(self.epoch, self.applied)
            if not entries:
                raise Diverged
            self.heard += len(entries)
            for logged in entries:
                self._apply(logged)

    def _apply(self, logged: Logged, draft: Draft | None = None) -> None:
        if logged.offset != self.applied + 1 or logged.chain != chained(self.chain, logged.record):
            raise Diverged
        receipt = self._advance(logged, draft)
        if receipt is not None:
            self.receipts[logged.chain] = receipt

    def _advance(self, logged: Logged, draft: Draft | None) -> Receipt | None:
        try:
            entry = draft.push if draft else records.from_record(logged.record)
            was = events.before(self.model, entry)
            if draft:
                draft.laps.end("queue")  # behind those of the same commit
            receipt = apply(self.model, logged.offset, entry, draft.gradient if draft else None)
            if draft:
                draft.laps.end("apply")
            self._tell(logged.offset, entry, was)
        except Exception as broken:
            self.give_up()  # the state may be half of two
            raise ModelQuarantined(
                f"entry {logged.offset} of model {self.name!r} cannot be applied: {broken}"
            ) from broken
        for fate in self.model.fates.values():
            self.settled += fate.fate != "waiting"
        self.applied, self.chain = logged.offset, logged.chain
        self.unsaved_entries += 1
        self.unsaved_bytes += len(logged.record.meta) + len(logged.record.payload)
        return receipt

    def _tell(self, offset: int, entry: Entry, was: events.Before) -> None:
        for event in events.told(self.model, offset, entry, was):
            self.ring.add(event)

    def _first(self) -> Logged:
        entries = self._store.read(self.epoch, 0, limit_bytes=1)
        if not entries:
            raise ModelNotFound(f"model {self.name!r} was deleted")
        return entries[0]

    def _create_in(self, first: Logged) -> Create:
        entry = records.from_record(first.record)
        if not isinstance(entry, Create):
            raise ModelQuarantined(f"the log of model {self.name!r} begins with {type(entry).__name__}")
        return entry

    def _head(self) -> Head:
        head = self._store.head(self.epoch)
        if head is None:
            raise ModelNotFound(f"model {self.name!r} was deleted")
        return head
