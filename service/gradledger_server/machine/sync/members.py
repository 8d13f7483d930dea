"""Who takes part: members by lease, or a fixed number of workers whoever they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Member:
    """One worker. `clock` counts its gradients that are over and done with, on the scale of the others'."""

    clock: int
    seen_at_ms: int  # the time in its latest entry: its lease runs from here


class Members:
    """The members of a model, and those who join once the round is over."""

    def __init__(self) -> None:
        self.present: dict[str, Member] = {}
        self.joining: dict[str, Member] = {}
        self.gone: set[str] = set()  # who left or let the lease run out, and has not come back

    def __contains__(self, worker: object) -> bool:
        return worker in self.present or worker in self.joining

    @property
    def anybody(self) -> bool:
        """Whether there are any."""
        return bool(self.present or self.joining)

    def see(self, worker: str, at_ms: int) -> None:
        """A sign of life."""
        member = self.present.get(worker) or self.joining.get(worker)
        if member is not None:
            member.seen_at_ms = max(member.seen_at_ms, at_ms)

    def join(self, worker: str, at_ms: int, *, at_edge: bool) -> None:
        """A worker joins: now if a round has just begun, else when the next one does."""
        self.gone.discard(worker)
        if worker in self:
            self.see(worker, at_ms)
            return
        (self.present if at_edge else self.joining)[worker] = Member(self.slowest, at_ms)

    def leave(self, worker: str) -> None:
        """Nobody waits for this worker any more."""
        if self.present.pop(worker, None) or self.joining.pop(worker, None):
            self.gone.add(worker)

    def edge(self) -> None:
        """A round ends: who was joining is a member of the next."""
        for member in self.joining.values():
            member.clock = self.slowest
        self.present |= self.joining
        self.joining.clear()

    @property
    def slowest(self) -> int:
        """The clock of the member furthest behind."""
        return min((member.clock for member in self.present.values()), default=0)

    def silent(self, now_ms: int, lease_ms: int) -> list[str]:
        """Whose lease has run out."""
        everyone = self.present | self.joining
        return sorted(name for name, member in everyone.items() if member.seen_at_ms + lease_ms < now_ms)

    def next_silence_ms(self, lease_ms: int) -> int | None:
        """When the next lease runs out."""
        if not self.anybody:
            return None
        everyone = (self.present | self.joining).values()
        return min((member.seen_at_ms + lease_ms + 1 for member in everyone), default=None)

    def dump(self) -> dict[str, Any]:
        """As JSON, for a snapshot."""
        return {
            "present": {name: [m.clock, m.seen_at_ms] for name, m in self.present.items()},
            "joining": {name: [m.clock, m.seen_at_ms] for name, m in self.joining.items()},
            "gone": sorted(self.gone),
        }

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> Members:
        members = cls()
        members.present = {name: Member(*facts) for name, facts in dumped["present"].items()}
        members.joining = {name: Member(*facts) for name, facts in dumped["joining"].items()}
        members.gone = set(dumped["gone"])
        return members
