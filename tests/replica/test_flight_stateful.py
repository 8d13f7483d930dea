"""Hypothesis mixes pushes in the air with all the others, also another replica's, with lost answers, saves
and crashes.

Whatever comes in between: what everybody sees is, to the last bit, the plain model of what was acknowledged,
or of a little more where an answer was lost; and nothing counts twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gradledger_server.entries import Push
from gradledger_server.errors import StoreUnavailable
from gradledger_server.replica import Answer, Hot
from gradledger_server.wire import records
from tests.replica.plain import Plain, Tensor
from tests.replica.sky import Ear, Heard, Sky, Word
from tests.replica.test_stateful import EXAMPLES, NUMBERS, OPTIMIZERS, WORKERS, run_machine
from tests.replica.world import state_digest

T = TypeVar("T")

WORDS: st.SearchStrategy[Word] = st.sampled_from(["done", "done", "full", "lost", "half", "never"])

Flying = tuple[str, int, dict[str, Tensor], Heard]


class Flights(RuleBasedStateMachine):
    """One model, three workers. `air` are the pushes that the log has not spoken of."""

    shared = False  # then another replica pushes to it as well

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.sky: Sky
        self.plain: Plain
        self.air: deque[Flying] = deque()

    @initialize(optimizer=st.sampled_from(OPTIMIZERS))
    def begin(self, optimizer: dict[str, Any]) -> None:
        async def made() -> Sky:
            return Sky({"optimizer": optimizer}, shared=self.shared)

        self.sky = self.now(made())
        self.plain = Plain(dict(optimizer), {"w": np.zeros(2, np.float32)})
        self.now(self.sky.mailbox.look())

    def teardown(self) -> None:
        if hasattr(self, "sky"):
            self.land_all()
            self.sky.end()
        self.loop.close()

    def now(self, story: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(story, 10))

    # -- pushes ----------------------------------------------------------------------------------

    @rule(
        wishes=st.lists(st.tuples(WORKERS, NUMBERS), min_size=1, max_size=4),
        turns=st.integers(0, 2),
        words=st.lists(WORDS, max_size=3),
        elsewhere=st.dictionaries(st.integers(0, 4), NUMBERS, max_size=2),
    )
    def hasten(
        self, wishes: list[tuple[str, float]], turns: int, words: list[Word], elsewhere: dict[int, float]
    ) -> None:
        """All are taken if the model is ready, else pushed the ordinary way; some come down again.

        Where others write, they do before some of them, and behind the last.
        """
        for index, (worker, number) in enumerate(wishes):
            self.push_elsewhere(elsewhere.get(index))
            self.hasten_one(worker, number, turns)
        self.push_elsewhere(elsewhere.get(len(wishes)))
        for word in words:
            if self.sky.log.air:
                self.land(word)

    def push_elsewhere(self, number: float | None) -> None:
        if number is None or not self.shared:
            return
        if len(self.air) > len(
            self.sky.log.air
        ):  # some are in the log, and wait with their answers for the others
            self.land_all()
        answer = self.sky.elsewhere(number)
        gradient = {"w": np.array([number, 0], np.float32)}
        self.count("elsewhere", self.sky.pushed_elsewhere, gradient, answer)

    def hasten_one(self, worker: str, number: float, turns: int) -> None:
        gradient = {"w": np.array([number, 1], np.float32)}
        sequence = self.next_of(worker)
        draft = self.sky.world.draft("m", gradient, worker=worker, sequence=sequence)
        heard: Heard = []

        async def sent() -> bool:
            ready, taken = self.sky.mailbox.hastens, self.sky.mailbox.hasten(draft, Ear(heard.append))
            assert taken == ready
            for _ in range(turns):
                await asyncio.sleep(0)
            return taken

        if self.now(sent()):
            self.air.append((worker, sequence, gradient, heard))
            return
        self.land_all()
        answer = self.now(self.sky.mailbox.push(draft))
        self.count(worker, sequence, gradient, answer)

    @rule(worker=WORKERS, number=NUMBERS)
    def push(self, worker: str, number: float) -> None:
        """The ordinary way, which waits for what is in the air."""
        gradient = {"w": np.array([number, 2], np.float32)}
        sequence = self.next_of(worker)
        draft = self.sky.world.draft("m", gradient, worker=worker, sequence=sequence)

        async def both() -> Answer:
            pushing = asyncio.ensure_future(self.sky.mailbox.push(draft))
            await asyncio.sleep(0)
            while self.sky.log.air:
                self.sky.log.say()
            return await pushing

        answer = self.now(both())
        self.settle_air()
        self.count(worker, sequence, gradient, answer)

    @precondition(lambda self: self.plain.workers)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        self.land_all()
        worker, sequence = data.draw(st.sampled_from(sorted(self.plain.workers)))
        known = self.plain.workers[worker, sequence]
        draft = self.sky.world.draft("m", known.gradient, worker=worker, sequence=sequence)
        assert not self.sky.mailbox.hasten(draft, Ear(unheard))
        answer = self.now(self.sky.mailbox.push(draft))
        assert answer.replayed
        assert (answer.receipt.offset, answer.receipt.step) == (known.offset, known.step)

    # -- what the log says -----------------------------------------------------------------------

    def land(self, word: Word) -> None:
        """The first of them comes down; with a word that was not foreseen, so do all."""
        self.now(self.say(word))
        if word == "done":
            self.settle_air()
        else:
            self.land_all()
        if self.sky.log.cut:
            self.sky.log.come_back()

    async def say(self, word: Word) -> None:
        self.sky.log.say(word)

    def land_all(self) -> None:
        async def down() -> None:
            while self.sky.log.air:
                self.sky.log.say()
            while not all(heard for *_, heard in self.air):
                await asyncio.sleep(0.001)

        self.now(down())
        self.settle_air()

    def settle_air(self) -> None:
        """Takes down what was told. A push without an answer may be in the log: then it counts."""
        failed: list[Flying] = []
        while self.air and self.air[0][3]:
            worker, sequence, gradient, heard = flying = self.air.popleft()
            assert len(heard) == 1
            answer = heard[0]
            if isinstance(answer, Answer):
                self.count(worker, sequence, gradient, answer)
            else:
                failed.append(flying)
        if failed:
            self.look_for(failed)

    def look_for(self, failed: list[Flying]) -> None:
        logged = [records.from_record(e.record) for e in self.sky.store.read(self.sky.hot.epoch, self.saved)]
        names = {(entry.worker, entry.sequence) for entry in logged if isinstance(entry, Push)}
        for worker, sequence, gradient, heard in failed:
            if (worker, sequence) in names and (worker, sequence) not in self.plain.workers:
                assert isinstance(heard[0], StoreUnavailable)
                self.plain.workers[worker, sequence] = self.plain.push(gradient)
                self.plain.last[worker] = sequence
            else:
                assert isinstance(heard[0], Exception)

    # -- everything else -------------------------------------------------------------------------

    @rule()
    def save(self) -> None:
        async def both() -> None:
            saving = asyncio.ensure_future(self.sky.mailbox.run(Hot.save))
            await asyncio.sleep(0.002)
            while self.sky.log.air:
                self.sky.log.say()
            await saving

        self.now(both())
        self.settle_air()

    @rule(lr=st.sampled_from([0.5, 0.25]))
    def configure(self, lr: float) -> None:
        self.land_all()

        async def changed() -> None:
            change = {"optimizer": {"lr": lr}}
            await self.sky.mailbox.run(lambda _: self.sky.world.configure("m", change))

        self.now(changed())
        self.plain.configure(lr)

    @rule()
    def restart(self) -> None:
        """What was in the air is lost; whether the server heard of it or not."""
        self.land_all()

        async def again() -> None:
            self.sky.open()
            await self.sky.mailbox.look()

        self.now(again())

    @precondition(lambda self: hasattr(self, "plain"))
    @invariant()
    def what_is_seen_is_what_was_acknowledged(self) -> None:
        latest = self.sky.mailbox.latest
        if latest is not None:
            assert latest.step == self.plain.step
            assert latest.array("w").tobytes() == self.plain.values["w"].tobytes()
        if not self.air:
            published = self.now(self.sky.mailbox.look())
            assert published.array("w").tobytes() == self.plain.values["w"].tobytes()
            assert self.sky.hot.playback.applied == self.plain.offset
            assert state_digest(self.sky.hot.model) == self.sky.digest_again()
            assert self.sky.free

    # -- what an answer must say -----------------------------------------------------------------

    @property
    def saved(self) -> int:
        head = self.sky.store.head(self.sky.hot.epoch)
        assert head is not None
        return head.saved

    def next_of(self, worker: str) -> int:
        return self.plain.last.get(worker, 0) + 1 + sum(flying[0] == worker for flying in self.air)

    def count(self, worker: str, sequence: int, gradient: dict[str, Tensor], answer: Answer) -> None:
        pushed = self.plain.push(gradient)
        self.plain.workers[worker, sequence] = pushed
        self.plain.last[worker] = sequence
        assert not answer.replayed
        assert (answer.receipt.offset, answer.receipt.step) == (pushed.offset, pushed.step)


def unheard(answer: object) -> None:
    raise AssertionError(f"told {answer} of a push that was not taken")


class SharedFlights(Flights):
    """The same where others write, and nobody here ever believes it."""

    shared = True


@pytest.mark.parametrize("machine", [Flights, SharedFlights])
def test_pushes_in_the_air_and_all_the_others_are_one_log(machine: type[Flights]) -> None:
    run_machine(machine, examples=EXAMPLES, steps=40)
