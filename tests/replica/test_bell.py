"""The bell: whoever waits hears of what happens from the question on, and waits no longer than it may."""

from __future__ import annotations

import asyncio
import time

import pytest

from gradledger_server.replica.bell import Bell
from tests.replica.sky import Sky, fly

LONG_S = 10.0


def never(_: object) -> bool:
    return False


def step(sky: Sky, bell: Bell) -> None:
    """As if the model had made one."""
    published = sky.mailbox.hot.published
    bell.ring(published._replace(step=published.step - 1), published)


@pytest.mark.parametrize("kind", ["step", "entry"])
def test_what_happens_while_the_question_is_on_its_way_counts(kind: str) -> None:
    async def story(sky: Sky) -> None:
        playback = sky.mailbox.hot.playback
        bell = Bell(playback, sky.mailbox.look)
        happened = [0]

        async def ask() -> int:
            found = happened[0]  # and by the time it is told, it is old
            if found == 0:
                happened[0] = 1
                playback.saved += 1
                step(sky, bell)
            await asyncio.sleep(0)
            return found

        began = time.monotonic()
        assert await getattr(bell, kind)(ask, lambda found: found == 1, LONG_S) == 1
        assert time.monotonic() - began < LONG_S / 2

    fly(story)


def test_it_does_not_wait_longer_than_it_may() -> None:
    async def story(sky: Sky) -> None:
        bell = Bell(sky.mailbox.hot.playback, sky.mailbox.look)
        asked = []

        async def ask() -> int:
            asked.append(time.monotonic())
            return len(asked)

        assert await bell.step(ask, never, 0.0) == 1
        assert await bell.step(ask, never, 0.05) == 3
        assert asked[2] - asked[1] >= 0.05

    fly(story)


def test_the_released_are_answered_now_and_from_then_on() -> None:
    async def story(sky: Sky) -> None:
        bell = Bell(sky.mailbox.hot.playback, sky.mailbox.look)

        async def ask() -> str:
            return "as it is"

        waiting = asyncio.create_task(bell.entry(ask, never, LONG_S))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        bell.release()
        assert await asyncio.wait_for(waiting, 5) == "as it is"
        assert await asyncio.wait_for(bell.step(ask, never, LONG_S), 5) == "as it is"

    fly(story)
