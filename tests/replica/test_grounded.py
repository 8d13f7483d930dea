"""What is not for the air goes the ordinary way, and leaves no trace there."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from gradledger_server.errors import (
    SequenceGap,
)
from gradledger_server.machine.model import SMALL_BYTES as SMALL_BYTES_OF_MODEL
from gradledger_server.replica import Answer
from gradledger_server.store.contract import SMALL_BYTES
from tests.replica.sky import PULSE_S, SGD, Ear, Sky, down, fly
from tests.replica.world import state_digest

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


LARGEST = SMALL_BYTES_OF_MODEL // 4  # float32 numbers
SHAPES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "a large model": ((LARGEST + 1,), {"optimizer": SGD}),
    "a push too large for the loop": ((LARGEST,), {"optimizer": SGD}),
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
        gradient = zeros
        if kind == "a push too large for the loop":
            gradient = {"w": np.zeros(shape, np.float64)}
            assert gradient["w"].nbytes > SMALL_BYTES
        draft = sky.world.draft("other", gradient, worker="a", sequence=1)
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
