"""The append-only file of our own Valkey: written anew when most of it was let go, and only then."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil
import pytest
import redis

from gradledger_server.store import Embedded, RedisStore, compaction, embedded
from gradledger_server.store.compaction import LOOK_S, RETRY_S, WORTH_BYTES, is_due, pause_s
from gradledger_server.store.contract import Appended, Snapshot
from tests.store.conftest import grow, record

MIB = 1 << 20
IDLE = {
    "loading": "0",
    "rdb_bgsave_in_progress": "0",
    "aof_rewrite_in_progress": "0",
    "aof_rewrite_scheduled": "0",
}


def after(file: int, memory: int, **fields: str) -> bool:
    return is_due({**IDLE, "aof_current_size": str(file), "used_memory": str(memory), **fields})


def test_it_is_due_when_half_of_a_large_file_is_needed_no_more() -> None:
    assert after(WORTH_BYTES, WORTH_BYTES // 2)
    assert not after(WORTH_BYTES, WORTH_BYTES // 2 + 1)
    assert not after(WORTH_BYTES - 1, 0)


@pytest.mark.parametrize("field", IDLE)
def test_a_server_at_work_on_its_files_is_let_be(field: str) -> None:
    assert not after(WORTH_BYTES, 0, **{field: "1"})


def test_a_rewriting_that_failed_is_not_tried_again_at_once() -> None:
    assert pause_s({"aof_last_bgrewrite_status": "err"}) == RETRY_S
    assert pause_s({"aof_last_bgrewrite_status": "ok"}) == pause_s({}) == LOOK_S


def test_without_a_file_or_an_answer_nothing_is_due() -> None:
    assert not is_due({**IDLE, "used_memory": "0"})
    assert not is_due({})


def file_bytes(raw: redis.Redis) -> int:
    (name,) = {str(setting) for setting in raw.config_get("dir").values()}
    return sum(path.stat().st_size for path in Path(name).glob("appendonlydir/*"))


def fill_and_save(store: RedisStore) -> tuple[Appended, bytes]:
    """A log of 16 MiB, let go for a snapshot of one."""
    store.create("model", "epoch", record("create"))
    *_, last = grow(store, "epoch", 8, payload=bytes(2 * MIB))
    body = bytes(range(256)) * 4096
    assert store.save("epoch", Snapshot(last.offset, last.chain, b"facts", [memoryview(body)]))
    return last, body


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are worth it as well, and somebody looks all the time."""
    monkeypatch.setattr(compaction, "WORTH_BYTES", 4 * MIB)
    monkeypatch.setattr(embedded, "LOOK_S", 0.05)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("durability", ["fsync", "everysec"])
def test_what_a_snapshot_let_go_leaves_the_disk(tmp_path: Path, durability: str) -> None:
    with Embedded(tmp_path, durability) as server:
        store, raw = RedisStore(server.url, durability), redis.Redis.from_url(server.url)
        last, body = fill_and_save(store)
        deadline = time.monotonic() + 20
        while file_bytes(raw) > 4 * MIB:
            assert time.monotonic() < deadline, f"the file still has {file_bytes(raw)} bytes"
            time.sleep(0.05)
        grow(store, "epoch", 1)
        raw.close()
        store.close()
    with Embedded(tmp_path, durability) as server:
        store = RedisStore(server.url, durability)
        loaded, head = store.load("epoch"), store.head("epoch")
        assert loaded is not None and loaded.parts == [body]
        assert head is not None and head.offset == last.offset + 1
        store.close()


@pytest.mark.usefixtures("eager")
def test_a_log_that_is_all_needed_is_not_written_twice(tmp_path: Path) -> None:
    with Embedded(tmp_path, "everysec") as server:
        store, raw = RedisStore(server.url, "everysec"), redis.Redis.from_url(server.url)
        store.create("model", "epoch", record("create"))
        grow(store, "epoch", 4, payload=bytes(2 * MIB))
        time.sleep(0.5)
        info = raw.info("persistence")
        assert info["aof_current_size"] > 8 * MIB and info["aof_base_size"] < MIB
        raw.close()
        store.close()


@pytest.mark.usefixtures("eager")
def test_where_the_file_cannot_be_rewritten_it_is_not_tried_all_the_time(tmp_path: Path) -> None:
    with Embedded(tmp_path, "everysec") as server:
        store, raw = RedisStore(server.url, "everysec"), redis.Redis.from_url(server.url)
        raw.config_set("rdb-key-save-delay", 10_000_000)  # whoever rewrites stays to be killed
        fill_and_save(store)
        killed: set[int] = set()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            for child in psutil.Process(server.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
                    killed.add(child.pid)
            time.sleep(0.01)
        assert raw.info("persistence")["aof_last_bgrewrite_status"] == "err"
        assert 1 <= len(killed) <= 2  # the second to find out whether it was chance
        raw.close()
        store.close()
