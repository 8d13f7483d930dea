"""Who has the server alone answers without asking it, until something went wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gradledger_server.entries import Record
from gradledger_server.errors import ModelNotFound, StoreUnavailable
from gradledger_server.replica import Mailbox, Replica
from gradledger_server.store.contract import AsyncLog, Head
from gradledger_server.store.memory import InlineLog, MemoryStore
from tests.replica.test_mailbox import Counting
from tests.replica.world import NUMPY, World


class Alone(InlineLog):
    """Nobody else writes; counts how often it is asked."""

    tenure = 1
    asked = 0

    async def head(self, epoch: str) -> Head | None:
        self.asked += 1
        return await super().head(epoch)


class Sole(MemoryStore):
    """Nobody else writes. Somebody looks just before a model is deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.look: Callable[[], object] = lambda: None

    def delete(self, name: str, epoch: str, record: Record) -> bool:
        self.look()
        return super().delete(name, epoch, record)

    def async_log(self) -> AsyncLog:
        return Alone(self)


def test_a_look_in_the_middle_of_a_deletion_is_not_relied_on_after_it() -> None:
    async def told() -> None:
        store = Sole()
        world, loop = World(store), asyncio.get_running_loop()
        world.create("m", {"w": (2,)}, {"w": np.zeros(2, np.float32)}, optimizer={"rule": "sgd"})
        async with Replica(store, NUMPY) as replica:
            mailbox = await replica.shelf.open("m")
            store.look = lambda: asyncio.run_coroutine_threadsafe(mailbox.look(), loop).result(5)
            await replica.delete("m", None)
            assert mailbox.latest is None
            with pytest.raises(ModelNotFound):
                await mailbox.look()

    asyncio.run(told())


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
