"""Pushes in the air: nobody sees them before the log has spoken, and they end like any other."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from gradledger_server.replica import Answer, Hot, listed, plateaus
from tests.replica.sky import PULSE_S, SGD, Ear, Heard, Sky, down, fly
from tests.replica.world import state_digest

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


def test_those_of_one_turn_leave_before_the_first_is_applied() -> None:
    async def story(sky: Sky) -> None:
        heard = [sky.hasten(worker, 1) for worker in "abc"]
        assert (sky.log.posted, sky.hot.model.step) == (3, 0)
        await asyncio.sleep(0)
        assert sky.hot.model.step == 3
        for _ in heard:
            sky.log.say()
        await down(*heard)

    fly(story)


def test_a_push_sent_twice_in_one_turn_is_in_the_air_once() -> None:
    async def story(sky: Sky) -> None:
        heard = sky.hasten("a", 1)
        assert not sky.mailbox.hasten(sky.draft("a", 1), Ear(lambda _: None))
        sky.log.say()
        await down(heard)
        assert (sky.log.posted, sky.sum) == (1, 1)

    fly(story)


def test_where_a_bound_looks_at_the_step_it_looks_behind_those_in_the_air() -> None:
    async def story(sky: Sky) -> None:
        heard: list[Heard] = [[], []]
        for index, worker in enumerate("ab"):
            assert sky.mailbox.hasten(sky.draft(worker, 1, base=0), Ear(heard[index].append))
        assert not sky.mailbox.hasten(sky.draft("c", 1, base=0), Ear(lambda _: None)), "two steps behind"
        for _ in heard:
            sky.log.say()
        await down(*heard)

    bounded = {"optimizer": SGD, "sync": {"mode": "async", "staleness": {"max": 1}}}
    fly(story, spec=bounded)


def noting(order: list[int], index: int) -> Callable[[object], None]:
    return lambda _: order.append(index)


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
