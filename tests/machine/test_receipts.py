"""The table that makes a push count once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gradledger_server.errors import SequenceReused
from gradledger_server.machine.receipts import (
    KEYS_KEPT_ENTRIES,
    RECEIPTS_KEPT,
    Receipt,
    Receipts,
)
from gradledger_server.store.contract import REMEMBERED_ENTRIES


def receipt(offset: int, worker: str | None = None, sequence: int | None = None) -> Receipt:
    return Receipt("applied", offset - 1, offset, None, None, 0.5, 1.0, 2.0, "fsync", worker, sequence)


def pushed(count: int) -> Receipts:
    """Worker a has pushed so often; push n had the digest "n"."""
    receipts = Receipts()
    for n in range(1, count + 1):
        receipts.record("w:a", str(n), receipt(n + 1, "a", n))
    return receipts


def test_a_push_never_made_is_not_found() -> None:
    receipts = pushed(3)
    assert receipts.find("w:a", 4, "4") is None
    assert receipts.find("w:b", 1, "1") is None
    assert receipts.find("k:a", 1, "1") is None


def test_a_repeat_finds_its_own_receipt() -> None:
    receipts = pushed(5)
    assert [receipts.find("w:a", n, str(n)) for n in range(1, 6)] == [
        receipt(n + 1, "a", n) for n in range(1, 6)
    ]


def test_the_last_receipts_are_kept_whole_and_older_repeats_are_still_known() -> None:
    last = RECEIPTS_KEPT + 10
    receipts = pushed(last)
    oldest_kept = last - RECEIPTS_KEPT + 1
    assert receipts.find("w:a", oldest_kept, str(oldest_kept)) == receipt(oldest_kept + 1, "a", oldest_kept)
    older = receipts.find("w:a", oldest_kept - 1, "whatever")
    assert older is not None
    assert (older.fate, older.worker, older.sequence) == ("repeated", "a", oldest_kept - 1)
    assert (older.lr, older.grad_norm, older.durability) == (None, None, None)


@pytest.mark.parametrize(
    ("identity", "facts", "words"),
    [
        ("w:a", {"worker": "a"}, "sequence 1 of worker 'a'"),
        ("k:a", {"key": "a"}, "Idempotency-Key 'a'"),
    ],
)
def test_a_name_with_another_body_is_refused(identity: str, facts: dict[str, Any], words: str) -> None:
    receipts = Receipts()
    receipts.record(identity, "one", receipt(2))
    with pytest.raises(SequenceReused, match=words) as caught:
        receipts.find(identity, 1, "other")
    assert caught.value.facts == {"got": "other", "expected": "one", **facts}


def test_a_worker_and_a_key_of_the_same_name_are_two() -> None:
    receipts = Receipts()
    receipts.record("w:a", "one", receipt(2, "a", 1))
    receipts.record("k:a", "two", receipt(3))
    assert receipts.find("w:a", 1, "one") == receipt(2, "a", 1)
    assert receipts.find("k:a", 1, "two") == receipt(3)
    assert [name for name, _, _ in receipts.workers()] == ["a"]


def test_a_key_is_kept_a_little_longer_than_the_store_remembers_it() -> None:
    """Where the store says a key was seen its receipt must be here, even if a whole batch came in between."""
    receipts = Receipts()
    receipts.record("k:old", "o", receipt(2))
    receipts.forget(2 + REMEMBERED_ENTRIES + 500)
    assert receipts.find("k:old", 1, "o") == receipt(2)
    receipts.forget(2 + KEYS_KEPT_ENTRIES)
    assert receipts.find("k:old", 1, "o") is None


def test_a_key_is_taken_for_known_only_as_long_as_the_store_knows_it_for_certain() -> None:
    """A push under a key that the store has forgotten is a new one, and must be looked at like one."""
    receipts = Receipts()
    receipts.record("k:old", "o", receipt(2))
    receipts.forget(1_000)
    assert receipts.knows("k:old", 1) and not receipts.knows("k:new", 1)
    receipts.forget(REMEMBERED_ENTRIES)
    assert not receipts.knows("k:old", 1)
    assert pushed(2).knows("w:a", 2) and not pushed(2).knows("w:a", 3)


def test_workers_are_never_forgotten() -> None:
    receipts = pushed(2)
    receipts.forget(1_000_000_000)
    assert receipts.find("w:a", 2, "2") == receipt(3, "a", 2)


def test_a_key_used_again_after_its_time_does_not_keep_others_alive() -> None:
    receipts = Receipts()
    receipts.record("k:again", "1", receipt(2))
    receipts.record("k:old", "2", receipt(3))
    late = 3 + REMEMBERED_ENTRIES
    receipts.record("k:again", "3", receipt(late))
    assert receipts.find("k:again", 1, "3") == receipt(late)
    receipts.forget(late + KEYS_KEPT_ENTRIES - 1)
    assert receipts.find("k:old", 1, "2") is None
    assert receipts.find("k:again", 1, "3") == receipt(late)


def test_what_was_dumped_is_loaded_whole() -> None:
    receipts = pushed(RECEIPTS_KEPT + 3)
    receipts.record("k:x", "d", receipt(100))
    loaded = Receipts.load(json.loads(json.dumps(receipts.dump())))
    assert loaded.dump() == receipts.dump()
    loaded.record("w:a", "next", receipt(200, "a", RECEIPTS_KEPT + 4))
    receipts.record("w:a", "next", receipt(200, "a", RECEIPTS_KEPT + 4))
    assert loaded.dump() == receipts.dump()
