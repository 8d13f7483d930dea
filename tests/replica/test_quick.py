"""Who has the server alone answers without asking it, until something went wrong on the way."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gradledger_server.errors import StoreUnavailable
from gradledger_server.replica import Mailbox
from gradledger_server.store.contract import Head
from gradledger_server.store.memory import InlineLog
from tests.replica.test_mailbox import Counting
from tests.replica.world import World


class Alone(InlineLog):
    """Nobody else writes; counts how often it is asked."""

    tenure = 1
    asked = 0

    async def head(self, epoch: str) -> Head | None:
        self.asked += 1
        return await super().head(epoch)


@pytest.mark.parametrize("by_thread", [False, True])
def test_an_answer_that_was_lost_is_looked_for(*, by_thread: bool) -> None:
    """The push is in the log though nobody was told: what is published is not the latest any more."""

    async def told() -> None:
        store = Counting()
        world, log, threads = World(store), Alone(store), ThreadPoolExecutor(2)
        world.create("m", {"w": (2,)}, {"w": np.zeros(2, np.float32)}, optimizer={"rule": "sgd"})
        mailbox = Mailbox(world.hot("m"), log, threads)
        for _ in range(3):
            assert (await mailbox.look()).step == 0
        assert log.asked == 1
        draft = world.draft("m", {"w": np.ones(2, np.float32)}, worker="a", sequence=1)
        store.lost = True
        with pytest.raises(StoreUnavailable):
            await (mailbox.run(lambda hot: hot.commit([draft])) if by_thread else mailbox.push(draft))
        assert (await mailbox.look()).step == 1
        threads.shutdown()

    asyncio.run(told())
