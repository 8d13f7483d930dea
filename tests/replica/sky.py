"""A model whose log speaks when the test lets it: pushes stay in the air, and come down one by one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gradledger_server.errors import GradledgerError, StoreFull, StoreUnavailable
from gradledger_server.replica import Answer, Draft, Mailbox
from gradledger_server.replica.solitude import Solitude
from gradledger_server.store.contract import Append, Outcome, Store, Told
from gradledger_server.store.memory import InlineLog, MemoryStore
from gradledger_server.wire import records
from tests.replica.world import World, state_digest

Word = Literal["done", "full", "lost", "half", "never"]
"""What becomes of a posted push: it is appended; there is no room for it; the line is lost, after the server
has heard of all that was posted, of this one, or of none."""

PULSE_S = 0.03  # long enough for a thread to come as far as it can
SGD = {"rule": "sgd", "lr": 1.0}


class Ear:
    """Who sent a push: what was foreseen is kept, and `told` hears the answer."""

    def __init__(self, told: Callable[[Answer | Exception], None]) -> None:
        self.foreseen: Answer | None = None
        self._told = told

    def foresee(self, answer: Answer) -> None:
        assert self.foreseen is None
        self.foreseen = answer

    def hear(self, answer: Answer | Exception) -> None:
        self._told(answer)


@dataclass
class Posted:
    """One append that the log has not spoken of."""

    epoch: str
    append: Append
    told: Told


class Slow(InlineLog):
    """What is posted waits for `say`; with a lost line, all that waits is lost. If `shared`, others write."""

    tenure: int | None = 1

    def __init__(self, store: Store, *, shared: bool = False) -> None:
        super().__init__(store)
        self.air: deque[Posted] = deque()
        self.posted = self.lives = 0
        self.cut = False
        self.broken = False  # and nobody has noticed yet
        self.shared = shared
        if shared:
            self.tenure = None

    def post(self, epoch: str, append: Append, told: Told) -> bool:
        if self.cut or self.broken:
            return False
        self.posted += 1
        self.air.append(Posted(epoch, append, told))
        return True

    def say(self, word: Word = "done") -> None:
        """The log's word on the first that waits."""
        first = self.air.popleft()
        if word == "done":
            first.told(self._became(first.epoch, first.append))
        elif word == "full":
            first.told(StoreFull("no room"))
        else:
            lost = [first, *self.air]
            self._hang_up(lost, {"lost": len(lost), "half": 1, "never": 0}[word])

    def come_back(self) -> None:
        """The line is there again."""
        self.lives += 1
        self.cut = False
        self.tenure = None if self.shared else 1 + self.lives

    def _hang_up(self, lost: list[Posted], arrived: int) -> None:
        self.cut, self.tenure = True, None
        self.air.clear()
        for each in lost[:arrived]:
            self._became(each.epoch, each.append)
        for each in lost:
            each.told(StoreUnavailable("the line was lost"))

    def _became(self, epoch: str, append: Append) -> Outcome | GradledgerError:
        (outcome,) = self._store.append(epoch, [append])
        return outcome


class Trust(Solitude):
    """Believes that nobody else writes, whatever was heard."""

    likely = True


Heard = list[Answer | Exception]


@dataclass
class Sky:
    """A model `m` of one tensor `w`, [0, 0]: what is pushed to its first number is subtracted from it."""

    spec: dict[str, Any] = field(default_factory=lambda: {"optimizer": SGD})
    store: MemoryStore = field(default_factory=MemoryStore)
    shared: bool = False

    def __post_init__(self) -> None:
        self.world = World(self.store)
        self.world.create("m", {"w": (2,)}, {"w": np.zeros(2, np.float32)}, **self.spec)
        self.threads = ThreadPoolExecutor(12)
        self.pushed_elsewhere = 0
        self.log = Slow(self.store, shared=self.shared)
        self.open()

    def open(self) -> None:
        """The model as a start loads it."""
        self.world.forget("m")
        self.hot = self.world.hot("m")
        self.mailbox = Mailbox(self.hot, self.log, self.threads)
        if self.shared:
            self.mailbox._quick._solitude = Trust(self.hot.playback)

    def elsewhere(self, number: float = 1.0) -> Answer:
        """A push by another replica, which this one hears nothing of."""
        self.pushed_elsewhere += 1
        gradient = {"w": np.array([number, 0], np.float32)}
        sequence = self.pushed_elsewhere
        return self.world.push("m", gradient, "another", worker="elsewhere", sequence=sequence)

    def draft(self, worker: str, sequence: int, number: float = 1.0, **more: Any) -> Draft:
        gradient = {"w": np.array([number, 0], np.float32)}
        return self.world.draft("m", gradient, worker=worker, sequence=sequence, **more)

    def hasten(self, worker: str, sequence: int, number: float = 1.0) -> Heard:
        """What the push will be told; it is in the air."""
        heard: Heard = []
        assert self.mailbox.hasten(self.draft(worker, sequence, number), Ear(heard.append))
        return heard

    async def push(self, worker: str, sequence: int, number: float = 1.0) -> Answer:
        """The ordinary way."""
        return await self.mailbox.push(self.draft(worker, sequence, number))

    async def ready(self) -> None:
        """From now on pushes may be hastened."""
        await self.mailbox.look()
        assert self.mailbox.hastens

    def end(self) -> None:
        """Nobody waits for the model any more, however its story ended."""
        with contextlib.suppress(RuntimeError):
            self.hot.lock.give()
        self.threads.shutdown()

    @property
    def free(self) -> bool:
        """Whether nobody holds the model's lock."""
        if not self.hot.lock.take():
            return False
        self.hot.lock.give()
        return True

    @property
    def sum(self) -> float:
        """What everybody sees."""
        return -float(self.hot.published.array("w")[0])

    def logged(self) -> list[float]:
        """The first number of each push in the log."""
        found = [records.from_record(entry.record) for entry in self.store.read(self.hot.epoch, 1)]
        return [_number(push) for push in found]

    def digest_again(self) -> str:
        """Of the state, played from the log by somebody else."""
        self.world.forget("m", "another")
        return state_digest(self.world.hot("m", "another").model)


def _number(push: Any) -> float:
    return float(np.frombuffer(push.tensors["w"], np.float32)[0])


def fly(story: Callable[[Sky], Coroutine[Any, Any, None]], *, ready: bool = True, **made: Any) -> None:
    """Tells a story under a sky of its own."""

    async def told() -> None:
        sky = Sky(**made)
        if ready:
            await sky.ready()
        try:
            await asyncio.wait_for(story(sky), 20)
        finally:
            sky.end()

    asyncio.run(told())


async def down(*heard: Heard) -> Heard:
    """What each was told, once all were."""
    async with asyncio.timeout(5):
        while not all(heard):
            await asyncio.sleep(0.001)
    assert all(len(each) == 1 for each in heard), "everybody is told once"
    return [each[0] for each in heard]
