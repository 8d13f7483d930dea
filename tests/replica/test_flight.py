"""Pushes in the air: nobody sees them before the log has spoken, and they end as the log says."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
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
from gradledger_server.replica import Answer, Hot, listed, plateaus
from gradledger_server.store.contract import SMALL_BYTES
from tests.replica.sky import SGD, Ear, Heard, Sky, Word, down, fly
from tests.replica.world import state_digest

PULSE_S = 0.03  # long enough for a thread to come as far as it can


# -- nothing is seen -----------------------------------------------------------------------------

ASKED: dict[str, Callable[[Hot], Any]] = {
    "a look": lambda hot: hot.look().step,
    "a view": lambda hot: hot.view("train").step,
    "a copy": lambda hot: hot.copy()[0].step,
    "the entries": lambda hot: len(listed(hot, 1, 10).entries),
    "the news": lambda hot: hot.news(None, 10).step,
    "a receipt": lambda hot: hot.receipt("a", 1).step,
    "what a schedule has seen": lambda hot: len(plateaus(hot)) + 1,
    "a snapshot": lambda hot: int(hot.save()),
    "a condition": lambda hot: 1 if hot.decide(lambda _: None) is None else 0,
}


@pytest.mark.parametrize("asked", ASKED)
def test_whoever_asks_waits_for_the_log_s_word(asked: str) -> None:
    async def story(sky: Sky) -> None:
        before = sky.hot.published
        heard = sky.hasten("a", 1)
        await asyncio.sleep(0)
        assert sky.hot.model.step == 1, "it is applied meanwhile"
        asking = asyncio.create_task(sky.mailbox.run(ASKED[asked]))
        await asyncio.sleep(PULSE_S)
        assert not asking.done()
        assert (heard, sky.hot.published) == ([], before)
        sky.log.say()
        assert await asking == 1
        await down(heard)
        assert sky.free

    fly(story)


def test_a_look_does_not_wait_and_sees_nothing_of_it() -> None:
    async def story(sky: Sky) -> None:
        before = await sky.mailbox.look()
        heard = sky.hasten("a", 1)
        await asyncio.sleep(0)
        assert sky.mailbox.busy
        assert sky.mailbox.latest is await sky.mailbox.look() is sky.hot.published is before
        assert before.array("w").tolist() == [0, 0]
        sky.log.say()
        (answer,) = await down(heard)
        assert isinstance(answer, Answer)
        assert sky.mailbox.latest is await sky.mailbox.look() is answer.published
        assert answer.published.array("w").tolist() == [-1, 0]
        assert not sky.mailbox.busy

    fly(story)


def test_who_waits_for_a_step_wakes_when_the_log_has_it() -> None:
    async def story(sky: Sky) -> None:
        before = await sky.mailbox.look()
        waiting = asyncio.create_task(sky.mailbox.look_after(before.etag, 10))
        news = asyncio.create_task(sky.mailbox.news(sky.hot.playback.ring.end, 10, 10))
        await asyncio.sleep(PULSE_S)
        sky.hasten("a", 1)
        await asyncio.sleep(PULSE_S)
        assert not waiting.done() and not news.done()
        sky.log.say()
        assert (await asyncio.wait_for(waiting, 1)).step == 1
        assert [event.kind for event in (await asyncio.wait_for(news, 1)).events] == ["step"]

    fly(story)


# -- the same as the ordinary way ----------------------------------------------------------------

SPECS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": SGD},
    "adam": {"optimizer": {"rule": "adam", "lr": 0.1}},
    "a schedule": {
        "optimizer": {"rule": "momentum", "lr": 0.5},
        "schedule": {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 3},
    },
    "gradients that are gathered": {"optimizer": SGD, "transforms": {"accumulate": {"every": 3}}},
    "clipped and averaged": {
        "optimizer": SGD,
        "transforms": {"clip_global_norm": {"max_norm": 0.1}, "ema": {"decay": 0.9}},
    },
    "stale ones count less": {"optimizer": SGD, "sync": {"mode": "async", "staleness": {"scale": 0.5}}},
}


async def pushed(sky: Sky, in_the_air: int) -> list[Answer]:
    """Thirty pushes of three workers; with nobody in the air, the ordinary way."""
    dice, told = np.random.default_rng(7), []
    for index in range(0, 30, max(1, in_the_air)):
        wishes = [(f"w{i % 3}", 1 + i // 3, float(dice.normal())) for i in range(index, index + in_the_air)]
        if in_the_air:
            heard = [sky.hasten(*wish) for wish in wishes]
            while sky.log.air:
                sky.log.say()
            told += await down(*heard)
        else:
            told.append(await sky.push(f"w{index % 3}", 1 + index // 3, float(dice.normal())))
    assert all(isinstance(answer, Answer) for answer in told)
    return [answer for answer in told if isinstance(answer, Answer)]


def evidence(sky: Sky, answers: Sequence[Answer]) -> Any:
    """All that was told, and all that the model is."""
    ring = sky.hot.playback.ring
    events, _ = ring.after(ring.floor, 1000)
    shown = [(a.receipt, a.replayed, a.rows, a.published.step, a.published.block.tobytes()) for a in answers]
    assert state_digest(sky.hot.model) == sky.digest_again()
    return shown, [event.told() for event in events], state_digest(sky.hot.model), sky.hot.playback.chain


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("in_the_air", [1, 2, 5])
def test_it_is_the_ordinary_way_bit_for_bit(spec: str, in_the_air: int) -> None:
    seen: list[Any] = []

    def told(count: int) -> Callable[[Sky], Any]:
        async def story(sky: Sky) -> None:
            seen.append(evidence(sky, await pushed(sky, count)))
            assert sky.log.posted == (30 if count else 0)

        return story

    fly(told(0), spec=SPECS[spec])
    fly(told(in_the_air), spec=SPECS[spec])
    assert seen[0] == seen[1]


def test_each_is_answered_in_its_turn_with_the_step_it_made() -> None:
    async def story(sky: Sky) -> None:
        order: list[int] = []
        wishes = [("a", 1), ("b", 1), ("a", 2), ("c", 1), ("a", 3)]
        for index, wish in enumerate(wishes):
            assert sky.mailbox.hasten(sky.draft(*wish, 2.0**index), Ear(noting(order, index)))
        assert sky.log.posted == 5
        for index in range(5):
            assert (order, sky.sum) == (list(range(index)), 2.0**index - 1)
            sky.log.say()
        assert order == list(range(5))
        assert sky.free

    fly(story)


def noting(order: list[int], index: int) -> Callable[[object], None]:
    return lambda _: order.append(index)


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
        assert isinstance(gap, SequenceGap) and gap.facts == {"expected": 1}
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
    monkeypatch.setattr("gradledger_server.replica.mailbox.POLL_S", 60.0)

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
        heard = [sky.hasten(f"w{index}", 1, 2.0**index) for index in range(at + 1)]
        await asyncio.sleep(0)
        assert not sky.mailbox.hastens, "nothing follows a broken state"
        while sky.log.air:
            require_only_the_logged(sky)
            sky.log.say()
        told = await down(*heard)
        assert [a.receipt.step if isinstance(a, Answer) else a for a in told] == list(range(1, at + 2))
        assert sky.sum == sum(sky.logged()) == 2 ** (at + 1) - 1
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


# -- others get their turn -----------------------------------------------------------------------


@pytest.mark.parametrize("work", [Hot.save, Hot.look, Hot.copy])
def test_a_thread_gets_the_model_although_pushes_keep_coming(work: Callable[[Hot], object]) -> None:
    async def story(sky: Sky) -> None:
        asking: asyncio.Task[object] | None = None
        sequence, ordinary = itertools.count(1), 0
        heard = [sky.hasten("a", next(sequence))]
        while asking is None or not asking.done():
            draft = sky.draft("a", n := next(sequence))
            heard.append([])
            if not sky.mailbox.hasten(draft, Ear(heard[-1].append)):
                ordinary += 1
                while sky.log.air:  # one was always in the air till now
                    sky.log.say()
                heard[-1].append(await sky.mailbox.push(draft))
            elif len(sky.log.air) > 1:
                sky.log.say()
            if n == 20:
                asking = asyncio.create_task(sky.mailbox.run(work))
            if n > 20:
                await asyncio.sleep(0.001)
            assert n < 200, "it waits for ever"
        assert ordinary, "it was made room for"
        while sky.log.air:
            sky.log.say()
        assert all(isinstance(answer, Answer) for answer in await down(*heard))
        assert sky.sum == len(heard)

    fly(story)


# -- what is not for the air ---------------------------------------------------------------------

UNUSUAL: dict[str, dict[str, Any]] = {
    "a repeat": {"worker": "a", "sequence": 1},
    "a repeat with another body": {"worker": "a", "sequence": 1, "number": 9.0},
    "a gap": {"worker": "a", "sequence": 3},
    "a first that is none": {"worker": "b", "sequence": 2},
    "nobody's": {"worker": None, "sequence": None},
    "one with a key": {"worker": None, "sequence": None, "key": "k"},
    "a base to come": {"worker": "a", "sequence": 2, "base": 7},
    "one of a worker in quarantine": {"worker": "q", "sequence": 1},
    "one that is too stale": {"worker": "a", "sequence": 2, "base": 0},
}
STRICT = {"optimizer": SGD, "sync": {"mode": "async", "staleness": {"max": 0}}}


@pytest.mark.parametrize("in_the_air", [0, 1])
@pytest.mark.parametrize("unusual", UNUSUAL)
def test_what_is_not_the_usual_is_left_alone(unusual: str, in_the_air: int) -> None:
    async def story(sky: Sky) -> None:
        await sky.push("a", 1)
        await sky.mailbox.run(lambda _: sky.world.quarantine("m", "q", begins=True))
        heard = [sky.hasten("c", 1) for _ in range(in_the_air)]
        before = state_digest(sky.hot.model) if not in_the_air else ""
        assert not sky.mailbox.hasten(sky.draft(**UNUSUAL[unusual]), Ear(never))
        assert (len(sky.log.air), sky.free) == (in_the_air, not in_the_air)
        assert in_the_air or state_digest(sky.hot.model) == before
        while sky.log.air:
            sky.log.say()
        assert all(isinstance(answer, Answer) for answer in await down(*heard))
        assert sky.free

    fly(story, spec=STRICT)


def never(answer: object) -> None:
    raise AssertionError(f"told {answer} of a push that was not taken")


def test_the_refused_are_told_why_the_ordinary_way() -> None:
    async def story(sky: Sky) -> None:
        heard = sky.hasten("a", 1)
        gap = asyncio.create_task(sky.push("a", 3))
        await asyncio.sleep(PULSE_S)
        assert not sky.mailbox.hastens, "somebody waits already: who comes later does not go first"
        sky.log.say()
        with pytest.raises(SequenceGap):
            await gap
        await down(heard)

    fly(story)


SHAPES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "a large model": ((100_000,), {"optimizer": SGD}),
    "a push too large for the loop": ((SMALL_BYTES // 4,), {"optimizer": SGD}),
    "rounds": ((2,), {"optimizer": SGD, "sync": {"mode": "bsp", "workers": 2}}),
    "gradients that wait for others": ((2,), {"optimizer": SGD, "sync": {"mode": "buffered", "take": 2}}),
    "a rule for whole tensors": ((2, 2), {"optimizer": {"rule": "muon", "lr": 0.1}}),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_models_of_another_kind_have_no_air(kind: str) -> None:
    shape, spec = SHAPES[kind]

    async def story(sky: Sky) -> None:
        zeros = {"w": np.zeros(shape, np.float32)}
        sky.world.create("other", {"w": shape}, zeros, **spec)
        hot = sky.world.hot("other")
        mailbox = type(sky.mailbox)(hot, sky.log, sky.threads)
        await mailbox.look()
        draft = sky.world.draft("other", zeros, worker="a", sequence=1)
        assert not mailbox.hasten(draft, Ear(never))
        assert not sky.log.air and hot.lock.take()
        hot.lock.give()
        assert (await mailbox.push(draft)).receipt.offset == 2

    fly(story)


def test_a_model_without_values_has_no_air() -> None:
    async def story(sky: Sky) -> None:
        sky.world.create("other", {"w": (2,)}, None, optimizer=SGD)
        mailbox = type(sky.mailbox)(sky.world.hot("other"), sky.log, sky.threads)
        await mailbox.look()
        draft = sky.world.draft("other", {"w": np.ones(2, np.float32)}, worker="a", sequence=1)
        assert not mailbox.hasten(draft, Ear(never))
        assert not sky.log.air and sky.free

    fly(story)


def test_without_the_server_to_itself_nothing_flies() -> None:
    async def story(sky: Sky) -> None:
        sky.log.tenure = None
        assert not sky.mailbox.hasten(sky.draft("a", 1), Ear(never))
        assert (sky.log.posted, sky.free) == (0, True)
        sky.log.tenure = 5
        assert not sky.mailbox.hasten(sky.draft("a", 1), Ear(never)), "it has to be looked where the log ends"
        await sky.ready()
        heard = sky.hasten("a", 1)
        sky.log.say()
        await down(heard)

    fly(story)


def test_who_comes_later_does_not_go_first() -> None:
    async def story(sky: Sky) -> None:
        waiting = asyncio.create_task(sky.push("a", 1))
        await asyncio.sleep(0)  # it waits in the mailbox, and nobody is at work yet
        assert not sky.mailbox.hasten(sky.draft("b", 1), Ear(never))
        assert (await waiting).receipt.step == 1
        assert not sky.log.air

    fly(story)


def test_a_line_that_is_lost_at_the_last_moment_leaves_no_trace() -> None:
    async def story(sky: Sky) -> None:
        sky.log.broken = True
        assert not sky.mailbox.hasten(sky.draft("a", 1), Ear(never))
        assert (sky.log.posted, sky.free) == (0, True)
        sky.log.broken = False
        heard = sky.hasten("a", 1)
        sky.log.broken = True
        assert not sky.mailbox.hasten(sky.draft("b", 1), Ear(never))
        assert not sky.free, "the one in the air still holds it"
        sky.log.say()
        await down(heard)
        assert (sky.sum, sky.free) == (1, True)

    fly(story)


def test_while_a_thread_works_on_the_model_nothing_flies() -> None:
    async def story(sky: Sky) -> None:
        assert sky.hot.lock.take()
        assert not sky.mailbox.hasten(sky.draft("a", 1), Ear(never))
        assert not sky.log.air
        sky.hot.lock.give()
        assert sky.mailbox.hastens

    fly(story)


def test_a_model_goes_with_its_last_user() -> None:
    """What holds gigabytes must not wait for the collector."""

    async def story(sky: Sky) -> None:
        heard = sky.hasten("a", 1)
        await asyncio.sleep(0)
        sky.log.say()
        await down(heard)
        heard.clear()
        await asyncio.sleep(0)
        gone = weakref.ref(sky.hot), weakref.ref(sky.mailbox)
        gc.disable()
        try:
            sky.open()
            await asyncio.sleep(0)
            assert [one() for one in gone] == [None, None]
        finally:
            gc.enable()

    fly(story)
