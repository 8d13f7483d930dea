"""How long a quorum should wait for the others: the grace window that adapts to the arrivals it has seen.

Waiting longer brings more gradients into a step, and costs time. Of the windows that would have caught
another gradient in the latest rounds, the best is the one that would have brought the most per second:

    gradients(g) = sum over rounds of  quorum + how many of the others came within g
    time(g)      = sum over rounds of  time to the quorum + the lesser of g and the last one's coming

A quarter is added for jitter. Until a round is known the window is a whole lease, so that the stragglers can
show how far behind they are. Who missed a round shows it with the next push. The idea of a window that grows
and shrinks with the slack there is comes from Decoupled DiLoCo (2026); the rule is this project's own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

LAPS = 16  # rounds remembered
STRAGGLERS = 1024  # of one round, remembered with their times
CANDIDATES = 32  # windows tried
JITTER = 1.25


@dataclass(slots=True)
class Lap:
    """A round that had its quorum. All times are in milliseconds; those in `after_ms` count from the quorum
    and ascend."""

    number: int
    quorum_at_ms: int
    quorum_ms: int  # from the round's beginning
    quorum: int
    others: int  # how many more there might have been
    after_ms: list[int]

    def gradients(self, window_ms: int) -> int:
        """How many would have been in the step."""
        return self.quorum + bisect_right(self.after_ms, window_ms)

    def lasted_ms(self, window_ms: int) -> int:
        """How long the round would have been open."""
        complete = len(self.after_ms) >= self.others
        last_ms = self.after_ms[-1] if self.after_ms else 0
        return max(self.quorum_ms, 1) + (min(window_ms, last_ms) if complete else window_ms)


class Pace:
    """The latest rounds, and who was missing in which of them."""

    def __init__(self) -> None:
        self.laps: deque[Lap] = deque(maxlen=LAPS)
        self._missing: dict[str, int] = {}  # worker: the first round it missed and has not made up for
        self._best_ms: int | None = None  # once it was asked for; nothing has been heard since

    def hear(self, worker: str, at_ms: int) -> None:
        """A worker pushes: if it was missing in a round, now it is known how late it would have been."""
        number = self._missing.pop(worker, None)
        for lap in self.laps:
            if lap.number == number and len(lap.after_ms) < min(lap.others, STRAGGLERS):
                lap.after_ms = sorted([*lap.after_ms, max(at_ms - lap.quorum_at_ms, 0)])
                self._best_ms = None

    def forget(self, worker: str) -> None:
        """The worker is gone and will not make up for anything."""
        self._missing.pop(worker, None)

    def lap(
        self, number: int, began_ms: int, arrivals: Mapping[str, int], members: Sequence[str], q: int
    ) -> None:
        """A round ends in which `arrivals` came, by worker, of `members`, with a quorum of q."""
        came = sorted(max(at_ms, began_ms) for at_ms in arrivals.values())
        if len(came) < q:
            return
        quorum_at_ms = came[q - 1]
        after_ms = [at_ms - quorum_at_ms for at_ms in came[q : q + STRAGGLERS]]
        missing = [worker for worker in members if worker not in arrivals]
        others = len(came) - q + len(missing)
        self.laps.append(Lap(number, quorum_at_ms, quorum_at_ms - began_ms, q, others, after_ms))
        self._best_ms = None
        for worker in missing:
            self._missing.setdefault(worker, number)

    def window_ms(self, most_ms: int) -> int:
        """The window for the next round, at most `most_ms`."""
        if not self.laps:
            return most_ms
        if self._best_ms is None:
            seen = sorted({0, *(after_ms for lap in self.laps for after_ms in lap.after_ms)})
            tried = seen[:: -(-len(seen) // CANDIDATES)]
            self._best_ms = max(tried, key=lambda window_ms: (self._rate(window_ms), -window_ms))
        return min(int(self._best_ms * JITTER), most_ms)

    def dump(self) -> dict[str, Any]:
        """As JSON, for a snapshot."""
        return {"laps": [list(astuple(lap)) for lap in self.laps], "missing": self._missing}

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> Pace:
        pace = cls()
        pace.laps.extend(Lap(*facts) for facts in dumped["laps"])
        pace._missing = dict(dumped["missing"])
        return pace

    def _rate(self, window_ms: int) -> float:
        gradients = sum(lap.gradients(window_ms) for lap in self.laps)
        return gradients / sum(lap.lasted_ms(window_ms) for lap in self.laps)
