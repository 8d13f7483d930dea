"""Our own Valkey: data outlives every end it may meet, and the server never outlives the service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis

from gradledger_server.errors import StoreUnavailable, StoreUnsuitable
from gradledger_server.store import Embedded, RedisStore, Store, open_store
from gradledger_server.store.contract import Appended, Snapshot
from gradledger_server.store.datadir import SOCKET_PATH_BYTES, DataDir
from tests.service import gone
from tests.store.conftest import grow, push, record

PAYLOAD = bytes(range(256)) * 1000

SERVICE = """
import sys, time
from pathlib import Path
from gradledger_server.entries import Record
from gradledger_server.store import Embedded, RedisStore
from gradledger_server.store.contract import Append
server = Embedded(Path(sys.argv[1]), "fsync").start()
store = RedisStore(server.url)
store.create("model", "epoch", Record(b"create", memoryview(b"")))
store.append("epoch", [Append(Record(b"push", memoryview(bytes(range(256)) * 1000)))])
print(server.pid, flush=True)
time.sleep(60)
"""


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def answered(store: Store) -> bool:
    try:
        store.find("")
    except StoreUnavailable:
        return False
    return True


def begin(store: Store) -> None:
    assert store.create("model", "epoch", record("create"))
    grow(store, "epoch", 2, PAYLOAD)


def is_whole(store: Store) -> bool:
    assert store.find("model") == "epoch"
    return [entry.record.payload for entry in store.read("epoch", 1)] == [PAYLOAD, PAYLOAD]


@pytest.mark.parametrize("durability", ["fsync", "everysec", "memory"])
def test_an_orderly_stop_loses_nothing(tmp_path: Path, durability: str) -> None:
    with Embedded(tmp_path, durability) as server:
        store = RedisStore(server.url, durability)
        assert store.facts().durability == durability
        begin(store)
        pid = server.pid
    assert gone(pid)
    with Embedded(tmp_path, durability) as server:
        assert is_whole(RedisStore(server.url))


@pytest.mark.parametrize(("first", "then"), [("fsync", "memory"), ("memory", "fsync")])
def test_another_durability_takes_the_data_along(tmp_path: Path, first: str, then: str) -> None:
    for durability in (first, then, first, then):
        with Embedded(tmp_path, durability) as server:
            store = RedisStore(server.url, durability)
            assert store.facts().durability == durability
            if store.find("model") is None:
                begin(store)
            assert is_whole(store)
    assert (tmp_path / "appendonlydir").exists() == (then == "fsync")
    assert (tmp_path / "dump.rdb").exists() == (then == "memory")


def socket_of(server: Embedded) -> Path:
    return Path(urlsplit(server.url).path)


def test_nobody_comes_in_by_mistake(tmp_path: Path) -> None:
    """A replica that has the server to itself answers reads without asking it: nobody else may write."""
    with Embedded(tmp_path) as server, pytest.raises(StoreUnavailable, match="login"):
        RedisStore(f"unix://{socket_of(server)}").facts()
    assert (tmp_path / "valkey.password").stat().st_mode & 0o077 == 0
    with Embedded(tmp_path) as server:
        assert RedisStore(DataDir(tmp_path).url).names() == RedisStore(server.url).names() == {}


def test_the_server_takes_no_connections_but_on_its_socket(tmp_path: Path) -> None:
    with Embedded(tmp_path) as server:
        assert psutil.Process(server.pid).net_connections("inet") == []
        assert socket_of(server).stat().st_mode & 0o077 == 0


def test_a_killed_server_comes_back_with_everything_acknowledged(tmp_path: Path) -> None:
    with Embedded(tmp_path) as server:
        store = RedisStore(server.url, "fsync")
        begin(store)
        for _ in range(2):
            old = server.pid
            os.kill(old, signal.SIGSTOP)  # so that it cannot be back before the next line
            os.kill(old, signal.SIGKILL)
            wait_until(lambda: gone(old))  # noqa: B023
            wait_until(lambda: server.pid != old and answered(store))  # noqa: B023
            assert is_whole(store)
        assert isinstance(store.append("epoch", [push("more")])[0], Appended)


def test_a_push_to_a_dead_server_is_unavailable_and_not_repeated(tmp_path: Path) -> None:
    server = Embedded(tmp_path).start()
    store = RedisStore(server.url)
    begin(store)
    server.stop()
    with pytest.raises(StoreUnavailable):
        store.append("epoch", [push("lost")])
    with pytest.raises(StoreUnavailable):
        store.read("epoch", 0)
    with pytest.raises(StoreUnavailable):
        store.save("epoch", Snapshot(1, "", b"", []))
    with Embedded(tmp_path) as server:
        assert is_whole(RedisStore(server.url))


def test_a_killed_service_takes_its_server_along_and_the_next_one_finds_the_data(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVICE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        pid = int(service.stdout.readline())
        assert not gone(pid)
        service.kill()
    wait_until(lambda: gone(pid))
    with Embedded(tmp_path) as server:
        store = RedisStore(server.url)
        assert store.find("model") == "epoch"
        assert store.read("epoch", 1)[0].record.payload == PAYLOAD


def test_a_server_left_over_from_a_killed_service_is_stopped_first(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVICE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        pid = int(service.stdout.readline())
        os.kill(pid, signal.SIGSTOP)  # it cannot hear that the service died
        service.kill()
    assert not gone(pid)
    timer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -CONT {pid}"])
    with Embedded(tmp_path) as server:
        assert gone(pid) and server.pid != pid
        assert RedisStore(server.url).find("model") == "epoch"
    timer.wait()


def test_two_services_cannot_share_a_directory(tmp_path: Path) -> None:
    with (
        Embedded(tmp_path) as server,
        pytest.raises(StoreUnsuitable, match=f"in use by process {os.getpid()}") as refused,
    ):
        Embedded(tmp_path).start()
    assert "--data-dir" in refused.value.advice
    assert gone(server.pid)
    with Embedded(tmp_path):
        pass


def test_a_directory_with_a_long_name_gets_a_socket_elsewhere(tmp_path: Path) -> None:
    data_dir = tmp_path / ("d" * SOCKET_PATH_BYTES)
    with Embedded(data_dir) as server:
        begin(RedisStore(server.url))
        assert len(str(socket_of(server))) < SOCKET_PATH_BYTES
        elsewhere = socket_of(server).parent
        assert elsewhere.stat().st_mode & 0o077 == 0
    assert not elsewhere.exists()
    with Embedded(data_dir) as server:
        assert is_whole(RedisStore(server.url))


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(StoreUnavailable, match="ended with status 1 while loading the log") as refused:
        Embedded(tmp_path).start()
    assert "valkey.log" in refused.value.advice
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").unlink()
    with Embedded(tmp_path):
        pass


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnsuitable, match="cannot be made"):
        Embedded(tmp_path / "file" / "data")


def test_a_directory_that_cannot_be_written_to_is_refused() -> None:
    with pytest.raises(StoreUnsuitable, match="cannot be written to"), Embedded(Path("/proc")):
        pass


def test_open_store_brings_its_own_server_and_takes_it_along(tmp_path: Path) -> None:
    store = open_store(None, tmp_path / "data", None)
    assert store.facts().durability == "fsync"
    begin(store)
    [child] = [child for child in psutil.Process().children() if child.cwd() == str(tmp_path / "data")]
    store.close()
    assert gone(child.pid)


def test_open_store_takes_a_url_and_holds_it_to_what_was_asked(server: Embedded, raw: redis.Redis) -> None:
    store = open_store(server.url, Path("unused"), None)
    assert store.facts().durability == "memory"
    store.close()
    with pytest.raises(StoreUnsuitable, match="fsync was asked for"):
        open_store(server.url, Path("unused"), "fsync")
