"""Which pushes make the next step: those that wait, in the order of the log, and the question who is due.

    hold(push)          it waits, if only for a moment
    due()               the pushes that make the next step together, or none
    close(reason)       the round waits no longer for who is missing
    deadline()          when somebody should say so

Nothing here knows gradients or reads a clock: times are those written in entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from gradledger_server.machine.sync.members import Members
from gradledger_server.machine.sync.policy import Policy


@dataclass(frozen=True, slots=True)
class Held:
    """A push that waits, by its offset in the log."""

    offset: int
    worker: str
    sequence: int
    base: int | None
    weight: float
    at_ms: int


class Rounds:
    """`number` counts the rounds that are over. `waiting` is in the order of the log."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.members = Members()
        self.number = 0
        self.waiting: list[Held] = []
        self.closing = False  # the grace window is over: a quorum is enough, or the absent are given up
        self._coming = policy

    def configure(self, policy: Policy) -> None:
        """Another policy from the round's edge on, which is now if nobody waits."""
        self._coming = policy
        if not self.waiting:
            self._edge()

    def join(self, worker: str, at_ms: int) -> None:
        """A worker becomes a member at the round's edge, which is now if nobody waits.

        It has its place at once if it comes back while its gradient waits, for then the round has begun with
        it; and if it is one of a fixed number, for then the round waits for it already.
        """
        waits = any(push.worker == worker for push in self.waiting)
        expected = self.policy.workers is not None and len(self.members.present) < self.policy.workers
        self.members.join(worker, at_ms, at_edge=not self.waiting or waits or expected)

    def hold(self, push: Held) -> None:
        """A push arrives. With a fixed number of workers its sender is a member by sending it."""
        if self.policy.workers is not None:
            self.members.join(push.worker, push.at_ms, at_edge=True)
        self.members.see(push.worker, push.at_ms)
        self.waiting.append(push)

    def is_ahead(self, worker: str) -> bool:
        """Whether a push of this worker waits and it may not send another one before that is settled."""
        return self.policy.slack is not None and any(push.worker == worker for push in self.waiting)

    def has_room(self, worker: str) -> bool:
        """Whether a push of the worker can be waited for: it is a member, or becomes one by pushing."""
        if self.policy.slack is None or worker in self.members:
            return True
        return self.policy.workers is not None and len(self.members.present) < self.policy.workers

    def due(self) -> Sequence[Held]:
        """The pushes that make the next step, in the order in which they are added up; empty if none do."""
        if self.policy.take == 1:
            return self._within_slack()
        if not self.policy.in_rounds:
            assert isinstance(self.policy.take, int)
            taken = self.waiting[: self.policy.take]
            return _in_order(taken) if len(taken) == self.policy.take else ()
        return self._whole_round()

    def settle(self, pushes: Sequence[Held]) -> None:
        """These pushes are over and done with, and so is the round."""
        settled = {push.offset for push in pushes}
        self.waiting = [push for push in self.waiting if push.offset not in settled]
        for push in pushes:
            if (member := self.members.present.get(push.worker)) is not None:
                member.clock += 1
        if self.policy.take != 1:
            self.number += 1
        self._edge()

    def close(self, number: int) -> None:
        """The round waits no longer; nothing happens if it is over already."""
        if number == self.number and self.waiting:
            self.closing = True

    @property
    def size(self) -> int:
        """How many gradients a full round has."""
        if self.policy.workers is None:
            return len(self.members.present)
        # Another worker may have taken the place of one that is gone.
        return max(len(self.members.present), self.policy.workers - len(self.members.gone))

    def deadline_ms(self) -> int | None:
        """When the open round should be closed, if nothing happens before; None if it may stay open."""
        if self.policy.slack is None or not self.waiting or self.closing:
            return None
        deadlines = []
        if self._lacks_somebody:  # whoever never came has no lease that could run out
            deadlines.append(self.waiting[0].at_ms + self.policy.lease_ms)
        if self.has_quorum:
            arrivals = sorted(push.at_ms for push in self._first_of_each())
            deadlines.append(arrivals[(self.policy.quorum or 1) - 1] + (self.policy.grace_ms or 0))
        return min(deadlines, default=None)

    @property
    def has_quorum(self) -> bool:
        """Whether so many have given that only the grace window keeps the round open."""
        return self.policy.quorum is not None and len(self._first_of_each()) >= self.policy.quorum

    def dump(self) -> dict[str, Any]:
        """As JSON, for a snapshot."""
        waiting = [list(astuple(push)) for push in self.waiting]
        return {
            "number": self.number,
            "closing": self.closing,
            "waiting": waiting,
            "members": self.members.dump(),
            "policy": asdict(self.policy),
        }

    @classmethod
    def load(cls, coming: Policy, dumped: dict[str, Any]) -> Rounds:
        """The rounds dumped; `coming` is the spec's policy, which is the present one after the next edge."""
        rounds = cls(Policy.read(dumped["policy"]))
        rounds._coming = coming
        rounds.number, rounds.closing = dumped["number"], dumped["closing"]
        rounds.waiting = [Held(*facts) for facts in dumped["waiting"]]
        rounds.members = Members.load(dumped["members"])
        return rounds

    def _edge(self) -> None:
        self.closing = False
        if self._coming.workers != self.policy.workers:
            self.members.gone.clear()  # they were missing from another number
        self.policy = self._coming
        self.members.edge()

    def _within_slack(self) -> Sequence[Held]:
        for push in self.waiting:
            if self._lead(push.worker) <= (self.policy.slack or 0) or self.policy.slack is None:
                return (push,)
        return ()

    def _lead(self, worker: str) -> int:
        """How many pushes a worker is ahead of the slowest; those who never came have made none."""
        member = self.members.present.get(worker)
        if member is None:  # it left after pushing: nobody is held back by it
            return 0
        missing = self._lacks_somebody and not self.closing
        return member.clock - (0 if missing else self.members.slowest)

    @property
    def _lacks_somebody(self) -> bool:
        """Whether one of a fixed number has never come."""
        return self.policy.workers is not None and len(self.members.present) < self.size

    def _whole_round(self) -> Sequence[Held]:
        given, size = self._first_of_each(), self.size
        # Who has left still counts with what it gave, but the others are waited for all the same.
        live = sum(push.worker in self.members.present for push in given)
        wanted = min(self.policy.take, size) if isinstance(self.policy.take, int) else size
        return _in_order(given) if given and (live >= wanted or self.closing) else ()

    def _first_of_each(self) -> list[Held]:
        """The round so far: the first push of each worker, but of those who are still joining."""
        first: dict[str, Held] = {}
        for push in self.waiting:
            if push.worker not in self.members.joining:
                first.setdefault(push.worker, push)
        return list(first.values())


def _in_order(pushes: Sequence[Held]) -> list[Held]:
    """By worker and sequence, so that a sum does not depend on who came first."""
    return sorted(pushes, key=lambda push: (push.worker, push.sequence))
