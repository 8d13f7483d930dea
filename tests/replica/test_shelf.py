"""The models a replica holds: quiet ones are saved and dropped, deleted ones go, new ones come instead."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from gradledger_server.machine import spec as specs
from gradledger_server.replica import Cadence, Hot, Replica, Sender
from gradledger_server.store.contract import Store
from gradledger_server.store.memory import MemoryStore
from tests.replica.world import NUMPY, World, tensors_of

QUICK = Cadence(quiet_s=0.05, drop_s=0.3, tick_s=0.02)


def replica_story(
    story: Callable[[World, Replica], Coroutine[Any, Any, None]], cadence: Cadence = QUICK
) -> None:
    async def told() -> None:
        store: Store = MemoryStore()
        world = World(store)
        world.create("m", {"w": (2,)}, {"w": np.zeros(2, np.float32)}, optimizer={"rule": "sgd", "lr": 1.0})
        async with Replica(store, NUMPY, cadence) as replica:
            await story(world, replica)

    asyncio.run(told())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)


def test_a_quiet_model_is_saved_then_dropped_and_comes_back() -> None:
    async def story(world: World, replica: Replica) -> None:
        mailbox = await replica.shelf.open("m")
        await mailbox.push(world.draft("m", {"w": np.ones(2, np.float32)}, worker="a", sequence=1))
        epoch = mailbox.hot.epoch
        await until(lambda: (head := world.store.head(epoch)) is not None and head.saved == 2)
        await until(lambda: not replica.shelf.loaded())
        again = await replica.shelf.open("m")
        assert again is not mailbox
        assert (await again.look()).array("w").tolist() == [-1.0, -1.0]

    replica_story(story)


def test_many_quiet_models_are_saved_one_after_the_other() -> None:
    """Each costs several pushes: of very many they would leave no time for anything else."""

    async def story(world: World, replica: Replica) -> None:
        names = [f"m{i}" for i in range(12)]
        saves: list[str] = []
        at_once = most = 0
        for name in names:
            world.create(name, {"w": (2,)}, {"w": np.zeros(2, np.float32)}, optimizer={"rule": "sgd"})
        save = Hot.save

        def counted(hot: Hot) -> bool:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            time.sleep(0.005)
            at_once -= 1
            saves.append(hot.name)
            return save(hot)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Hot, "save", counted)
            for name in names:
                mailbox = await replica.shelf.open(name)
                await mailbox.push(world.draft(name, {"w": np.ones(2, np.float32)}, worker="a", sequence=1))
            begun = time.monotonic()
            await until(lambda: len(saves) == len(names))
        assert sorted(saves) == sorted(names), "each once"
        assert most == 1
        assert time.monotonic() - begun > 11 * 0.005 / 0.5, "and with rests in between"

    replica_story(story, Cadence(quiet_s=0.05, tick_s=0.02, saving_share=0.5))


def test_a_model_deleted_elsewhere_leaves_memory() -> None:
    async def story(world: World, replica: Replica) -> None:
        mailbox = await replica.shelf.open("m")
        await mailbox.push(world.draft("m", {"w": np.ones(2, np.float32)}, worker="a", sequence=1))
        world.delete("m")
        await until(lambda: not replica.shelf.loaded())

    replica_story(story)


def test_a_model_others_keep_pushing_to_is_not_quiet_for_a_replica_that_only_reads() -> None:
    async def story(world: World, replica: Replica) -> None:
        mailbox = await replica.shelf.open("m")
        for sequence in range(1, 60):
            world.push("m", {"w": np.ones(2, np.float32)}, worker="a", sequence=sequence)
            assert (await mailbox.look()).step == sequence
            await asyncio.sleep(0.01)
        head = world.store.head(mailbox.hot.epoch)
        assert head is not None
        assert head.saved == 0
        await until(lambda: (head := world.store.head(mailbox.hot.epoch)) is not None and head.saved == 60)

    replica_story(story, Cadence(quiet_s=1.0, tick_s=0.02))


def test_an_orderly_end_saves_what_is_in_memory() -> None:
    epochs: list[tuple[World, Hot]] = []

    async def story(world: World, replica: Replica) -> None:
        mailbox = await replica.shelf.open("m")
        await mailbox.push(world.draft("m", {"w": np.ones(2, np.float32)}, worker="a", sequence=1))
        epochs.append((world, mailbox.hot))

    replica_story(story)
    ((world, hot),) = epochs
    head = world.store.head(hot.epoch)
    assert head is not None
    assert head.saved == head.offset == 2


@pytest.mark.parametrize("shape", [(2,), (3,)])
def test_a_push_meant_for_a_model_made_anew_elsewhere_reaches_the_new_one(shape: tuple[int, ...]) -> None:
    async def story(world: World, replica: Replica) -> None:
        await replica.shelf.open("m")
        world.delete("m", "two")
        values = {"w": np.zeros(shape, np.float32)}
        world.create("m", {"w": shape}, values, optimizer={"rule": "sgd", "lr": 1.0})

        gradient = tensors_of({"w": np.ones(shape, np.float32)})
        answer = await replica.on("m", lambda mailbox: replica.push(mailbox, gradient, Sender("a", 1), None))
        assert answer.receipt.step == 1

    replica_story(story)


def test_a_model_is_prepared_on_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expanding 20,000 tensors takes seconds, and the event loop has others to serve."""
    expanded_on: list[threading.Thread] = []

    def expand(*asked: Any) -> specs.Spec:
        expanded_on.append(threading.current_thread())
        return specs_expand(*asked)

    async def told() -> None:
        async with Replica(MemoryStore(), NUMPY) as replica:
            await replica.create("m", {"optimizer": {"rule": "sgd"}}, {"w": ((2,), "F32")}, None)

    specs_expand = specs.expand
    monkeypatch.setattr(specs, "expand", expand)
    asyncio.run(told())
    assert expanded_on and threading.main_thread() not in expanded_on
