"""Pushes in the air of which the log says something else, or nothing: they end as the log says."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from gradledger_server.errors import (
    GradledgerError,
    ModelNotFound,
    ModelQuarantined,
    SequenceGap,
    StoreFull,
    StoreUnavailable,
)
from gradledger_server.machine.apply import apply
from gradledger_server.replica import Answer
from tests.replica.sky import PULSE_S, Ear, Heard, Sky, Word, down, fly
from tests.replica.world import state_digest

# -- the log says something else -----------------------------------------------------------------

FAULTS: list[Word] = ["full", "lost", "half", "never"]
EXPECTED: dict[Word, type[GradledgerError]] = {"full": StoreFull}


@pytest.mark.parametrize("word", FAULTS)
@pytest.mark.parametrize("at", [0, 2, 4])
def test_what_the_log_does_not_say_is_not_acknowledged(word: Word, at: int) -> None:
    """Each push has a bit of its own, so the sum tells who counted; five workers, so nobody makes a gap."""

    async def story(sky: Sky) -> None:
        heard = [sky.hasten(f"w{i}", 1, 2.0**i) for i in range(5)]
        for index in range(5):
            require_only_the_logged(sky)
            if sky.log.air:
                sky.log.say(word if index == at else "done")
        told = await down(*heard)
        failed = [index for index, answer in enumerate(told) if isinstance(answer, GradledgerError)]
        assert failed == ([at] if word == "full" else list(range(at, 5)))
        assert isinstance(told[at], EXPECTED.get(word, StoreUnavailable))
        await require_one_truth(sky, told)

    fly(story)


def require_only_the_logged(sky: Sky) -> None:
    """What everybody sees is made of what the log holds."""
    assert int(sky.sum) & ~int(sum(sky.logged())) == 0


async def require_one_truth(sky: Sky, told: Heard) -> None:
    """Acknowledged = in the log = applied, each once; and things go on as if nothing had been."""
    sky.log.come_back()
    published = await sky.mailbox.look()
    logged = sky.logged()
    assert sky.sum == sum(logged)
    assert len(logged) == len(set(logged)) == published.step
    for index, answer in enumerate(told):
        again = await sky.push(f"w{index}", 1, 2.0**index)
        if isinstance(answer, Answer):
            assert again.replayed and again.receipt == answer.receipt
        assert again.replayed == (2.0**index in logged)
    assert sky.sum == 31
    assert sky.free
    await sky.ready()
    heard = sky.hasten("w0", 2, 32.0)
    sky.log.say()
    (last,) = await down(heard)
    assert isinstance(last, Answer) and last.published.step == 6
    assert sky.sum == 63 == sum(sky.logged())
    assert state_digest(sky.hot.model) == sky.digest_again()


def test_behind_a_push_without_room_the_same_worker_s_next_is_a_gap() -> None:
    async def story(sky: Sky) -> None:
        heard = [sky.hasten("a", 1, 1.0), sky.hasten("a", 2, 2.0), sky.hasten("b", 1, 4.0)]
        sky.log.say("full")
        sky.log.say()
        sky.log.say()
        full, gap, fine = await down(*heard)
        assert isinstance(full, StoreFull)
        assert isinstance(gap, SequenceGap) and gap.facts["expected"] == 1
        assert isinstance(fine, Answer)
        assert (fine.receipt.offset, fine.receipt.step, sky.sum) == (2, 1, 4)
        assert sky.free and not sky.mailbox.busy

    fly(story)


@pytest.mark.parametrize("number", [1.0, 2.0])
def test_a_push_that_the_log_has_already_is_a_repeat(number: float) -> None:
    """Nobody else can have written it; should it be there all the same, the log is right."""

    async def story(sky: Sky) -> None:
        sky.store.append(sky.hot.epoch, [sky.draft("a", 1, number).wish()])
        heard = [sky.hasten("a", 1, 1.0), sky.hasten("b", 1, 8.0)]
        sky.log.say()
        sky.log.say()
        repeat, fine = await down(*heard)
        if number == 1.0:
            assert isinstance(repeat, Answer) and repeat.replayed and repeat.receipt.step == 1
        else:
            assert isinstance(repeat, GradledgerError) and repeat.problem == "sequence-reused"
        assert isinstance(fine, Answer) and fine.receipt.step == 2 and not fine.replayed
        assert sky.sum == number + 8 == sum(sky.logged())

    fly(story)


def test_a_repeat_that_was_alone_in_the_air_is_answered_from_the_log() -> None:
    async def story(sky: Sky) -> None:
        sky.store.append(sky.hot.epoch, [sky.draft("z", 1, 4.0).wish(), sky.draft("a", 1, 2.0).wish()])
        heard = sky.hasten("a", 1, 2.0)
        sky.log.say()
        (repeat,) = await down(heard)
        assert isinstance(repeat, Answer) and repeat.replayed
        assert (repeat.receipt.step, repeat.published.step, sky.sum) == (2, 2, 6)
        assert state_digest(sky.hot.model) == sky.digest_again()
        assert sky.free

    fly(story)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_model_that_is_deleted_while_pushes_are_in_the_air_is_gone(before: int) -> None:
    async def story(sky: Sky) -> None:
        heard = [sky.hasten("a", 1, 1.0), sky.hasten("a", 2, 2.0)]
        for _ in range(before):
            sky.log.say()
        sky.mailbox.doubt()
        assert sky.world.delete("m")
        while sky.log.air:
            sky.log.say()
        told = await down(*heard)
        assert [type(answer) for answer in told] == [Answer] * before + [ModelNotFound] * (2 - before)
        assert sky.free
        with pytest.raises(ModelNotFound):
            await sky.mailbox.look()
        with pytest.raises(ModelNotFound):
            await sky.push("a", 3)

    fly(story)


def test_a_log_that_cannot_be_asked_either_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(sky: Sky) -> None:
        heard = [sky.hasten("a", 1, 1.0), sky.hasten("b", 1, 2.0)]
        sky.log.say("full")
        with monkeypatch.context() as away:
            away.setattr(sky.store, "load", unavailable)
            sky.log.say()
            full, unknown = await down(*heard)
            assert isinstance(full, StoreFull) and isinstance(unknown, StoreUnavailable)
            with pytest.raises(StoreUnavailable):
                await sky.mailbox.look()
        assert (await sky.mailbox.look()).step == 1
        assert (await sky.push("b", 1, 2.0)).replayed
        assert sky.sum == 2

    fly(story)


def unavailable(*_: object) -> Any:
    raise StoreUnavailable("away")


def test_who_waits_for_a_step_hears_of_one_that_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradledger_server.replica.bell.POLL_S", 60.0)

    async def story(sky: Sky) -> None:
        before = sky.hot.published
        waiting = asyncio.create_task(sky.mailbox.look_after(before.etag, 10))
        await asyncio.sleep(PULSE_S)
        heard = [sky.hasten("a", 1, 1.0), sky.hasten("b", 1, 2.0)]
        sky.log.say("full")
        sky.log.say()
        await down(*heard)
        assert (await asyncio.wait_for(waiting, 1)).step == 1

    fly(story)


# -- what goes wrong here ------------------------------------------------------------------------


APPLY = "gradledger_server.replica.playback.apply"


class Breaking:
    """Applies as ever, but raises at some of the calls, half way."""

    def __init__(self, *calls: int) -> None:
        self._apply, self._calls, self._count = apply, calls, itertools.count()

    def __call__(self, *arguments: Any) -> Any:
        made = self._apply(*arguments)
        if next(self._count) in self._calls:
            raise ZeroDivisionError("broken")
        return made


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_update_that_fails_in_the_air_is_made_again_from_the_log(
    monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(APPLY, Breaking(at))

    async def story(sky: Sky) -> None:
        heard = [sky.hasten(f"w{index}", 1, 2.0**index) for index in range(3)]
        await asyncio.sleep(0)
        assert not sky.mailbox.hastens, "nothing follows a broken state"
        assert sky.hot.model.step == at + 1, "nor is anything else applied to it"
        while sky.log.air:
            require_only_the_logged(sky)
            sky.log.say()
        told = await down(*heard)
        assert [a.receipt.step if isinstance(a, Answer) else a for a in told] == [1, 2, 3]
        assert sky.sum == sum(sky.logged()) == 7
        assert state_digest(sky.hot.model) == sky.digest_again()
        await sky.ready()

    fly(story)


def test_an_update_that_always_fails_quarantines_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(sky: Sky) -> None:
        monkeypatch.setattr(APPLY, Breaking(*range(100)))
        heard = sky.hasten("a", 1)
        await asyncio.sleep(0)
        sky.log.say()
        (answer,) = await down(heard)
        assert isinstance(answer, ModelQuarantined)
        assert sky.free and not sky.mailbox.hastens
        with pytest.raises(ModelQuarantined):
            await sky.mailbox.look()
        assert sky.sum == 0

    fly(story)


def test_parameters_that_cannot_be_shown_are_no_reason_to_answer_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(sky: Sky) -> None:
        with monkeypatch.context() as full:
            full.setattr(sky.hot.model.weights, "publish", no_memory)
            heard = sky.hasten("a", 1)
            await asyncio.sleep(0)
            assert not sky.mailbox.hastens
            assert not sky.mailbox.hasten(sky.draft("b", 1), Ear(lambda _: None))
            sky.log.say()
            (answer,) = await down(heard)
        assert isinstance(answer, Answer), "the state is another by now"
        assert (sky.sum, sky.free) == (1, True)

    fly(story)


def test_whatever_fails_everybody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(sky: Sky) -> None:
        heard = [sky.hasten("a", 1), sky.hasten("b", 1)]
        monkeypatch.setattr(sky.store, "load", no_memory)
        sky.log.say("full")
        sky.log.say()
        told = await down(*heard)
        assert [type(answer) for answer in told] == [StoreFull, MemoryError]
        assert sky.free and not sky.mailbox.busy

    fly(story)


def no_memory(*_: object) -> Any:
    raise MemoryError
