"""A real Valkey for the store's tests, started once per process, and the plain store beside it."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from gradledger_server.entries import Record
from gradledger_server.store import Embedded, MemoryStore, RedisStore, Store, open_store
from gradledger_server.store.contract import Append, Appended, AsyncLog, Snapshot

MIB = 1 << 20
REMEMBERED = 8
"""Entries an idempotency key is known for in these tests; 10,000 take too long."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with Embedded(tmp_path_factory.mktemp("valkey"), "memory") as running:
        yield running


@pytest.fixture
def raw(server: Embedded) -> Iterator[redis.Redis]:
    """The server as it is, emptied."""
    with redis.Redis.from_url(server.url, protocol=2) as client:
        client.flushall()
        yield client


@pytest.fixture
def ledger(server: Embedded, raw: redis.Redis) -> Iterator[RedisStore]:
    store = RedisStore(server.url, remembered=REMEMBERED)
    yield store
    store.close()


@pytest.fixture(params=["memory", "valkey"])
def store(request: pytest.FixtureRequest) -> Store:
    """Both stores that keep the contract."""
    if request.param == "memory":
        return MemoryStore(remembered=REMEMBERED)
    ledger: RedisStore = request.getfixturevalue("ledger")
    return ledger


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RedisStore]:
    store = open_store(None, tmp_path, "memory")
    yield store
    store.close()


@pytest.fixture
def epoch() -> str:
    return secrets.token_hex(8)


@pytest.fixture
def log(store: Store, epoch: str) -> str:
    """The epoch of a log that holds its first record."""
    assert store.create("model", epoch, record("create"))
    return epoch


def record(meta: str, payload: bytes = b"") -> Record:
    return Record(meta.encode(), memoryview(payload))


def push(meta: str, payload: bytes = b"", **wish: object) -> Append:
    return Append(record(meta, payload), **wish)  # type: ignore[arg-type]


def grow(store: Store, epoch: str, count: int, payload: bytes = b"") -> list[Appended]:
    """Appends so many records and returns where they came to lie."""
    outcomes = store.append(epoch, [push(f"entry {i}", payload) for i in range(count)])
    appended = [outcome for outcome in outcomes if isinstance(outcome, Appended)]
    assert len(appended) == count
    return appended


def noise(nbytes: int) -> bytes:
    return random.Random(nbytes).randbytes(nbytes)


def keys_there(raw: redis.Redis) -> set[str]:
    return {key.decode() for key in raw.scan_iter(count=1000)}


def keys_to_stay(raw: redis.Redis) -> set[str]:
    return {key for key in keys_there(raw) if raw.ttl(key) == -1}


def saved_at(ledger: RedisStore, epoch: str, last: Appended, *parts: bytes) -> bool:
    views = [memoryview(part) for part in parts]
    return ledger.save(epoch, Snapshot(last.offset, last.chain, b"facts", views))


def asking(store: Store, story: Callable[[AsyncLog], Coroutine[Any, Any, None]]) -> None:
    """Tells the story of a store's log on an event loop."""

    async def told() -> None:
        log = store.async_log()
        await story(log)
        log.close()

    asyncio.run(told())
