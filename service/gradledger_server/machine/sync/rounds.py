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
from gradledger_server.machine.sync.pace import Pace
from gradledger_server.machine.sync.policy import ADAPTIVE, Policy


@dataclass(frozen=True, slots=True)
class Held:
    """A push that waits, by its offset in the log.

    `left_out` is the fate of one that a guard rail leaves out: its worker has given what it had, so nobody
    waits for it any longer, but it makes no step.
    """

    offset: int
    worker: str
    sequence: int
    base: int | None
    weight: float
    at_ms: int
    left_out: str | None = None


class Rounds:
    """`number` counts the rounds that are over; the open one began at `began_ms`, when the last one ended, or
    with its first push. `waiting` is in the order of the log.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.members = Members()
        self.number = 0
        self.began_ms: int | None = None
        self.waiting: list[Held] = []
        self.closing = False  # the grace window is over: a quorum is enough, or the absent are given up
        self._coming = policy
        self._pace = Pace()

    def configure(self, policy: Policy, at_ms: int) -> None:
        """Another policy from the round's edge on, which is now if nobody waits."""
        self._coming = policy
        if not self.waiting:
            self._edge(at_ms)

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
        self.see(push.worker, push.at_ms)
        if self.began_ms is None:
            self.began_ms = push.at_ms
        self.waiting.append(push)

    def see(self, worker: str, at_ms: int) -> None:
        """A worker has pushed, whatever becomes of it."""
        self.members.see(worker, at_ms)
        self._pace.hear(worker, at_ms)

    def leave(self, worker: str) -> None:
        """Nobody waits for this worker any more."""
        self.members.leave(worker)
        self._pace.forget(worker)

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
            counting = [push for push in self.waiting if push.left_out is None][: self.policy.take]
            if len(counting) < self.policy.take:
                return ()
            # Another mode may have left over some that are left out: they go with the next step.
            return _in_order([push for push in self.waiting if push.offset <= counting[-1].offset])
        return self._whole_round()

    def settle(self, pushes: Sequence[Held], at_ms: int) -> None:
        """These pushes are over and done with, and so is the round."""
        if self.policy.grace_ms == ADAPTIVE and self.policy.quorum is not None:
            arrivals = {push.worker: push.at_ms for push in pushes if push.left_out is None}
            self._pace.lap(
                self.number, self.began_ms or 0, arrivals, list(self.members.present), self.policy.quorum
            )
        settled = {push.offset for push in pushes}
        self.waiting = [push for push in self.waiting if push.offset not in settled]
        for push in pushes:
            if (member := self.members.present.get(push.worker)) is not None:
                member.clock += 1
        if self.policy.take != 1:
            self.number += 1
        self._edge(at_ms)

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

    def deadline(self) -> tuple[int, str] | None:
        """When the open round should be closed, in ms, if nothing happens before, and what is over then: the
        "grace" window or a "lease"; None if it may stay open.
        """
        if self.policy.slack is None or not self.waiting or self.closing:
            return None
        deadlines = []
        if self._lacks_somebody:  # whoever never came has no lease that could run out
            deadlines.append((self._arrived_ms(self.waiting[0]) + self.policy.lease_ms, "lease"))
        if self.has_quorum:
            arrivals = sorted(self._arrived_ms(push) for push in self._counting())
            deadlines.append((arrivals[(self.policy.quorum or 1) - 1] + self.grace_ms, "grace"))
        return min(deadlines, default=None)

    @property
    def grace_ms(self) -> int:
        """How long the open round stays open once its quorum is there."""
        if self.policy.grace_ms == ADAPTIVE:
            return self._pace.window_ms(self.policy.lease_ms)
        return int(self.policy.grace_ms or 0)

    @property
    def has_quorum(self) -> bool:
        """Whether so many have given that only the grace window keeps the round open."""
        return self.policy.quorum is not None and len(self._counting()) >= self.policy.quorum

    def dump(self) -> dict[str, Any]:
        """As JSON, for a snapshot."""
        waiting = [list(astuple(push)) for push in self.waiting]
        return {
            "number": self.number,
            "began_ms": self.began_ms,
            "pace": self._pace.dump(),
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
        rounds.began_ms, rounds._pace = dumped["began_ms"], Pace.load(dumped["pace"])
        rounds.waiting = [Held(*facts) for facts in dumped["waiting"]]
        rounds.members = Members.load(dumped["members"])
        return rounds

    def _edge(self, at_ms: int) -> None:
        self.closing, self.began_ms = False, max(self.began_ms or 0, at_ms)
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
        live = [push for push in given if push.worker in self.members.present]
        wanted = min(self.policy.take, size) if isinstance(self.policy.take, int) else size
        enough = len(live) >= size or sum(push.left_out is None for push in live) >= wanted
        return _in_order(given) if given and (enough or self.closing) else ()

    def _first_of_each(self) -> list[Held]:
        """The round so far: the first push of each worker, but of those who are still joining."""
        first: dict[str, Held] = {}
        for push in self.waiting:
            if push.worker not in self.members.joining:
                first.setdefault(push.worker, push)
        return list(first.values())

    def _counting(self) -> list[Held]:
        """Those of the round that will be in its step."""
        return [push for push in self._first_of_each() if push.left_out is None]

    def _arrived_ms(self, push: Held) -> int:
        """When the push came into the open round: one that was left over from the last came with its edge."""
        return max(push.at_ms, self.began_ms or 0)


def _in_order(pushes: Sequence[Held]) -> list[Held]:
    """By worker and sequence, so that a sum does not depend on who came first."""
    return sorted(pushes, key=lambda push: (push.worker, push.sequence))
