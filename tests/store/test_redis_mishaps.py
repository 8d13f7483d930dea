"""What may befall a store in a server: damaged chunks, lost scripts, cut lines, no room, and a long log."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from redis.exceptions import ExecAbortError

from gradledger_server.errors import ModelQuarantined, StoreFull, StoreUnavailable
from gradledger_server.store import Embedded, RedisStore, keys
from gradledger_server.store.chunks import Row, batches
from gradledger_server.store.connection import Connection, raise_in_our_words, send
from gradledger_server.store.contract import Appended, Seen, Trimmed
from tests.store.conftest import MIB, grow, keys_there, noise, push, record, saved_at

# -- damage --------------------------------------------------------------------------------------


def test_a_damaged_snapshot_chunk_is_named(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))
    [last] = grow(ledger, "epoch", 1)
    assert saved_at(ledger, "epoch", last, noise(3 * MIB))
    damaged = next(key for key in keys_there(raw) if key.endswith(":1") and ":chunk:" in key)
    raw.setrange(damaged, 1000, b"?")
    with pytest.raises(
        ModelQuarantined, match="chunk 1 of the snapshot at offset 2 of epoch epoch is damaged"
    ):
        ledger.load("epoch")
    raw.unlink(damaged)
    with pytest.raises(
        ModelQuarantined, match="chunk 1 of the snapshot at offset 2 of epoch epoch is missing"
    ):
        ledger.load("epoch")


def test_a_missing_chunk_of_an_entry_is_named(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))
    grow(ledger, "epoch", 1, payload=noise(2 * MIB))
    raw.unlink(next(key for key in keys_there(raw) if key.endswith(":1")))
    with pytest.raises(ModelQuarantined, match="chunk 1 of entry 2 of epoch epoch is missing"):
        ledger.read("epoch", 1)
    assert len(ledger.read("epoch", 1, payloads=False)) == 1


def test_an_entry_whose_chunks_went_with_a_trim_is_trimmed(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))
    grow(ledger, "epoch", 1, payload=noise(2 * MIB))
    raw.unlink(next(key for key in keys_there(raw) if key.endswith(":1")))
    raw.hset(keys.head("epoch"), "saved", 2)  # as a reader sees it between the trim's steps
    with pytest.raises(Trimmed):
        ledger.read("epoch", 1)


@pytest.mark.parametrize("lost", ["all", "one", "bytes"])
def test_chunks_that_expired_refuse_the_commit(ledger: RedisStore, raw: redis.Redis, lost: str) -> None:
    ledger.create("model", "epoch", record("create"))
    wish = ledger._log._wish("epoch", push("push", noise(3 * MIB), identity="w:a", sequence=1), "next")
    *staging, commit = wish.commands
    ledger._connection.ask(*staging)
    assert wish.row is not None
    row = wish.row.names()
    if lost == "bytes":
        raw.set(row[0], b"short", ex=100)
    else:
        raw.unlink(*(row if lost == "all" else row[1:2]))
    before = ledger.head("epoch")
    assert ledger._connection.ask(commit) == [[b"expired"]]
    assert ledger.head("epoch") == before
    assert isinstance(ledger.append("epoch", [push("push", identity="w:a", sequence=1)])[0], Appended)


# -- the server ----------------------------------------------------------------------------------


def test_a_server_that_forgot_the_scripts_is_told_again(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))
    raw.script_flush()
    wishes = [push(f"entry {i}", noise(100_000), identity="w:a", sequence=i + 1) for i in range(3)]
    assert [type(outcome) for outcome in ledger.append("epoch", wishes)] == [Appended] * 3
    assert ledger.append("epoch", wishes) == [Seen()] * 3
    raw.script_flush()
    assert ledger.find("model") == "epoch"


def test_a_connection_cut_in_the_middle_leaves_no_reply_for_the_next(
    ledger: RedisStore, raw: redis.Redis
) -> None:
    ledger.create("model", "epoch", record("create"))
    for _ in range(5):
        raw.client_kill_filter(_type="normal", skipme=True)
        head = ledger.head("epoch")
        assert head is not None and head.offset == 1


def test_a_call_broken_off_leaves_no_reply_for_the_next(server: Embedded, raw: redis.Redis) -> None:
    connection = Connection(server.url)
    with pytest.raises(KeyboardInterrupt), connection.line() as line:
        send(line, [("BLPOP", "nothing", "0.2")])
        raise KeyboardInterrupt
    assert connection.ask(("ECHO", "mine")) == [b"mine"]


def test_a_transaction_that_finds_the_server_full_only_at_its_end_says_so_too() -> None:
    why = "Transaction discarded because of: {}."
    with pytest.raises(StoreFull):
        raise_in_our_words(
            ExecAbortError(why.format("OOM command not allowed when used memory > 'maxmemory'"))
        )
    with pytest.raises(StoreUnavailable):
        raise_in_our_words(ExecAbortError(why.format("NOPERM this user has no permissions")))


def test_a_full_server_is_reported_and_reading_goes_on(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))
    [last] = grow(ledger, "epoch", 1)
    raw.config_set("maxmemory", int(raw.info("memory")["used_memory"]) + 4 * MIB)
    try:
        with pytest.raises(StoreFull):
            ledger.append("epoch", [push("large", noise(8 * MIB), identity="w:a", sequence=1)])
        raw.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            ledger.append("epoch", [push("small", identity="w:a", sequence=1)])
        with pytest.raises(StoreFull):
            saved_at(ledger, "epoch", last, noise(MIB))
        assert [entry.offset for entry in ledger.read("epoch", 0)] == [1, 2]
    finally:
        raw.config_set("maxmemory", 0)
    assert isinstance(ledger.append("epoch", [push("small", identity="w:a", sequence=1)])[0], Appended)


@pytest.mark.usefixtures("raw")
def test_however_often_it_could_not_be_reached_it_is_found_again(server: Embedded, tmp_path: Path) -> None:
    """redis-py counts the connections it made, 100 at most unless told otherwise, also those that failed."""
    path = tmp_path / "valkey.sock"
    there = urlsplit(server.url).path
    store = RedisStore(server.url.replace(there, str(path)))
    for _ in range(150):
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            store.names()
    path.symlink_to(there)
    assert store.names() == {}
    store.close()


def test_a_full_server_can_be_looked_at_and_emptied(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))
    ledger.create("other", "half", record("create"))
    grow(ledger, "epoch", 1, payload=noise(2 * MIB))
    raw.hdel(keys.NAMES, "other")
    raw.zadd(keys.UNBOUND, {"half": 1})  # as a creation that stopped in the middle
    raw.config_set("maxmemory", 1)
    try:
        assert ledger.find("model") == "epoch" and ledger.find("other") is None
        assert ledger.delete("model", "epoch", record("delete"))
        assert ledger.names() == {}
        assert keys_there(raw) == set()
    finally:
        raw.config_set("maxmemory", 0)


def test_a_trim_that_reaches_a_server_without_the_snapshot_frees_nothing(
    ledger: RedisStore, raw: redis.Redis
) -> None:
    """As behind a failover to one that lags: what it holds of the model is all there is."""
    ledger.create("model", "epoch", record("create"))
    first, _, last = grow(ledger, "epoch", 3, payload=noise(2 * MIB))
    assert saved_at(ledger, "epoch", first, noise(MIB))
    before = keys_there(raw)
    ledger._snapshots._trim("epoch", first.offset, last.offset)  # published elsewhere
    assert keys_there(raw) == before
    snapshot = ledger.load("epoch")
    assert snapshot is not None and snapshot.offset == first.offset
    assert [entry.offset for entry in ledger.read("epoch", first.offset)] == [3, 4]


def test_a_creation_that_stood_still_past_its_time_begins_nothing(
    ledger: RedisStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have wiped its epoch by then, and nobody would look for it again."""
    monkeypatch.setattr(keys, "STAGED_TTL_S", 0)
    with pytest.raises(StoreUnavailable, match="took too long"):
        ledger.create("model", "epoch", record("create"))
    assert ledger.names() == {}
    assert keys_there(raw) == set()


def test_a_commit_takes_no_longer_when_the_log_is_long(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))
    for _ in range(20):
        wishes = [push("entry", b"x" * 200, identity=f"w:{i}", sequence=None) for i in range(250)]
        ledger.append("epoch", wishes)
        grow(ledger, "epoch", 250, payload=b"x" * 200)
    raw.config_resetstat()
    grow(ledger, "epoch", 300)
    ledger.append("epoch", [push("entry", noise(16 * MIB))])
    statistics = raw.info("commandstats")["cmdstat_evalsha"]
    assert statistics["usec_per_call"] < 500


def test_rows_are_freed_in_batches_that_keep_nobody_waiting() -> None:
    """In order, none left out, and a row that is too large for any batch has one of its own."""
    rows = [Row("epoch", f"t{number}", count) for number, count in enumerate((500, 12, 1, 2000, 1))]
    assert [[row.count for row in batch] for batch in batches(rows)] == [[500, 12], [1], [2000], [1]]
    assert [row for batch in batches(rows) for row in batch] == rows
    assert list(batches([])) == []
    assert Row.parse("epoch", rows[0].group.encode()) == rows[0]
