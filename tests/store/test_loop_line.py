"""The log as an event loop asks it: the same answers, and one lost line is never taken for a whole one."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from gradledger_server.errors import GradledgerError, StoreFull, StoreUnavailable
from gradledger_server.store import Embedded, MemoryStore, RedisStore, Store, open_store
from gradledger_server.store.connection import Connection
from gradledger_server.store.contract import Appended, AsyncLog, Gap, Gone, Head, Moved, Outcome, Seen
from gradledger_server.store.loop_line import LoopLine
from gradledger_server.store.memory import InlineLog
from tests.store.conftest import grow, push, record


def asking(store: Store, story: Callable[[AsyncLog], Coroutine[Any, Any, None]]) -> None:
    async def told() -> None:
        log = store.async_log()
        await story(log)
        log.close()

    asyncio.run(told())


def test_it_says_what_the_store_says(store: Store, log: str) -> None:
    async def story(soon: AsyncLog) -> None:
        first, again, gap, moved = await soon.append(
            log,
            [
                push("a", b"payload", identity="w:a", sequence=1),
                push("a", b"payload", identity="w:a", sequence=1),
                push("c", identity="w:a", sequence=3),
                push("d", expected="another"),
            ],
        )
        assert isinstance(first, Appended)
        assert [again, gap, moved] == [Seen(), Gap(2), Moved()]
        assert await soon.head(log) == store.head(log) == Head(2, first.chain, 0)
        assert bytes(store.read(log, 1)[0].record.payload) == b"payload"
        assert await soon.append("nobody", [push("a")]) == [Gone()]
        assert await soon.head("nobody") is None

    asking(store, story)


def test_many_ask_at_once_and_each_gets_its_own_answer(store: Store, log: str) -> None:
    async def story(soon: AsyncLog) -> None:
        asked = [soon.append(log, [push(f"{i}", identity=f"w:{i}", sequence=1)] * 2) for i in range(200)]
        answers = await asyncio.gather(*asked)
        assert all(isinstance(first, Appended) and second == Seen() for first, second in answers)
        offsets = [first.offset for first, _ in answers if isinstance(first, Appended)]
        assert sorted(offsets) == list(range(2, 202))

    asking(store, story)


def test_a_server_that_forgot_the_scripts_is_told_again(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))

    async def story(soon: AsyncLog) -> None:
        assert await soon.head("epoch") is not None
        raw.script_flush()
        wishes = [push(f"{i}", identity="w:a", sequence=i + 1) for i in range(3)]
        assert [type(outcome) for outcome in await soon.append("epoch", wishes)] == [Appended] * 3
        assert await soon.append("epoch", wishes) == [Seen()] * 3

    asking(ledger, story)


def test_a_cut_line_is_made_anew_for_reads_and_told_of_for_writes(
    ledger: RedisStore, raw: redis.Redis
) -> None:
    ledger.create("model", "epoch", record("create"))

    async def story(soon: AsyncLog) -> None:
        for _ in range(3):
            assert await soon.head("epoch") is not None
            raw.client_pause(200)  # the next command lies there unanswered
            asked = asyncio.create_task(soon.append("epoch", [push("a")]))
            await asyncio.sleep(0.05)
            raw.client_unpause() if not raw.client_kill_filter(_type="normal", skipme=True) else None
            with pytest.raises(StoreUnavailable):
                await asked

    asking(ledger, story)


def test_a_server_that_says_nothing_is_given_up(server: Embedded, raw: redis.Redis) -> None:
    async def story() -> None:
        line = LoopLine(Connection(server.url, socket_timeout_s=0.2))
        assert await line.ask([("PING",)]) == [b"PONG"]
        lives = [line.life]
        with pytest.raises(StoreUnavailable, match="no reply"):
            await line.ask([("BLPOP", "nothing", "5")])
        lives.append(line.life)
        assert await line.ask([("ECHO", "mine")]) == [b"mine"], "no reply goes astray"
        assert [*lives, line.life] == [1, None, 2]
        line.close()
        assert not line.post([("PING",)], lambda replies: pytest.fail(f"told {replies} of nothing"))
        with pytest.raises(StoreUnavailable):
            await LoopLine(Connection("unix:///nowhere/valkey.sock")).ask([("PING",)])

    asyncio.run(story())


def test_an_error_is_an_answer_like_others(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))
    raw.set("gradledger:{epoch}:log", "no stream")

    async def story(soon: AsyncLog) -> None:
        with pytest.raises(StoreUnavailable, match="refuses"):
            await soon.append("epoch", [push("a")])
        assert await soon.head("epoch") is not None

    raw.delete("gradledger:{epoch}:log")
    raw.set("gradledger:{epoch}:log", "no stream")
    asking(ledger, story)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RedisStore]:
    store = open_store(None, tmp_path, "memory")
    yield store
    store.close()


def test_only_who_has_the_server_alone_may_rely_on_it(alone: RedisStore, ledger: RedisStore) -> None:
    async def story(soon: AsyncLog) -> None:
        tenures = [soon.tenure]
        assert await soon.head("nobody") is None
        tenures.append(soon.tenure)
        with redis.Redis.from_url(alone.url, protocol=2) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await asyncio.sleep(0.05)
        tenures.append(soon.tenure)
        assert await soon.head("nobody") is None
        assert [*tenures, soon.tenure] == [None, 1, None, 2]

    asking(alone, story)

    async def shared(soon: AsyncLog) -> None:
        assert await soon.head("nobody") is None
        assert soon.tenure is None

    asking(ledger, shared)


def test_growing_by_threads_and_by_the_loop_is_one_log(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))

    async def story(soon: AsyncLog) -> None:
        for offset in range(2, 12, 2):
            [mine] = await soon.append("epoch", [push("mine")])
            [theirs] = grow(ledger, "epoch", 1)
            assert isinstance(mine, Appended)
            assert (mine.offset, theirs.offset) == (offset, offset + 1)

    asking(ledger, story)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_a_line_that_is_encrypted_is_left_to_threads(
    server: Embedded, raw: redis.Redis, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    url = urlsplit(server.url)
    with encrypted(url.path, certificate, key) as port:
        store = RedisStore(f"rediss://localhost:{port}?ssl_cert_reqs=none&{url.query}")
        store.create("model", "epoch", record("create"))

        async def story(soon: AsyncLog) -> None:
            for offset in (2, 3):
                [appended] = await soon.append("epoch", [push("a")])
                head = await soon.head("epoch")
                assert isinstance(appended, Appended)
                assert head is not None
                assert appended.offset == head.offset == offset

        asking(store, story)
        [last] = grow(store, "epoch", 1, payload=bytes(range(256)) * 10_000)
        assert store.read("epoch", last.offset - 1)[0].record.payload == bytes(range(256)) * 10_000
        store.close()


@contextmanager
def encrypted(path: str, certificate: Path, key: Path) -> Iterator[int]:
    """The port of a door with TLS to the socket at `path`."""
    terms = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    terms.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_let_in, args=(listener, terms, path), daemon=True).start()
        yield listener.getsockname()[1]


def _let_in(listener: socket.socket, terms: ssl.SSLContext, path: str) -> None:
    with contextlib.suppress(OSError):  # the door is closed
        while True:
            client, inside = (
                terms.wrap_socket(listener.accept()[0], server_side=True),
                socket.socket(socket.AF_UNIX),
            )
            inside.connect(path)
            for source, target in ((client, inside), (inside, client)):
                threading.Thread(target=_carry, args=(source, target), daemon=True).start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)


# -- without waiting -----------------------------------------------------------------------------


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


@pytest.mark.usefixtures("admin")
def test_what_became_of_a_posted_push_is_told_later_and_once(alone: RedisStore) -> None:
    async def story(soon: AsyncLog) -> None:
        post, gone = Post(soon), Post(soon, "nobody")
        await soon.head("epoch")
        assert post.send("first", payload=b"bytes", identity="w:a", sequence=1)
        assert post.send("again", identity="w:a", sequence=1)
        assert post.send("gap", identity="w:a", sequence=3)
        assert post.send("moved", expected="another")
        assert gone.send("gone")
        assert post.told == gone.told == []
        (first, *others), (nobody,) = await post.until(4), await gone.until(1)
        [entry] = alone.read("epoch", 1)
        assert first == Appended(2, entry.chain)
        assert bytes(entry.record.payload) == b"bytes"
        assert [*others, nobody] == [Seen(), Gap(2), Moved(), Gone()]
        await asyncio.sleep(0.05)
        assert len(post.told) == 4

    asking(alone, story)


def test_a_posted_push_is_told_of_an_error(alone: RedisStore, admin: redis.Redis) -> None:
    async def story(soon: AsyncLog) -> None:
        post, odd = Post(soon), Post(soon, "odd")
        await soon.head("epoch")
        admin.hset("gradledger:{odd}:head", mapping={"offset": "1", "chain": "x"})
        admin.set("gradledger:{odd}:log", "no stream")
        assert odd.send("refused")
        (refused,) = await odd.until(1)
        assert isinstance(refused, StoreUnavailable)
        admin.config_set("maxmemory", 1)
        assert post.send("too much")
        (full,) = await post.until(1)
        admin.config_set("maxmemory", 0)
        assert isinstance(full, StoreFull)
        assert post.send("fine")
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


def test_where_others_write_nothing_is_posted(store: Store, log: str) -> None:
    async def story(soon: AsyncLog) -> None:
        post = Post(soon, log)
        await soon.head(log)
        assert not post.send("shared")
        await asyncio.sleep(0.01)
        assert post.told == []
        head = store.head(log)
        assert head is not None and head.offset == 1

    asking(store, story)


def test_after_the_server_forgot_the_scripts_a_posted_push_may_be_repeated(
    alone: RedisStore, admin: redis.Redis
) -> None:
    async def story(soon: AsyncLog) -> None:
        post = Post(soon)
        await soon.head("epoch")
        admin.script_flush()
        assert post.send("unheard", identity="w:a", sequence=1)
        assert isinstance((await post.until(1))[0], StoreUnavailable)
        [again] = await soon.append("epoch", [push("heard", identity="w:a", sequence=1)])
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
