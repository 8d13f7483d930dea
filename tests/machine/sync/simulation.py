"""A world of workers around the pure `Rounds`: they push, retry, dawdle, leave and die; the clock goes on.

One seed, one story: `World(seed).run()` answers nothing and raises AssertionError with the whole story so far
if an invariant breaks.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from gradledger_server.machine.sync.policy import Policy, expand
from gradledger_server.machine.sync.rounds import Held, Rounds

SYNCS: list[dict[str, Any]] = [
    {"mode": "bsp"},
    {"mode": "bsp", "workers": 4},
    {"mode": "ssp", "slack": 0},
    {"mode": "ssp", "slack": 2},
    {"mode": "ssp", "slack": 3, "workers": 5},
    {"mode": "backup", "take": 2},
    {"mode": "backup", "take": 3, "workers": 5},
    {"mode": "buffered", "take": 3},
    {"mode": "quorum", "quorum": 2, "grace_ms": 700},
    {"mode": "quorum", "quorum": 2, "grace_ms": 0, "workers": 4},
    {"mode": "quorum", "quorum": 2},
    {"mode": "quorum", "quorum": 3, "workers": 5},
]
LEASE_S = 5.0


@dataclass
class Worker:
    """Where a simulated worker is: its last sequence, whether it lives, when it wakes."""

    name: str
    sequence: int = 0
    alive: bool = True
    wakes_ms: int = 0


@dataclass
class World:
    """The seed decides everything: the mode, the workers, who dies when."""

    seed: int
    story: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.policy = Policy.read(expand({**self.random.choice(SYNCS), "lease_s": LEASE_S}))
        self.rounds = Rounds(self.policy)
        self.workers = [Worker(f"w{i}") for i in range(self.random.randint(1, 5))]
        self.now_ms, self.offset, self.step = 0, 0, 0
        self.fates: dict[tuple[str, int], int] = {}
        self.sent: set[tuple[str, int]] = set()

    def run(self, moves: int = 150) -> None:
        """So many moves; then nobody moves any more, and within two leases nothing may wait."""
        self.tell(f"seed {self.seed}: {self.policy}")
        for worker in self.workers:
            if self.policy.workers is None:
                self.join(worker)
        for _ in range(moves):
            self.now_ms += self.random.randint(1, 400)
            self.time_out()
            self.move(self.random.choice(self.workers))
            self.restart()
        for _ in range(30):
            self.now_ms += int(LEASE_S * 100)
            self.time_out()
        stuck = self.rounds.waiting
        if self.policy.mode == "buffered":  # nobody hangs on it: it is no round, and a push more would do
            assert len(stuck) < int(self.policy.take), self.told()
        else:
            assert not stuck, self.told()
        assert self.sent == self.fates.keys() | {(p.worker, p.sequence) for p in stuck}, self.told()

    def move(self, worker: Worker) -> None:
        """What one worker does next."""
        chance = self.random.random()
        if not worker.alive:
            if chance < 0.05:
                worker.alive = True
                self.join(worker)
        elif chance < 0.03:
            worker.alive = False
            self.tell(f"{worker.name} dies")
        elif chance < 0.06:
            self.rounds.members.leave(worker.name)
            self.tell(f"{worker.name} leaves")
            worker.alive = False
            self.settle()
        elif worker.wakes_ms <= self.now_ms:
            self.push(worker)

    def push(self, worker: Worker) -> None:
        """A push, unless the last one still waits."""
        worker.wakes_ms = self.now_ms + self.random.choice([0, 10, 300, 2000])
        if self.rounds.is_ahead(worker.name):
            return
        if self.policy.workers is None and worker.name not in self.rounds.members:
            self.join(worker)
        if not self.rounds.has_room(worker.name):
            return
        worker.sequence += 1
        self.offset += 1
        self.sent.add((worker.name, worker.sequence))
        self.tell(f"{worker.name} pushes {worker.sequence}")
        self.rounds.hold(Held(self.offset, worker.name, worker.sequence, None, 1.0, self.now_ms))
        self.settle()

    def join(self, worker: Worker) -> None:
        self.tell(f"{worker.name} joins")
        self.rounds.join(worker.name, self.now_ms)

    def settle(self) -> None:
        """Steps, as long as one is due."""
        while group := self.rounds.due():
            self.require_right(list(group))
            self.step += 1
            self.tell(f"step {self.step}: {[(p.worker, p.sequence) for p in group]}")
            for push in group:
                assert (push.worker, push.sequence) not in self.fates, self.told()
                self.fates[push.worker, push.sequence] = self.step
            self.rounds.settle(group, self.now_ms)

    def require_right(self, group: list[Held]) -> None:
        """What each mode promises of a step."""
        names = [push.worker for push in group]
        assert names == sorted(names) or self.policy.take == 1, self.told()
        if self.policy.in_rounds:
            assert len(set(names)) == len(names), self.told()
            missing = self.rounds.members.present.keys() - set(names)
            if self.policy.mode == "bsp" and not self.rounds.closing:
                assert not missing, self.told()
        if self.policy.mode == "ssp" and self.policy.workers is None:
            members = self.rounds.members.present
            clock = members[names[0]].clock if names[0] in members else self.rounds.members.slowest
            assert clock - self.rounds.members.slowest <= (self.policy.slack or 0), self.told()

    def time_out(self) -> None:
        """What any replica does when it looks at its clock: leases first, then the open round."""
        for name in self.rounds.members.silent(self.now_ms, self.policy.lease_ms):
            self.tell(f"the lease of {name} runs out")
            self.rounds.leave(name)
            self.settle()
        deadline = self.rounds.deadline()
        if deadline is not None and deadline[0] <= self.now_ms:
            self.tell(f"round {self.rounds.number} is closed")
            self.rounds.close(self.rounds.number)
            self.rounds.close(self.rounds.number - 1)  # another replica is late with the same news
            self.settle()

    def restart(self) -> None:
        """Now and then the state goes through a snapshot."""
        if self.random.random() < 0.1:
            dumped = json.loads(json.dumps(self.rounds.dump()))
            self.rounds = Rounds.load(self.policy, dumped)
            assert self.rounds.dump() == dumped, self.told()

    def tell(self, what: str) -> None:
        self.story.append(f"{self.now_ms:7d} ms  {what}")

    def told(self) -> str:
        return "\n".join([*self.story, f"reproduce with World({self.seed}).run()"])
