"""Appends that are posted, and not waited for, on the event loop's line: what became of them is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from gradledger_server.errors import GradledgerError, StoreFull, StoreUnavailable
from gradledger_server.store import MemoryStore, RedisStore, Store, keys
from gradledger_server.store.contract import Appended, AsyncLog, Gap, Gone, Moved, Outcome, Seen
from gradledger_server.store.memory import InlineLog
from tests.store.conftest import asking, push, record

PAYLOADS = {
    "inside the entry": b"bytes",
    "the largest inside": bytes(keys.INLINE_BYTES),
    "a chunk": bytes(range(251)) * 262,
    "a whole chunk": bytes(keys.CHUNK_BYTES),
    "two chunks": bytes(range(241)) * 4_400,
}
"""Each is of another size; the last three do not fit into an entry."""


def chunks_there(client: redis.Redis) -> list[int]:
    """How long each chunk in the server lives yet: -1 for good."""
    return [client.ttl(key) for key in client.keys("gradledger:{epoch}:chunk:*")]


class Post:
    """A log that is asked without waiting, and what it told, in its order, under the names given."""

    def __init__(self, soon: AsyncLog, epoch: str = "epoch") -> None:
        self._soon, self._epoch = soon, epoch
        self.told: list[tuple[str, Outcome | GradledgerError]] = []

    def send(self, name: str, payload: bytes = b"", **wish: object) -> bool:
        wanted = push(name, payload, **wish)
        return self._soon.post(self._epoch, wanted, lambda outcome: self.told.append((name, outcome)))

    async def until(self, count: int) -> list[Any]:
        """So much as was told, which is no more than that."""
        async with asyncio.timeout(5):
            while len(self.told) < count:
                await asyncio.sleep(0.001)
        assert len(self.told) == count
        return [outcome for _, outcome in self.told]


@pytest.fixture
def admin(alone: RedisStore) -> Iterator[redis.Redis]:
    """The server that `alone` has to itself, with a log in it."""
    alone.create("model", "epoch", record("create"))
    with redis.Redis.from_url(alone.url, protocol=2) as client:
        yield client


@pytest.mark.usefixtures("admin")
def test_what_is_posted_and_what_is_asked_keep_their_order(alone: RedisStore) -> None:
    async def story(soon: AsyncLog) -> None:
        post, asked = Post(soon), []
        await soon.head("epoch")
        for round_ in range(20):
            assert post.send(f"{round_} before")
            asked.append(asyncio.create_task(soon.append("epoch", [push(f"{round_} asked")])))
            await asyncio.sleep(0)
            assert post.send(f"{round_} after")
        outcomes = await post.until(40)
        between = [(await one)[0] for one in asked]
        assert [outcome.offset for outcome in outcomes[::2]] == list(range(2, 62, 3))
        assert [outcome.offset for outcome in outcomes[1::2]] == list(range(4, 62, 3))
        assert [outcome.offset for outcome in between if isinstance(outcome, Appended)] == list(
            range(3, 62, 3)
        )
        metas = [entry.record.meta.decode() for entry in alone.read("epoch", 1)]
        assert metas == [f"{i} {which}" for i in range(20) for which in ("before", "asked", "after")]

    asking(alone, story)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_what_became_of_a_posted_push_is_told_later_and_once(
    alone: RedisStore, admin: redis.Redis, payload: bytes
) -> None:
    async def story(soon: AsyncLog) -> None:
        post, gone = Post(soon), Post(soon, "nobody")
        await soon.head("epoch")
        assert post.send("first", payload, identity="w:a", sequence=1)
        assert post.send("again", payload, identity="w:a", sequence=1)
        assert post.send("gap", payload, identity="w:a", sequence=3)
        assert post.send("moved", payload, expected="another")
        assert gone.send("gone", payload)
        assert post.told == gone.told == []
        (first, *others), (nobody,) = await post.until(4), await gone.until(1)
        [entry] = alone.read("epoch", 1)
        assert first == Appended(2, entry.chain)
        assert entry.record.payload == payload
        assert [*others, nobody] == [Seen(), Gap(2), Moved(), Gone()]
        await asyncio.sleep(0.05)
        assert len(post.told) == 4
        kept = 0 if len(payload) <= keys.INLINE_BYTES else -(-len(payload) // keys.CHUNK_BYTES)
        assert chunks_there(admin) == [-1] * kept, "and nothing of those that were refused"
        assert not admin.keys("gradledger:{nobody}:*")

    asking(alone, story)


@pytest.mark.usefixtures("admin")
def test_payloads_of_every_size_come_to_lie_as_they_were_posted(alone: RedisStore) -> None:
    said = [*PAYLOADS.items()] * 4

    async def story(soon: AsyncLog) -> None:
        post = Post(soon)
        await soon.head("epoch")
        for name, payload in said:
            assert post.send(name, payload)
        assert [outcome.offset for outcome in await post.until(len(said))] == list(range(2, 2 + len(said)))

    asking(alone, story)
    entries = [(entry.record.meta.decode(), bytes(entry.record.payload)) for entry in alone.read("epoch", 1)]
    assert entries == said


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_posted_push_is_told_of_an_error(alone: RedisStore, admin: redis.Redis, payload: bytes) -> None:
    async def story(soon: AsyncLog) -> None:
        post, odd = Post(soon), Post(soon, "odd")
        await soon.head("epoch")
        admin.hset("gradledger:{odd}:head", mapping={"offset": "1", "chain": "x"})
        admin.set("gradledger:{odd}:log", "no stream")
        assert odd.send("refused", payload)
        (refused,) = await odd.until(1)
        assert isinstance(refused, StoreUnavailable)
        admin.config_set("maxmemory", 1)
        assert post.send("too much", payload)
        (full,) = await post.until(1)
        admin.config_set("maxmemory", 0)
        assert isinstance(full, StoreFull)
        assert chunks_there(admin) == []
        assert post.send("fine", payload)
        assert (await post.until(2))[1].offset == 2, "nothing of the other is there"

    asking(alone, story)


def test_a_lost_line_is_told_to_everybody_who_posted(alone: RedisStore, admin: redis.Redis) -> None:
    async def story(soon: AsyncLog) -> None:
        post = Post(soon)
        await soon.head("epoch")
        tenures = [soon.tenure]
        admin.client_pause(200)  # the next commands lie there unanswered
        assert all(post.send(f"{i}") for i in range(3))
        asked = asyncio.create_task(soon.append("epoch", [push("asked")]))
        await asyncio.sleep(0.02)
        admin.client_kill_filter(_type="normal", skipme=True)
        told = await post.until(3)
        assert [type(outcome) for outcome in told] == [StoreUnavailable] * 3
        with pytest.raises(StoreUnavailable):
            await asked
        assert not post.send("nobody hears it")
        tenures.append(soon.tenure)
        await soon.head("epoch")
        assert [*tenures, soon.tenure] == [1, None, 2]
        assert post.send("heard")
        assert isinstance((await post.until(4))[3], Appended)

    asking(alone, story)


@pytest.mark.usefixtures("admin")
def test_who_hangs_up_tells_those_who_posted(alone: RedisStore) -> None:
    async def story(soon: AsyncLog) -> None:
        post = Post(soon)
        await soon.head("epoch")
        assert post.send("late")
        soon.close()
        assert isinstance((await post.until(1))[0], StoreUnavailable)
        assert not post.send("later")

    asking(alone, story)


@pytest.mark.usefixtures("admin")
def test_nothing_is_posted_without_a_line(alone: RedisStore) -> None:
    async def story(soon: AsyncLog) -> None:
        post = Post(soon)
        assert not post.send("too early")
        await soon.head("epoch")
        await asyncio.sleep(0.01)
        assert post.told == []
        head = alone.head("epoch")
        assert head is not None and head.offset == 1

    asking(alone, story)


def test_what_is_posted_to_a_shared_log_comes_behind_what_others_wrote(store: Store, log: str) -> None:
    async def story(soon: AsyncLog) -> None:
        post = Post(soon, log)
        await soon.head(log)
        store.append(log, [push("theirs")])
        assert post.send("ours")
        (ours,) = await post.until(1)
        assert (soon.tenure, ours.offset) == (None, 3)

    asking(store, story)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_after_the_server_forgot_the_scripts_a_posted_push_may_be_repeated(
    alone: RedisStore, admin: redis.Redis, payload: bytes
) -> None:
    async def story(soon: AsyncLog) -> None:
        post = Post(soon)
        await soon.head("epoch")
        admin.script_flush()
        assert post.send("unheard", payload, identity="w:a", sequence=1)
        assert isinstance((await post.until(1))[0], StoreUnavailable)
        assert all(ttl > 0 for ttl in chunks_there(admin))
        [again] = await soon.append("epoch", [push("heard", payload, identity="w:a", sequence=1)])
        assert isinstance(again, Appended) and again.offset == 2, "it certainly did not run"
        assert post.send("next", identity="w:a", sequence=2)
        assert (await post.until(2))[1].offset == 3

    asking(alone, story)


def test_the_plain_log_posts_as_the_real_one_does() -> None:
    class Sole(InlineLog):
        tenure = 1

    async def story() -> None:
        store = MemoryStore()
        store.create("model", "epoch", record("create"))
        post = Post(Sole(store))
        assert post.send("first", identity="w:a", sequence=1)
        assert post.send("again", identity="w:a", sequence=1)
        assert post.told == [], "later, not at once"
        first, again = await post.until(2)
        assert (first.offset, again) == (2, Seen())

    asyncio.run(story())
