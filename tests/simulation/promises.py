"""What a world promises at every moment, held by an observer that plays each entry as soon as it is logged.

* an acknowledged push waits or has one final fate, and its receipt changes no more
* a step is made by the pushes that its mode allows, and is the last one plus one
* at equal offsets all replicas are equal
* leases and rounds are timed out once, and not before it is time
* no push waits longer than the living need: see `patience_ms`
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from gradledger_server.entries import Close, Configure, Entry, Join, Leave, Push, Quarantine
from gradledger_server.machine.receipts import Receipt
from gradledger_server.machine.sync.policy import Policy
from tests.machine.bodies import weights_of
from tests.simulation.log import Log
from tests.simulation.replica import Glance, Replica, glance

FINAL = ("applied", "merged", "late", "rejected", "skipped", "outlier", "quarantined")
COUNTED = ("applied", "merged")


class Promises:
    """Raises AssertionError as soon as one is broken."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.observer = Replica("observer", log)
        self.fates: dict[int, Receipt] = {}  # final ones, by offset
        self.acknowledged: set[tuple[str, int]] = set()
        self.logged_ms: dict[int, int] = {}  # when the world's clock saw an entry
        self._glances: dict[int, Glance] = {}
        self._signs_of_life: dict[str, int] = {}  # of each worker the latest time in an entry
        self._joined: set[str] = set()
        self._closed: int | None = None  # the round that was closed last
        self._ended: int | None = None  # and the one that made the latest step

    def watch(self, replica: Replica) -> None:
        """From now on the replica is compared after every entry it plays."""
        replica.seen.append(self._compare)

    def hear(self, now_ms: int) -> list[str]:
        """Plays what is new in the log; what came of it, in words."""
        news: list[str] = []
        while self.observer.applied < self.log.end:
            offset = self.observer.applied + 1
            self.logged_ms[offset] = now_ms
            news += self._hear(offset, self.log.entries[offset - 1])
        return news

    def _hear(self, offset: int, entry: Entry) -> list[str]:
        model, before = self.observer.model, glance(self.observer.model)
        self._require_right(entry)
        policy, step, gone = model.rounds.policy, model.step, len(model.rounds.members.gone)
        self.observer.catch_up(offset)
        self._glances[offset] = glance(model)
        assert model.held.keys() == {push.offset for push in model.rounds.waiting}
        if isinstance(entry, Push | Join) and (worker := entry.worker or "") in model.rounds.members:
            self._signs_of_life[worker] = max(self._signs_of_life.get(worker, 0), entry.at_ms)
        self._joined -= model.guard.quarantined
        assert all(worker in model.rounds.members for worker in self._joined), "a member is forgotten"
        settled = self._newly_settled()
        by_step: dict[int, list[Receipt]] = defaultdict(list)
        for receipt in settled:
            by_step[receipt.step if receipt.fate in COUNTED else 0].append(receipt)
        passed_over = by_step.pop(0, [])
        assert sorted(by_step) == list(range(step + 1, model.step + 1)), "every step has its pushes"
        for number in sorted(by_step):
            self._require_one_round(by_step[number])
            if number == step + 1 and not isinstance(entry, Configure):  # a change may come at this very edge
                left_out = [receipt for receipt in passed_over if receipt.round is not None]
                self._require_fit(policy, by_step[number], left_out, entry, before, gone)
        lines = [
            f"step {n}: {[(r.worker, r.sequence, r.fate) for r in group]}" for n, group in by_step.items()
        ]
        return lines + [f"{r.worker} {r.sequence} is {r.fate}" for r in passed_over]

    def _require_right(self, entry: Entry) -> None:
        """Time-outs are logged once and not too soon, and nobody loses its place who gave a sign of life."""
        rounds = self.observer.model.rounds
        match entry:
            case Join():
                self._joined.add(entry.worker)
            case Leave():
                assert entry.worker in rounds.members, "nobody leaves twice"
                silent_ms = entry.at_ms - self._signs_of_life.pop(entry.worker)
                assert entry.reason == "left" or silent_ms > rounds.policy.lease_ms, "its lease still runs"
                self._joined.discard(entry.worker)
            case Close():
                assert entry.round == rounds.number and not rounds.closing, "no round is closed twice"
                patience_ms = rounds.grace_ms if entry.reason == "grace" else rounds.policy.lease_ms
                patient = [p for p in rounds.waiting if entry.at_ms - p.at_ms >= patience_ms]
                enough = (rounds.policy.quorum or 1) if entry.reason == "grace" else 1
                assert len(patient) >= enough, "it is closed too soon"
                self._closed = entry.round

    def _require_one_round(self, group: list[Receipt]) -> None:
        """A step that pushes make together ends a round of its own."""
        (ended,) = {receipt.round for receipt in group}
        if ended is not None:
            assert self._ended is None or ended > self._ended, "two steps in one round"
            self._ended = ended

    def _newly_settled(self) -> list[Receipt]:
        settled = []
        for offset in self.logged_ms:
            entry = self.log.entries[offset - 1]
            if not isinstance(entry, Push) or offset > self.observer.applied:
                continue
            receipt = self.observer.model.receipts.kept(f"w:{entry.worker}", entry.sequence or 0)
            assert receipt is not None and receipt.offset == offset
            if (known := self.fates.get(offset)) is not None:
                assert receipt == known, f"the receipt changed: {known} → {receipt}"
            elif receipt.fate != "waiting":
                assert receipt.fate in FINAL
                assert offset not in self.observer.model.held, "it has its fate and still waits"
                self.fates[offset] = receipt
                settled.append(receipt)
            else:
                assert offset in self.observer.model.held, "it waits nowhere"
        return settled

    def _require_fit(
        self,
        policy: Policy,
        group: list[Receipt],
        left_out: list[Receipt],
        entry: Entry,
        before: Glance,
        gone: int,
    ) -> None:
        """The first step after an entry, by the mode that reigned before it; guard rails left some out."""
        left_out = [receipt for receipt in left_out if receipt.round == group[0].round]
        given, members = [receipt.worker for receipt in (*group, *left_out)], set(before.members)
        workers = [receipt.worker for receipt in group]
        given_up = self._closed == before.round or isinstance(entry, Leave | Close | Quarantine)
        if policy.take == 1:
            assert len(group) == 1
        if policy.in_rounds:
            assert len(set(workers)) == len(workers), "one gradient of each"
        if policy.mode == "buffered":
            assert len(group) == policy.take
        if policy.mode in ("bsp", "quorum") and not given_up:
            assert members <= set(given), "all members are in"
            assert len(given) >= (policy.workers or 0) - gone, "all that were to come are in"
        if policy.mode == "quorum" and isinstance(entry, Close) and entry.reason == "grace":
            assert len(group) >= (policy.quorum or 0), "a quorum is in"
        if policy.mode == "backup" and not given_up and policy.workers is None:
            enough = len(group) >= min(int(policy.take), len(members)) or members <= set(given)
            assert enough, "as many as the mode takes are in, or all"

    def _compare(self, replica: Replica) -> None:
        seen = self._glances.get(replica.applied)
        assert seen is None or seen == glance(replica.model), f"{replica.name} differs at {replica.applied}"

    def require_no_hanging(self, now_ms: int, patience_ms: int) -> None:
        """Nobody has been waiting for long, but where any pushes will do and there are too few."""
        rounds = self.observer.model.rounds
        if rounds.policy.mode == "buffered":
            assert sum(push.left_out is None for push in rounds.waiting) < int(rounds.policy.take)
            return
        for push in rounds.waiting:
            waited_ms = now_ms - self.logged_ms[push.offset]
            assert waited_ms <= patience_ms, f"{push.worker} {push.sequence} hangs since {waited_ms} ms"

    def require_all_accounted_for(self) -> None:
        """Every acknowledged push is in the log once, and has its fate or waits."""
        places: dict[tuple[str, int], int] = {}
        for offset, entry in enumerate(self.log.entries, 1):
            if isinstance(entry, Push):
                name = (entry.worker or "", entry.sequence or 0)
                assert name not in places, f"{name} is in the log twice"
                places[name] = offset
        assert self.acknowledged <= places.keys()
        waiting = {push.offset for push in self.observer.model.rounds.waiting}
        assert set(places.values()) == self.fates.keys() | waiting
        assert not self.fates.keys() & waiting

    def require_sum(self, gradients: dict[tuple[str, int], np.ndarray]) -> None:
        """In a world of plain sums the weights are those of the start minus every gradient that counted."""
        counted = [r for r in self.fates.values() if r.fate in COUNTED]
        total = sum((gradients[r.worker or "", r.sequence or 0] for r in counted), np.zeros(2, np.float32))
        assert (weights_of(self.observer.model)["w"] == -total).all(), "a gradient counts once, or not at all"
