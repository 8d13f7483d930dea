"""Pushes and pulls that wait together, clients that hang up, and a store that fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gradledger_server.errors import SequenceGap, StoreUnavailable
from gradledger_server.replica import Answer, Hot, Mailbox
from gradledger_server.store.contract import Append, AsyncLog, Outcome
from gradledger_server.store.memory import InlineLog, MemoryStore
from tests.replica.world import World


class Counting(MemoryStore):
    """Counts appends; `hold` delays them, `lost` makes the next one fail after it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.appends: list[int] = []
        self.hold: threading.Event | None = None
        self.lost = False

    def append(self, epoch: str, appends: Sequence[Append]) -> list[Outcome]:
        if self.hold is not None:
            self.hold.wait(10)
        self.appends.append(len(appends))
        outcomes = super().append(epoch, appends)
        if self.lost:
            self.lost = False
            raise StoreUnavailable("the answer was lost")
        return outcomes

    def async_log(self) -> AsyncLog:
        return Patient(self)


class Patient(InlineLog):
    """Waits for the store on a thread: `hold` must not hold up the event loop."""

    async def append(self, epoch: str, appends: Sequence[Append]) -> list[Outcome]:
        return await asyncio.to_thread(self._store.append, epoch, appends)


class Post:
    """A world with one model `m` and a mailbox for it."""

    def __init__(self) -> None:
        self.store = Counting()
        self.world = World(self.store)
        self.world.create(
            "m", {"w": (2,)}, {"w": np.zeros(2, np.float32)}, optimizer={"rule": "sgd", "lr": 1.0}
        )
        self.threads = ThreadPoolExecutor(4)
        self.mailbox = Mailbox(self.world.hot("m"), self.store.async_log(), self.threads)

    def push(self, worker: str, sequence: int, number: float = 1.0) -> Coroutine[Any, Any, Answer]:
        gradient = {"w": np.array([number, 0], np.float32)}
        return self.mailbox.push(self.world.draft("m", gradient, worker=worker, sequence=sequence))


def run(story: Callable[[Post], Coroutine[Any, Any, None]]) -> None:
    async def told() -> None:
        post = Post()
        await story(post)
        post.threads.shutdown()

    asyncio.run(told())


def test_pushes_that_wait_together_share_one_append_and_keep_their_order() -> None:
    async def story(post: Post) -> None:
        pushes = [post.push(f"w{i % 4}", 1 + i // 4) for i in range(20)]
        answers = await asyncio.gather(*pushes)
        assert post.store.appends == [20]
        assert [answer.receipt.offset for answer in answers] == list(range(2, 22))
        assert {answer.published.step for answer in answers} == {20}

    run(story)


def test_a_refusal_is_the_affair_of_one_push() -> None:
    async def story(post: Post) -> None:
        pushes = [post.push("a", 1), post.push("a", 3), post.push("b", 1)]
        answers = await asyncio.gather(*pushes, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Answer, SequenceGap, Answer]
        assert (await post.mailbox.look()).step == 2

    run(story)


def test_a_client_that_hangs_up_does_not_stop_its_push_or_mix_up_the_others() -> None:
    async def story(post: Post) -> None:
        post.store.hold = threading.Event()
        tasks = [asyncio.create_task(post.push(f"w{i}", 1, number=i)) for i in range(10)]
        await asyncio.sleep(0.05)
        for task in tasks[::2]:
            task.cancel()
        post.store.hold.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for i, answer in enumerate(answers):
            if i % 2:
                assert isinstance(answer, Answer)
                assert answer.receipt.worker == f"w{i}"
            else:
                assert isinstance(answer, asyncio.CancelledError)
        published = await post.mailbox.look()
        assert published.step == 10
        assert published.array("w").tolist() == [-45.0, 0.0]

    run(story)


def test_a_lost_answer_fails_all_who_waited_and_a_repeat_finds_what_was_made() -> None:
    async def story(post: Post) -> None:
        post.store.lost = True
        failed = await asyncio.gather(post.push("a", 1), post.push("b", 1), return_exceptions=True)
        assert [type(failure) for failure in failed] == [StoreUnavailable, StoreUnavailable]
        again = await asyncio.gather(post.push("a", 1), post.push("b", 1))
        assert [answer.replayed for answer in again] == [True, True]
        assert [answer.receipt.step for answer in again] == [1, 2]
        assert (await post.mailbox.look()).step == 2

    run(story)


def test_a_waiting_pull_wakes_at_the_next_step() -> None:
    async def story(post: Post) -> None:
        before = await post.mailbox.look()
        waiting = asyncio.create_task(post.mailbox.look_after(before.etag, 10))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await post.push("a", 1)
        after = await asyncio.wait_for(waiting, 1)
        assert after.step == 1

    run(story)


def test_a_waiting_pull_hears_of_another_replicas_step_and_gives_up_in_time() -> None:
    async def story(post: Post) -> None:
        before = await post.mailbox.look()
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert (await post.mailbox.look_after(before.etag, 0.1)) is before
        assert 0.1 <= loop.time() - started < 1
        waiting = asyncio.create_task(post.mailbox.look_after(before.etag, 10))
        await asyncio.sleep(0.05)
        post.world.push("m", {"w": np.ones(2, np.float32)}, "two", worker="z", sequence=1)
        assert (await asyncio.wait_for(waiting, 2)).step == 1

    run(story)


def test_threads_that_wait_for_a_push_do_not_keep_it_from_its_end() -> None:
    """It holds the model's lock while it waits for the log, and after that may need a thread itself."""

    async def story(post: Post) -> None:
        await post.push("a", 1)
        post.store.hold = threading.Event()
        again = asyncio.create_task(post.push("a", 1))  # its receipt has to be looked for
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(post.mailbox.run(Hot.look)) for _ in range(8)]  # on all four threads
        await asyncio.sleep(0.05)
        post.store.hold.set()
        async with asyncio.timeout(5):
            assert (await again).replayed
            assert {look.step for look in await asyncio.gather(*waiting)} == {1}

    run(story)


def test_looks_and_pushes_that_wait_together_see_one_another() -> None:
    async def story(post: Post) -> None:
        looked, pushed = await asyncio.gather(post.mailbox.look(), post.push("a", 1))
        assert looked.step == pushed.receipt.step == 1

    run(story)


def test_nobody_looks_after_the_leases_of_a_deleted_model() -> None:
    """An alarm that rings for ever would keep a core busy, and the model in memory."""

    async def story(post: Post) -> None:
        spec: dict[str, Any] = {"optimizer": {"rule": "sgd"}, "sync": {"mode": "bsp"}}
        post.world.create("rounds", {"w": (2,)}, {"w": np.zeros(2, np.float32)}, **spec)
        hot, rings = post.world.hot("rounds"), 0
        mailbox = Mailbox(hot, post.store.async_log(), post.threads)
        # Joined before time began: its lease has long run out.
        await mailbox.run(lambda hot: hot.playback.model.rounds.join("a", 0))
        time_out = hot.time_out

        def ring(now_ms: int) -> None:
            nonlocal rings
            rings += 1
            time_out(now_ms)

        hot.time_out = ring  # type: ignore[method-assign]
        post.world.delete("rounds")
        await asyncio.sleep(0.3)
        assert 1 <= rings <= 2

    run(story)
