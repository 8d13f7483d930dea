"""What happened to a model, for whoever watches: events, and a bounded ring of the latest.

    create upload configure delete      the model itself
    step                                one update: its gradients, each with its fate and staleness
    round                               a round is over: its number, the step it made, why it closed
    waiting accumulated late rejected   a gradient that made no step (yet)
    join leave timeout                  who takes part, and what a clock said
    metric                              what a client measured
    snapshot                            the state became durable; the log before it may be gone
    reset                               what was asked for is held no more; from here on it is whole again

Events are told as the log is played, by every replica alike. A snapshot is no entry: it stands aside, and
nobody resumes there.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gradledger_server.entries import (
    Close,
    Configure,
    Create,
    Entry,
    Join,
    Leave,
    Metric,
    Push,
    Quarantine,
    Upload,
)
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipt

HELD = 8192  # events and gradients named in them, together
GRADIENTS_NAMED = 1024  # in one event; a round may have more

NOTHING: Mapping[str, Any] = {}
Happened = tuple[str, Mapping[str, Any], tuple[Receipt, ...]]
_ID = re.compile(r"([0-9]{1,16})(?:\.([0-9]{1,6}))?")


class Place(NamedTuple):
    """Where an event stands. `ahead` is minus the number of events that its entry has behind it, so whoever
    has seen (offset, 0) has seen the whole entry."""

    offset: int
    ahead: int = 0
    aside: int = 0  # counts what happened there and is no entry

    @property
    def id(self) -> str:
        """ "17", or "17.2" for an event with two more of the same entry behind it."""
        return f"{self.offset}.{-self.ahead}" if self.ahead else str(self.offset)

    @classmethod
    def read(cls, text: str) -> Place | None:
        """What `id` wrote; None if this is none."""
        found = _ID.fullmatch(text)
        return cls(int(found[1]), -int(found[2] or 0)) if found else None


class Event(NamedTuple):
    """One thing that happened. What it says is put into words only when somebody listens."""

    kind: str
    place: Place
    at_ms: int | None
    facts: Mapping[str, Any] = NOTHING
    receipts: tuple[Receipt, ...] = ()

    def told(self) -> dict[str, Any]:
        """As JSON."""
        told = {"offset": self.place.offset, "at_ms": self.at_ms, **self.facts}
        if self.kind == "step":
            first = self.receipts[0]
            told |= {
                "step": first.step,
                "lr": first.lr,
                "clip_factor": first.clip_factor,
                "round": first.round,
            }
            told["gradients"] = [_gradient(receipt) for receipt in self.receipts[:GRADIENTS_NAMED]]
        elif self.receipts:
            told |= _gradient(self.receipts[0])
        return told


@dataclass(frozen=True, slots=True)
class News:
    """Events behind some place; `lost` if there were others, which are held no more."""

    events: list[Event]
    until: Place
    lost: bool
    step: int


class Ring:
    """The latest events, in order. Whatever came behind `floor` is held."""

    def __init__(self, most: int = HELD) -> None:
        self._most = most
        self._events: deque[Event] = deque()
        self._weight = 0
        self.floor = self.end = Place(0)

    def begin(self, offset: int) -> None:
        """The log is played from behind this offset on; nothing is known of before."""
        self._events.clear()
        self._weight = 0
        self.floor = self.end = Place(offset)

    def add(self, event: Event) -> None:
        """The oldest make room."""
        self._events.append(event)
        self._weight += 1 + len(event.receipts)
        self.end = event.place
        while self._weight > self._most and len(self._events) > 1:
            oldest = self._events.popleft()
            self._weight -= 1 + len(oldest.receipts)
            self.floor = oldest.place

    def saved(self, offset: int) -> None:
        """A snapshot at this offset was published."""
        here = self.end._replace(aside=self.end.aside + 1)
        self.add(Event("snapshot", here, None, {"saved_offset": offset}))

    def after(self, place: Place, most: int) -> tuple[list[Event], bool]:
        """The first events behind a place, and whether some are missing there: they are held no more, or the
        log was longer once."""
        if place < self.floor or place.offset > self.end.offset:
            return [], True
        behind = itertools.takewhile(lambda event: event.place > place, reversed(self._events))
        return list(behind)[::-1][:most], False


class Before(NamedTuple):
    """What has to be known from before an entry to tell what it did."""

    spec: Mapping[str, Any]
    member: bool
    quarantined: bool = False


def before(model: Model, entry: Entry) -> Before:
    """To be asked for before the entry is applied."""
    worker = getattr(entry, "worker", None)
    return Before(model.spec.json, worker in model.rounds.members, worker in model.guard.quarantined)


def told(model: Model, offset: int, entry: Entry, was: Before) -> Iterator[Event]:
    """What the entry at `offset`, which the model has just applied, did."""
    if isinstance(entry, Push) and len(model.fates) == 1:  # nearly always, and soon said
        ((_, receipt),) = model.fates.items()
        if receipt.fate == "applied" and was.member == (entry.worker in model.rounds.members):
            yield Event("step", Place(offset), entry.at_ms, NOTHING, (receipt,))
            return
    happened = [*_itself(model, entry, was), *_fates(model, entry), *_quarantine(model, entry, was)]
    for number, (kind, facts, receipts) in enumerate(happened, 1 - len(happened)):
        yield Event(kind, Place(offset, number), entry.at_ms, facts, receipts)


def _fates(model: Model, entry: Entry) -> Iterator[Happened]:
    steps: dict[int, list[Receipt]] = {}
    for receipt in model.fates.values():
        if receipt.lr is None:  # it made no step
            yield receipt.fate, NOTHING, (receipt,)
        else:
            steps.setdefault(receipt.step, []).append(receipt)
    for step, receipts in sorted(steps.items()):
        first = receipts[0]
        yield "step", NOTHING, tuple(receipts)
        if first.round is not None:
            yield "round", _round(first.round, step, receipts, entry), ()
        for receipt in receipts:
            if receipt.fate == "rejected":
                yield "rejected", {"round": receipt.round}, (receipt,)


def _quarantine(model: Model, entry: Entry, was: Before) -> Iterator[Happened]:
    """A worker is put into quarantine or let out, by somebody or by a guard rail."""
    if isinstance(entry, Push | Quarantine) and was.quarantined != (entry.worker in model.guard.quarantined):
        by = "strikes" if isinstance(entry, Push) else "request"
        yield "release" if was.quarantined else "quarantine", {"worker": entry.worker, "by": by}, ()
        if was.member and not was.quarantined:
            yield "leave", {"worker": entry.worker, "reason": "quarantine"}, ()


def _itself(model: Model, entry: Entry, was: Before) -> Iterator[Happened]:
    match entry:
        case Create():
            yield "create", {"step": model.step}, ()
        case Upload():
            yield "upload", {"step": model.step}, ()
        case Configure():
            after = model.spec.json
            yield "configure", {"changed": {k: v for k, v in after.items() if v != was.spec.get(k)}}, ()
        case Metric():
            yield "metric", {"value": entry.value, "worker": entry.worker, "lr": model.lr}, ()
        case Close():
            yield "timeout", {"round": entry.round, "reason": entry.reason}, ()
        case Leave() if was.member:
            yield "leave", {"worker": entry.worker, "reason": entry.reason}, ()
        case Join() | Push() if not was.member and entry.worker in model.rounds.members:
            yield "join", {"worker": entry.worker}, ()  # a member's renewal is no news


def _round(number: int, step: int, receipts: Iterable[Receipt], entry: Entry) -> dict[str, Any]:
    fates = [receipt.fate for receipt in receipts]
    return {
        "round": number,
        "step": step,
        "merged": fates.count("merged"),
        "rejected": fates.count("rejected"),
        "closed": entry.reason if isinstance(entry, Close | Leave) else "full",
    }


_OF_A_GRADIENT = ("worker", "sequence", "fate", "base", "staleness", "grad_norm")


def _gradient(receipt: Receipt) -> dict[str, Any]:
    facts = receipt._asdict()
    return {name: facts[name] for name in _OF_A_GRADIENT}
