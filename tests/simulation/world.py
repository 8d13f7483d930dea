"""A world of workers and replicas around one log: one seed, one story.

Workers push, dawdle, die, come back, leave, and send again what was answered or not; replicas lag, have
clocks of their own, go through snapshots, and time out leases and rounds side by side; somebody changes the
mode. `World(seed).run()` raises Broken with the whole story if one of the promises does not hold.
"""

from __future__ import annotations

import contextlib
import math
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from gradledger_server.entries import Close, Configure, Create, Join, Leave, Push, Quarantine
from gradledger_server.errors import (
    NotAMember,
    SequenceReused,
    StaleGradient,
    WorkerAhead,
    WorkerQuarantined,
)
from gradledger_server.machine.receipts import Receipt
from gradledger_server.machine.reconfiguration import reconfigure
from gradledger_server.store.contract import Gap, Moved
from gradledger_server.wire import safetensors
from gradledger_server.wire.digest import digest
from tests.machine.bodies import f32, spec
from tests.simulation.log import Log
from tests.simulation.promises import Promises
from tests.simulation.replica import Replica, replayed, state

LEASE_S = 2.0
LEASE_MS = 2000
PATIENCE_MS = 5 * LEASE_MS  # a lease and a grace, and then some: who lives pushes every other second

SYNCS: list[dict[str, Any]] = [
    {"mode": "async"},
    {"mode": "bsp"},
    {"mode": "bsp", "workers": 4},
    {"mode": "bsp", "late": "drop"},
    {"mode": "ssp", "slack": 0},
    {"mode": "ssp", "slack": 2},
    {"mode": "ssp", "slack": 3, "workers": 5},
    {"mode": "backup", "take": 2},
    {"mode": "backup", "take": 3, "workers": 5},
    {"mode": "buffered", "take": 3},
    {"mode": "quorum", "quorum": 2, "grace_ms": 400},
    {"mode": "quorum", "quorum": 2, "grace_ms": 0, "workers": 4},
    {"mode": "quorum", "quorum": 2},
    {"mode": "quorum", "quorum": 3, "workers": 5},
]
STALENESSES: list[dict[str, Any]] = [{}, {}, {"max": 3}, {"scale": 0.5}, {"compensate": 0.25, "history": 2}]
GUARDS: list[dict[str, Any]] = [
    {},
    {"nonfinite": "skip"},
    {"outliers": {"factor": 3.0, "strikes": 2, "window": 8}},
    {"nonfinite": "skip", "outliers": {"factor": 2.0, "strikes": 1, "window": 16}},
]
ADAM = {"rule": "adam", "lr": 0.1}
SGD = {"rule": "sgd", "lr": 1.0}


class Broken(AssertionError):
    """A promise was not kept; the message is the story so far."""


@dataclass
class Worker:
    """`asked` is the push it wants an answer to: it sends that one again until it has it."""

    name: str
    sequence: int = 0
    base: int = 0
    alive: bool = True
    wakes_ms: int = 0
    asked: Push | None = None
    answered: list[Push] = field(default_factory=list)


class World:
    """The seed decides everything: modes, workers, replicas, who dies when."""

    def __init__(self, seed: int) -> None:
        self.seed, self.random, self.story = seed, random.Random(seed), list[str]()
        self.now_ms = 100_000
        self.sums = self.random.random() < 0.5  # a world where the weights can be added up by hand
        sync = self._any_sync()
        guard = self.random.choice(GUARDS)
        given: dict[str, Any] = {"optimizer": SGD if self.sums else ADAM, "sync": sync, "guard": guard}
        start = safetensors.decode(memoryview(save({"w": f32(0, 0)})))
        created = Create(spec({"w": (2,)}, **given), start, digest(start.payload), self.now_ms)
        self.log = Log([created])
        self.promises = Promises(self.log)
        clocks = [0, *(self.random.randint(-400, 400) for _ in range(self.random.randint(1, 2)))]
        self.replicas = [Replica(f"r{i}", self.log, ahead_ms) for i, ahead_ms in enumerate(clocks)]
        for replica in self.replicas:
            self.promises.watch(replica)
        self.workers = [Worker(f"w{i}") for i in range(self.random.randint(1, 5))]
        self.gradients: dict[tuple[str, int], NDArray[Any]] = {}
        self._tell(f"{sync}, {guard}, replicas' clocks {clocks}")

    def run(self, moves: int = 80) -> None:
        """So many moves; then nobody moves any more, and within two leases nothing may wait."""
        try:
            for _ in range(moves):
                self.now_ms += self.random.randint(1, 400)
                self._time_out()
                self._move(self.random.choice(self.workers))
                self._meddle()
                self.promises.require_no_hanging(self.now_ms, PATIENCE_MS)
            self._tell("everybody is silent")
            for _ in range(12):
                self.now_ms += LEASE_MS // 5
                self._time_out()
            self.promises.require_no_hanging(self.now_ms, 0)
            self._require_one_truth()
        except Exception as broken:
            with contextlib.suppress(AssertionError):  # the story up to the end
                self._listen()
            last = [f"{type(broken).__name__}: {broken}", f"reproduce with {reproduction(self.seed)}"]
            raise Broken("\n".join([f"seed {self.seed}", *self.story, *last])) from broken

    def _move(self, worker: Worker) -> None:
        """What one worker does next."""
        chance = self.random.random()
        if not worker.alive:
            if chance < 0.05:
                worker.alive, worker.wakes_ms = True, self.now_ms
                self._join(worker)
        elif chance < 0.03:
            worker.alive = False
            self._tell(f"{worker.name} dies")
        elif chance < 0.05:
            self._leave(worker)
        elif chance < 0.12:
            self._join(worker)  # a heartbeat
        elif chance < 0.17 and worker.answered:
            self._repeat(worker)
        elif chance < 0.19:
            self._send_early(worker)
        elif worker.wakes_ms <= self.now_ms:
            self._push(worker)

    def _push(self, worker: Worker) -> None:
        """The next push, or the last one again if its answer never came; answers may be lost on their way."""
        worker.wakes_ms = self.now_ms + self.random.choice([0, 10, 300, 1000])
        if worker.asked is None:
            worker.sequence += 1
            worker.asked = self._drawn(worker, worker.sequence)
        answer = self._send(worker, worker.asked)
        if isinstance(answer, NotAMember):
            self._join(worker)
        elif isinstance(answer, WorkerQuarantined) and self.random.random() < 0.3:
            self._enter(lambda _, at_ms: Quarantine(worker.name, False, at_ms))
        elif isinstance(answer, StaleGradient):
            worker.base = self._step_of(self.random.choice(self.replicas))
            worker.asked = self._drawn(worker, worker.sequence)
        elif isinstance(answer, Receipt) and self.random.random() < 0.85:
            self.promises.acknowledged.add((worker.name, worker.sequence))
            worker.answered.append(worker.asked)
            worker.asked, worker.base = None, max(worker.base, answer.step)

    def _send(self, worker: Worker, push: Push) -> object:
        replica = self.random.choice(self.replicas)
        answer = replica.push(push, self.now_ms)
        told = answer.fate if isinstance(answer, Receipt) else type(answer).__name__
        self._tell(f"{worker.name} pushes {push.sequence} base {push.base} at {replica.name}: {told}")
        refusals = NotAMember | StaleGradient | WorkerAhead | WorkerQuarantined | Gap
        assert isinstance(answer, Receipt | refusals), answer
        self._listen()
        return answer

    def _repeat(self, worker: Worker) -> None:
        """An old request arrives once more, long after its answer; another body under its name is refused."""
        push = self.random.choice(worker.answered)
        answer = self._send(worker, push)
        assert isinstance(answer, Receipt) and answer.sequence == push.sequence, answer
        forged = self._drawn(worker, push.sequence or 0, keep=False)
        try:
            self.random.choice(self.replicas).push(forged, self.now_ms)
        except SequenceReused:
            return
        raise AssertionError("another body was taken for the same push")

    def _send_early(self, worker: Worker) -> None:
        """Two requests overtake each other: the second one is refused, by whomever."""
        early = self._drawn(worker, worker.sequence + 2, keep=False)
        answer = self._send(worker, early)
        assert not isinstance(answer, Receipt), "a gap was not noticed"

    def _drawn(self, worker: Worker, sequence: int, *, keep: bool = True) -> Push:
        """A gradient of small whole numbers, computed at what the worker believes is the step."""
        largest = 9 if self.random.random() < 0.9 else 900
        gradient = f32(self.random.randint(1, largest), self.random.randint(-9, 9))
        if not keep:
            gradient += 0.5
        else:
            self.gradients[worker.name, sequence] = gradient
        tensors = safetensors.decode(memoryview(save({"w": gradient})))
        base = worker.base if self.random.random() < 0.7 else None
        return Push(
            tensors,
            digest(tensors.payload),
            worker=worker.name,
            sequence=sequence,
            key=None,
            base=base,
            weight=1.0,
            grad_norm=float(np.linalg.norm(gradient)) if self.random.random() < 0.95 else math.nan,
            durability="memory",
            at_ms=0,  # the replica's clock says when it arrives
        )

    def _join(self, worker: Worker) -> None:
        if worker.name not in self.promises.observer.model.guard.quarantined:
            self._enter(lambda _, at_ms: Join(worker.name, at_ms))

    def _leave(self, worker: Worker) -> None:
        worker.alive = False
        if worker.name in self.promises.observer.model.rounds.members:
            self._enter(lambda _, at_ms: Leave(worker.name, "left", at_ms))

    def _enter(self, choose: Any) -> None:
        replica = self.random.choice(self.replicas)
        entry = replica.enter(choose, self.now_ms)
        words = [str(getattr(entry, name)) for name in ("worker", "reason") if hasattr(entry, name)]
        self._tell(f"{replica.name} logs {type(entry).__name__} {' '.join(words)}")
        self._listen()

    def _meddle(self) -> None:
        """What happens to replicas, and to the mode."""
        chance, replica = self.random.random(), self.random.choice(self.replicas)
        if chance < 0.04:
            replica.restart()
        elif chance < 0.5:
            replica.catch_up(replica.applied + self.random.randint(1, 6))
        elif chance < 0.51:
            name, begins = self.random.choice(self.workers).name, self.random.random() < 0.3
            self._tell(f"quarantine of {name} {'begins' if begins else 'ends'}")
            self._enter(lambda _, at_ms: Quarantine(name, begins, at_ms))
        elif chance < 0.53:
            sync = self._any_sync()
            self._tell(f"the mode is to be {sync}")
            self._enter(lambda model, at_ms: Configure(reconfigure(model.spec, {"sync": sync}).json, at_ms))

    def _time_out(self) -> None:
        """Every replica looks at its clock; of two that see the same, the log takes one."""
        awake = self.random.sample(self.replicas, self.random.randint(1, len(self.replicas)))
        for replica in awake:
            if replica.overdue(self.now_ms) is not None or self.random.random() < 0.5:
                replica.catch_up()
        while wishes := [(r, due, r.applied) for r in awake if (due := r.overdue(self.now_ms)) is not None]:
            for replica, due, applied in wishes:
                if isinstance(self.log.append(due, expected=applied), Moved):
                    self._tell(f"{replica.name} is too late with {_words(due)}")
                else:
                    self._tell(f"{replica.name} logs {_words(due)}")
                replica.catch_up()
                self._listen()

    def _require_one_truth(self) -> None:
        """All replicas, and a new one that plays the whole log, hold the same bits."""
        self.promises.require_all_accounted_for()
        truth = state(self.promises.observer.model)
        for replica in self.replicas:
            replica.catch_up()
            assert state(replica.model) == truth, f"{replica.name} holds another state"
        assert state(replayed(self.log)) == truth, "a replay holds another state"
        if self.sums:
            self.promises.require_sum(self.gradients)

    def _any_sync(self) -> dict[str, Any]:
        sync = {**self.random.choice(SYNCS), "lease_s": LEASE_S}
        if self.sums:
            return {**sync, "aggregate": "sum"}
        staleness = self.random.choice(STALENESSES)
        if "compensate" in staleness and sync["mode"] not in ("async", "ssp"):
            return sync
        return {**sync, "staleness": staleness}

    def _step_of(self, replica: Replica) -> int:
        replica.catch_up()
        return replica.model.step

    def _listen(self) -> None:
        for news in self.promises.hear(self.now_ms):
            self._tell(f"    {news}")

    def _tell(self, what: str) -> None:
        self.story.append(f"{self.now_ms:7d} ms  {what}")


def reproduction(seed: int) -> str:
    """The command that tells this story again."""
    return f"python -m tests.simulation --seed {seed}"


def _words(entry: Leave | Close) -> str:
    if isinstance(entry, Leave):
        return f"that the lease of {entry.worker} ran out"
    return f"that round {entry.round} waits no longer ({entry.reason})"
