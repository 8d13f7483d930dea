"""A replica without HTTP, threads and bytes: a model of its own, played from the log as far as it got."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Close, Create, Entry, Leave, Push
from gradledger_server.errors import GradledgerError
from gradledger_server.machine import arrivals, image
from gradledger_server.machine.apply import apply, begin
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipt, identity_of
from gradledger_server.store.contract import Gap
from gradledger_server.wire import records, safetensors
from tests.machine.bodies import NUMPY
from tests.simulation.log import Log


class Glance(NamedTuple):
    """What is compared after every entry."""

    step: int
    round: int
    closing: bool
    waiting: tuple[int, ...]
    members: tuple[str, ...]
    weights: tuple[bytes, ...]


class Replica:
    """`ahead_ms` is how far its clock is ahead of the world's. It may lag behind the log until it appends."""

    def __init__(self, name: str, log: Log, ahead_ms: int = 0) -> None:
        self.name, self.log, self.ahead_ms = name, log, ahead_ms
        self.seen: list[Callable[[Replica], None]] = []  # told after every entry played
        self.begin()

    def begin(self) -> None:
        """From the first entry, as a replica that holds nothing."""
        first = self.log.entries[0]
        assert isinstance(first, Create)
        self.model, self.applied = begin(first, NUMPY, Blocks()), 1

    def catch_up(self, upto: int | None = None) -> None:
        """Plays the log to its end, or as far as `upto`."""
        while self.applied < (self.log.end if upto is None else min(upto, self.log.end)):
            entry = self.log.entries[self.applied]
            apply(self.model, self.applied + 1, entry)
            self.applied += 1
            for tell in self.seen:
                tell(self)

    def push(self, push: Push, now_ms: int) -> Receipt | GradledgerError | Gap:
        """As the service does it: objections by what the replica knows, the log's word, the receipt."""
        push = push._replace(at_ms=now_ms + self.ahead_ms)
        if (push.base or 0) > self.model.step or arrivals.objection(self.model, push) is not None:
            self.catch_up()  # the worker has been at a replica that knows more
        if (objection := arrivals.objection(self.model, push)) is not None:
            return objection
        outcome = self.log.append(push)
        self.catch_up()
        if isinstance(outcome, Gap):
            return outcome
        found = self.model.receipts.find(identity_of(push) or "", push.sequence or 1, push.digest)
        assert found is not None, f"the log knows {push.worker} {push.sequence}, and the state does not"
        return found

    def enter(self, choose: Callable[[Model, int], Entry], now_ms: int) -> Entry:
        """Appends what `choose` makes of the state at the log's end."""
        self.catch_up()
        entry = choose(self.model, now_ms + self.ahead_ms)
        assert self.log.append(entry, expected=self.applied) == self.log.end
        self.catch_up()
        return entry

    def overdue(self, now_ms: int) -> Leave | Close | None:
        """What its clock owes the log, by what it knows."""
        return arrivals.overdue(self.model, now_ms + self.ahead_ms)

    def restart(self) -> None:
        """Its memory goes through a snapshot."""
        before, self.model = state(self.model), restored(self.model)
        assert state(self.model) == before, "a snapshot changes the state"


def restored(model: Model) -> Model:
    """The model as a snapshot brings it back."""
    taken = image.copy(model)
    joined = b"".join([safetensors.header(taken.tensors), *(part.tobytes() for part in taken.parts)])
    facts = json.loads(json.dumps(taken.facts))
    return image.restore(facts, safetensors.decode(memoryview(joined), safetensors.OWN), NUMPY, Blocks())


def replayed(log: Log) -> Model:
    """The model from scratch, by way of the records that a store would keep."""
    first, *others = [records.from_record(records.to_record(entry)) for entry in log.entries]
    assert isinstance(first, Create)
    model = begin(first, NUMPY, Blocks())
    for offset, entry in enumerate(others, 2):
        apply(model, offset, entry)
    return model


def state(model: Model) -> tuple[str, list[bytes]]:
    """Everything there is, bit for bit."""
    taken = image.copy(model)
    return json.dumps(taken.facts, sort_keys=True), [part.tobytes() for part in taken.parts]


def glance(model: Model) -> Glance:
    """The model as it stands."""
    rounds = model.rounds
    waiting = tuple(push.offset for push in rounds.waiting)
    weights = tuple(arena.tobytes() for arena in model.weights.arenas)
    members = tuple(rounds.members.present)
    return Glance(model.step, rounds.number, rounds.closing, waiting, members, weights)
