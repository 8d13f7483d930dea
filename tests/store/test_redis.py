"""What only a store in a server can get wrong: keys left behind, crashes half way, damage, lost scripts."""

from __future__ import annotations

import random
import threading
import weakref

import numpy as np
import pytest
import redis
from redis.exceptions import ExecAbortError

from gradledger_server.errors import ModelQuarantined, StoreFull, StoreUnavailable
from gradledger_server.store import Embedded, RedisStore, keys, scripts, snapshots
from gradledger_server.store.chunks import SET_AT_ONCE, puts
from gradledger_server.store.connection import Connection, raise_in_our_words, send
from gradledger_server.store.contract import Appended, Gone, Outcome, Seen, Snapshot, Trimmed
from gradledger_server.store.packing import Pieces
from tests.store.conftest import REMEMBERED, grow, push, record

MIB = 1 << 20


def noise(nbytes: int) -> bytes:
    return random.Random(nbytes).randbytes(nbytes)


def keys_there(raw: redis.Redis) -> set[str]:
    return {key.decode() for key in raw.scan_iter(count=1000)}


def keys_to_stay(raw: redis.Redis) -> set[str]:
    return {key for key in keys_there(raw) if raw.ttl(key) == -1}


def saved_at(ledger: RedisStore, epoch: str, last: Appended, *parts: bytes) -> bool:
    views = [memoryview(part) for part in parts]
    return ledger.save(epoch, Snapshot(last.offset, last.chain, b"facts", views))


# -- nothing is left behind ----------------------------------------------------------------------


def test_delete_leaves_nothing(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create", noise(MIB)))
    ledger.append("epoch", [push("a", noise(MIB), identity="w:a", sequence=1), push("b", identity="k:b")])
    [last] = grow(ledger, "epoch", 1)
    assert saved_at(ledger, "epoch", last, noise(3 * MIB))
    grow(ledger, "epoch", 2, payload=noise(2 * MIB))
    assert ledger.delete("model", "epoch", record("delete"))
    assert keys_there(raw) == set()


def test_a_refused_payload_leaves_nothing(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))
    before = keys_there(raw)
    outcomes = ledger.append(
        "epoch",
        [
            push("gap", noise(2 * MIB), identity="w:a", sequence=5),
            push("moved", noise(MIB), expected="other"),
        ],
    )
    assert not any(isinstance(outcome, Appended) for outcome in outcomes)
    assert not ledger.create("model", "second", record("create", noise(MIB)))
    assert not saved_at(ledger, "epoch", Appended(7, "other"), noise(MIB))
    assert keys_there(raw) == before


def test_an_abandoned_payload_has_a_ttl(ledger: RedisStore, raw: redis.Redis) -> None:
    size = (SET_AT_ONCE + 2) * MIB
    _, commands = puts("epoch", memoryview(noise(size)))
    ledger._connection.ask(*commands[: SET_AT_ONCE + 2])  # the first transaction
    assert len(keys_there(raw)) == SET_AT_ONCE
    assert all(0 < raw.ttl(key) <= keys.staged_ttl_s(size) for key in keys_there(raw))


def test_chunks_are_written_to_the_log_a_few_at_a_time(ledger: RedisStore, raw: redis.Redis) -> None:
    """Each time costs a turn of the disk with fsync; in between others have theirs, so not all at once."""
    sets = 0
    for command in puts("epoch", memoryview(noise(10 * MIB)))[1]:
        sets += command[0] == "SET"
        if command == ("EXEC",):
            assert 1 < sets <= 8
            sets = 0
    assert sets == 0


def test_a_snapshot_lets_go_of_what_is_written(ledger: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.create("model", "epoch", record("create"))
    [last] = grow(ledger, "epoch", 1)
    parts = [np.full(MIB, number, np.uint8) for number in range(3 * snapshots.SENT_AT_ONCE)]
    alive, most = [weakref.ref(part) for part in parts], []
    digest = snapshots._digest

    def counting(chunk: Pieces) -> bytes:
        most.append(sum(part() is not None for part in alive))
        return digest(chunk)

    monkeypatch.setattr(snapshots, "_digest", counting)
    snapshot = Snapshot(last.offset, last.chain, b"", [part.data for part in parts])
    del parts
    assert ledger.save("epoch", snapshot)
    assert (most[0], most[-1]) == (len(alive), snapshots.SENT_AT_ONCE)


def test_snapshots_free_the_chunks_nobody_needs(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))
    *_, last = grow(ledger, "epoch", 3, payload=noise(2 * MIB))
    assert saved_at(ledger, "epoch", last, noise(MIB))
    assert sum("chunk:" in key for key in keys_to_stay(raw)) == 2
    [last] = grow(ledger, "epoch", 1, payload=noise(2 * MIB))
    assert saved_at(ledger, "epoch", last, noise(MIB))
    assert sum("chunk:" in key for key in keys_there(raw)) == 2
    assert raw.xlen(keys.log("epoch")) == 0


def test_chunks_that_a_crash_kept_from_being_freed_are_freed_by_the_next_snapshot(
    ledger: RedisStore, raw: redis.Redis
) -> None:
    ledger.create("model", "epoch", record("create"))
    [last] = grow(ledger, "epoch", 1, payload=noise(MIB))
    assert saved_at(ledger, "epoch", last)
    raw.set(keys.chunk("epoch", "orphan", 0), b"x")
    raw.zadd(keys.chunks("epoch"), {"orphan:1": 1})
    [last] = grow(ledger, "epoch", 1)
    assert saved_at(ledger, "epoch", last)
    assert not raw.exists(keys.chunk("epoch", "orphan", 0))


def test_the_table_of_idempotency_keys_does_not_grow(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create"))
    for i in range(5 * REMEMBERED):
        ledger.append("epoch", [push("keyed", identity=f"k:{i}", sequence=1)])
    assert raw.zcard(keys.keys("epoch")) <= REMEMBERED + 2


def test_what_is_committed_has_no_ttl(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create", noise(MIB)))
    grow(ledger, "epoch", 1, payload=noise(2 * MIB + 1))
    assert sum(":chunk:" in key for key in keys_to_stay(raw)) == 4
    [last] = grow(ledger, "epoch", 1)
    assert saved_at(ledger, "epoch", last, noise(3 * MIB))
    assert sum(":chunk:" in key for key in keys_to_stay(raw)) == 4
    assert keys_to_stay(raw) == keys_there(raw)


# -- crashes between the steps -------------------------------------------------------------------


def test_a_deletion_that_stopped_after_its_first_step_is_finished_by_find(
    server: Embedded, ledger: RedisStore, raw: redis.Redis
) -> None:
    ledger.create("model", "epoch", record("create"))
    grow(ledger, "epoch", 1, payload=noise(2 * MIB))
    Connection(server.url).ask(scripts.unbind([keys.NAMES, keys.UNBOUND], "model", "epoch"))
    assert ledger.find("model") is None
    assert keys_there(raw) == set()


def test_a_deletion_that_stopped_while_wiping_is_finished(
    server: Embedded, ledger: RedisStore, raw: redis.Redis
) -> None:
    ledger.create("model", "epoch", record("create"))
    grow(ledger, "epoch", 1, payload=noise(2 * MIB))
    Connection(server.url).ask(scripts.unbind([keys.NAMES, keys.UNBOUND], "model", "epoch"))
    some_chunk = next(key for key in keys_there(raw) if ":chunk:" in key)
    raw.unlink(some_chunk, keys.log("epoch"))
    assert ledger.names() == {}
    assert keys_there(raw) == set()


def test_a_creation_that_never_got_its_name_is_wiped_when_its_time_is_up(
    ledger: RedisStore, raw: redis.Redis
) -> None:
    ledger.create("model", "epoch", record("create", noise(2 * MIB)))
    raw.hdel(keys.NAMES, "model")
    raw.zadd(keys.UNBOUND, {"epoch": 4e12})
    assert ledger.find("model") is None
    assert ledger.head("epoch") is not None, "its time is not up"
    raw.zadd(keys.UNBOUND, {"epoch": 1})
    assert ledger.find("model") is None
    assert keys_there(raw) == set()


def test_nothing_slips_into_a_log_while_it_is_wiped(
    server: Embedded, ledger: RedisStore, raw: redis.Redis
) -> None:
    ledger.create("model", "epoch", record("create"))
    for _ in range(20):
        grow(ledger, "epoch", 50, payload=noise(70_000))
    outcomes: list[Outcome] = [Seen()]

    def push_until_gone() -> None:
        while outcomes[-1] != Gone():
            outcomes.extend(ledger.append("epoch", [push("late", noise(70_000))]))

    pushing = threading.Thread(target=push_until_gone)
    pushing.start()
    Connection(server.url).ask(scripts.unbind([keys.NAMES, keys.UNBOUND], "model", "epoch"))
    assert ledger.find("model") is None
    pushing.join()
    assert keys_to_stay(raw) == set()


def test_a_snapshot_published_but_not_yet_trimmed_is_not_replaced_by_an_older_one(
    ledger: RedisStore, raw: redis.Redis
) -> None:
    ledger.create("model", "epoch", record("create"))
    older, newer = grow(ledger, "epoch", 2)
    raw.hset(keys.head("epoch"), "saved", newer.offset)
    assert not saved_at(ledger, "epoch", older)
    assert not saved_at(ledger, "epoch", newer)


def test_of_many_creations_at_once_one_wins(server: Embedded, ledger: RedisStore, raw: redis.Redis) -> None:
    won: list[str] = []

    def create(epoch: str) -> None:
        if ledger.create("model", epoch, record("create", noise(70_000))):
            won.append(epoch)

    threads = [threading.Thread(target=create, args=(f"epoch{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and ledger.names() == {"model": won[0]}
    assert {key.split("{")[1].split("}")[0] for key in keys_there(raw)} == {"names", won[0]}


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


def test_every_key_is_in_the_model_s_slot(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create", noise(2 * MIB)))
    ledger.append("epoch", [push("a", identity="w:a"), push("b", identity="k:b")])
    [last] = grow(ledger, "epoch", 1)
    assert saved_at(ledger, "epoch", last, noise(MIB))
    prefixes = ("gradledger:{epoch}:", "gradledger:{names}")
    assert all(key.startswith(prefixes) for key in keys_there(raw))
