"""What every store promises, held against the plain one and the one that lasts."""

from __future__ import annotations

import hashlib
import random
import threading

import pytest

from gradledger_server.entries import Record
from gradledger_server.store import Store
from gradledger_server.store.contract import (
    Append,
    Appended,
    Gap,
    Gone,
    Head,
    Moved,
    Outcome,
    Seen,
    Snapshot,
    Trimmed,
)
from tests.store.conftest import REMEMBERED, grow, push, record

MIB = 1 << 20


def noise(nbytes: int) -> bytes:
    return random.Random(nbytes).randbytes(nbytes)


def snapshot(at: Appended, meta: bytes = b"facts", *parts: bytes) -> Snapshot:
    return Snapshot(at.offset, at.chain, meta, [memoryview(part) for part in parts])


# -- the log -------------------------------------------------------------------------------------


def test_offsets_count_from_one_and_the_chain_is_sha1_over_the_metas(store: Store, log: str) -> None:
    grow(store, log, 3)
    chain = ""
    logged = store.read(log, 0)
    for entry in logged:
        chain = hashlib.sha1(chain.encode() + entry.record.meta, usedforsecurity=False).hexdigest()
        assert entry.chain == chain
    assert [entry.offset for entry in logged] == [1, 2, 3, 4]
    assert [bytes(entry.record.meta) for entry in logged] == [b"create", b"entry 0", b"entry 1", b"entry 2"]
    assert store.head(log) == Head(4, chain, 0)


@pytest.mark.parametrize("nbytes", [0, 1, 65536, 65537, MIB, MIB + 1, 3 * MIB - 7, 17 * MIB + 5])
def test_a_payload_comes_back_as_it_was(store: Store, log: str, nbytes: int) -> None:
    payload = noise(nbytes)
    assert isinstance(store.append(log, [push("big", payload)])[0], Appended)
    [entry] = store.read(log, 1)
    assert entry.record.payload == payload


def test_the_store_is_done_with_a_payload_when_the_append_returns(store: Store, log: str) -> None:
    for nbytes in (100, 2 * MIB):
        payload = bytearray(noise(nbytes))
        store.append(log, [Append(Record(b"reused", memoryview(payload)))])
        payload[:] = bytes(nbytes)
        assert store.read(log, 1)[-1].record.payload == noise(nbytes)


def test_read_goes_on_behind_an_offset_and_stops_at_the_limit(store: Store, log: str) -> None:
    grow(store, log, 9, payload=noise(70_000))
    assert [entry.offset for entry in store.read(log, 7)] == [8, 9, 10]
    assert [entry.offset for entry in store.read(log, 2, limit_bytes=1)] == [3]
    assert len(store.read(log, 1, limit_bytes=200_000)) == 3
    assert store.read(log, 10) == store.read(log, 99) == []


def test_a_long_log_is_read_in_several_goes_without_a_hole(store: Store, log: str) -> None:
    grow(store, log, 2500)
    offsets: list[int] = []
    while more := store.read(log, len(offsets)):
        offsets += [entry.offset for entry in more]
    assert offsets == list(range(1, 2502))


def test_read_without_payloads(store: Store, log: str) -> None:
    store.append(log, [push("small", b"abc"), push("large", noise(2 * MIB))])
    assert [
        (entry.record.meta, len(entry.record.payload)) for entry in store.read(log, 1, payloads=False)
    ] == [
        (b"small", 0),
        (b"large", 0),
    ]


def test_wishes_of_one_call_are_taken_in_their_order(store: Store, log: str) -> None:
    outcomes = store.append(
        log,
        [
            push("a1", identity="w:a", sequence=1),
            push("a1 again", identity="w:a", sequence=1),
            push("a3", noise(MIB), identity="w:a", sequence=3),
            push("a2", noise(MIB), identity="w:a", sequence=2),
            push("nobody's"),
        ],
    )
    assert [type(outcome) for outcome in outcomes] == [Appended, Seen, Gap, Appended, Appended]
    assert outcomes[2] == Gap(expected=2)
    assert [entry.record.meta for entry in store.read(log, 1)] == [b"a1", b"a2", b"nobody's"]


def test_a_worker_s_sequence_has_no_gaps_and_is_never_forgotten(store: Store, log: str) -> None:
    def send(sequence: int, worker: str = "w:a") -> Outcome:
        return store.append(log, [push("push", identity=worker, sequence=sequence)])[0]

    assert send(2) == Gap(expected=1)
    assert isinstance(send(1), Appended)
    assert isinstance(send(1, worker="w:b"), Appended)
    grow(store, log, 3 * REMEMBERED)
    assert send(1) == Seen()
    assert send(3) == Gap(expected=2)
    assert isinstance(send(2), Appended)


def test_a_key_is_known_for_so_many_entries_and_then_forgotten(store: Store, log: str) -> None:
    wish = push("keyed", identity="k:once", sequence=1)
    assert isinstance(store.append(log, [wish])[0], Appended)
    grow(store, log, REMEMBERED - 1)
    assert store.append(log, [wish]) == [Seen()]
    grow(store, log, 1)
    assert isinstance(store.append(log, [wish])[0], Appended)


def test_a_worker_and_a_key_of_the_same_name_are_two(store: Store, log: str) -> None:
    wishes = [push("x", identity="w:same", sequence=1), push("y", identity="k:same", sequence=1)]
    assert [type(outcome) for outcome in store.append(log, wishes)] == [Appended, Appended]


def test_a_compare_and_set_asks_for_the_whole_log(store: Store, log: str) -> None:
    head = store.head(log)
    assert head is not None
    first, second = store.append(log, [push("one", expected=head.chain), push("two", expected=head.chain)])
    assert isinstance(first, Appended) and second == Moved()
    assert isinstance(store.append(log, [push("two", expected=first.chain)])[0], Appended)


def test_a_repeat_is_seen_even_if_the_log_moved_on(store: Store, log: str) -> None:
    head = store.head(log)
    assert head is not None
    wish = push("push", identity="w:a", sequence=1, expected=head.chain)
    assert isinstance(store.append(log, [wish])[0], Appended)
    assert store.append(log, [wish]) == [Seen()]


def test_an_unknown_epoch_is_gone(store: Store) -> None:
    assert store.append("nowhere", [push("push")]) == [Gone()]
    assert store.append("nowhere", [push("push", noise(2 * MIB))]) == [Gone()]
    assert store.head("nowhere") is None
    assert store.read("nowhere", 0) == []
    assert store.load("nowhere") is None
    assert not store.save("nowhere", snapshot(Appended(1, "")))


def test_two_threads_share_a_log_without_holes(store: Store, log: str) -> None:
    offsets: list[list[int]] = [[], []]

    def work(mine: list[int], payload: bytes) -> None:
        for _ in range(40):
            mine += [appended.offset for appended in grow(store, log, 2, payload)]

    threads = [
        threading.Thread(target=work, args=args) for args in zip(offsets, (b"", noise(100_000)), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(offsets[0] + offsets[1]) == list(range(2, 162))


# -- snapshots -----------------------------------------------------------------------------------


def test_a_snapshot_comes_back_and_the_log_up_to_it_is_trimmed(store: Store, log: str) -> None:
    *_, last = grow(store, log, 5, payload=noise(100_000))
    grow(store, log, 2)
    body, meta = [noise(2 * MIB + 3), b"", noise(70_000)], noise(5000)
    assert store.load(log) is None
    assert store.save(log, snapshot(last, meta, *body))
    loaded = store.load(log)
    assert loaded is not None
    assert (loaded.offset, loaded.chain, loaded.meta) == (last.offset, last.chain, meta)
    [block] = loaded.parts
    assert block == b"".join(body)
    head = store.head(log)
    assert head is not None and (head.offset, head.saved) == (8, 6)
    for after in (0, 5):
        with pytest.raises(Trimmed):
            store.read(log, after)
    assert [entry.offset for entry in store.read(log, 6)] == [7, 8]


@pytest.mark.parametrize("parts", [(), (b"",), (b"x",)])
def test_a_snapshot_may_be_small(store: Store, log: str, parts: tuple[bytes, ...]) -> None:
    [last] = grow(store, log, 1)
    assert store.save(log, snapshot(last, b"", *parts))
    loaded = store.load(log)
    assert loaded is not None and loaded.meta == b""
    assert [bytes(part) for part in loaded.parts] == [b"".join(parts)]


def test_a_snapshot_is_never_replaced_by_an_older_one(store: Store, log: str) -> None:
    older, newer = grow(store, log, 2)
    assert store.save(log, snapshot(newer, b"newer"))
    assert not store.save(log, snapshot(older, b"older"))
    assert not store.save(log, snapshot(newer, b"again"))
    loaded = store.load(log)
    assert loaded is not None and loaded.meta == b"newer"


def test_a_snapshot_of_another_history_is_refused(store: Store, log: str) -> None:
    [last] = grow(store, log, 1)
    assert not store.save(log, snapshot(Appended(last.offset, "0" * 40)))
    assert not store.save(log, snapshot(Appended(last.offset + 1, last.chain)))
    assert store.load(log) is None


def test_the_log_goes_on_behind_a_snapshot_of_its_very_end(store: Store, log: str) -> None:
    [last] = grow(store, log, 1)
    assert store.save(log, snapshot(last))
    assert store.read(log, last.offset) == []
    [following] = grow(store, log, 1)
    assert following.offset == last.offset + 1
    sha1 = hashlib.sha1(last.chain.encode() + b"entry 0", usedforsecurity=False)
    assert following.chain == sha1.hexdigest()
    assert store.save(log, snapshot(following))


def test_sequences_outlive_the_trimmed_entries(store: Store, log: str) -> None:
    wish = push("push", identity="w:a", sequence=1)
    [appended] = store.append(log, [wish])
    assert isinstance(appended, Appended)
    assert store.save(log, snapshot(appended))
    assert store.append(log, [wish]) == [Seen()]


# -- names ---------------------------------------------------------------------------------------


def test_a_name_means_one_epoch(store: Store) -> None:
    assert store.find("model") is None and store.names() == {}
    assert store.create("model", "first", record("create"))
    assert not store.create("model", "second", record("create", noise(2 * MIB)))
    assert store.create("größe 2", "third", record("create"))
    assert store.find("model") == "first"
    assert store.head("second") is None
    assert store.names() == {"model": "first", "größe 2": "third"}


def test_the_first_record_may_have_a_payload(store: Store) -> None:
    assert store.create("model", "epoch", record("create", noise(2 * MIB)))
    assert store.read("epoch", 0)[0].record.payload == noise(2 * MIB)


def test_a_deleted_model_is_gone_and_its_name_is_free(store: Store, log: str) -> None:
    [last] = grow(store, log, 1, payload=noise(2 * MIB))
    assert store.save(log, snapshot(last, b"facts", noise(MIB)))
    assert not store.delete("model", "another epoch", record("delete"))
    assert store.delete("model", log, record("delete"))
    assert not store.delete("model", log, record("delete"))
    assert store.find("model") is None
    assert store.head(log) is None
    assert store.read(log, 0) == []
    assert store.load(log) is None
    assert store.append(log, [push("late", identity="w:a", sequence=1)]) == [Gone()]
    assert store.create("model", "reborn", record("create"))
    assert store.read("reborn", 0)[0].offset == 1
    assert not store.delete("model", log, record("delete"))
    assert store.find("model") == "reborn"
