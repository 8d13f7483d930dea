"""The log as an event loop asks it: the same answers, and one lost line is never taken for a whole one."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from gradledger_server.errors import StoreUnavailable
from gradledger_server.store import Embedded, RedisStore, Store
from gradledger_server.store.connection import Connection
from gradledger_server.store.contract import Appended, AsyncLog, Gap, Gone, Head, Moved, Seen
from gradledger_server.store.loop_line import LoopLine
from tests.store.conftest import asking, grow, push, record


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
