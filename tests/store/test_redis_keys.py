"""Keys of a store in a server: whatever is deleted, refused or broken off half way leaves none behind."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest
import redis

from gradledger_server.store import Embedded, RedisStore, keys, scripts, snapshots
from gradledger_server.store.chunks import SET_AT_ONCE, puts
from gradledger_server.store.connection import Connection
from gradledger_server.store.contract import Appended, Gone, Outcome, Seen, Snapshot
from gradledger_server.store.packing import Pieces
from tests.store.conftest import (
    MIB,
    REMEMBERED,
    grow,
    keys_there,
    keys_to_stay,
    noise,
    push,
    record,
    saved_at,
)

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


def test_every_key_is_in_the_model_s_slot(ledger: RedisStore, raw: redis.Redis) -> None:
    ledger.create("model", "epoch", record("create", noise(2 * MIB)))
    ledger.append("epoch", [push("a", identity="w:a"), push("b", identity="k:b")])
    [last] = grow(ledger, "epoch", 1)
    assert saved_at(ledger, "epoch", last, noise(MIB))
    prefixes = ("gradledger:{epoch}:", "gradledger:{names}")
    assert all(key.startswith(prefixes) for key in keys_there(raw))


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
