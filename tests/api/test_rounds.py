"""Pushes that wait for each other, over HTTP: waiting, retries, deaths, changes of mode."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.talk import SGD, Model, refused
from tests.service import Answer

START = {"w": [8.0]}


def joined(model: Model, *workers: str, **sync: Any) -> Model:
    model.create(START, SGD, sync={"mode": "bsp", **sync})
    for worker in workers:
        assert model.send("POST", "/workers", {"worker": worker}).status == 200
    return model


def together(model: Model, workers: Sequence[str], sequence: int = 1, wait_s: int = 10) -> list[Answer]:
    """All push 1.0, 2.0 … at once and wait."""

    def push(index: int) -> Answer:
        gradient = {"w": [1.0 + index]}
        headers = {"Prefer": f"wait={wait_s}"}
        return model.push(gradient, worker=workers[index], sequence=sequence, headers=headers)

    with ThreadPoolExecutor(len(workers)) as pool:
        return list(pool.map(push, range(len(workers))))


def test_a_round_is_answered_to_everybody_when_it_closes(new: Model) -> None:
    joined(new, "a", "b", "c")
    for turn in (1, 2):
        for answer in together(new, "abc", turn):
            assert answer.status == 200
            receipt = answer.json["receipt"]
            assert (receipt["fate"], receipt["step"], receipt["round"]) == ("merged", turn, turn - 1)
            assert answer.json["parameters"] == {"w": [8.0 - 2.0 * turn]}


def test_without_waiting_the_answer_is_202_and_the_receipt_tells_later(new: Model) -> None:
    joined(new, "a", "b")
    waiting = new.push({"w": [1.0]}, worker="a", sequence=1)
    assert waiting.status == 202 and waiting.json["receipt"]["fate"] == "waiting"
    assert waiting.headers["location"] == f"{new.path}/receipts/a/1"
    assert new.send("GET", "/receipts/a/1").json["fate"] == "waiting"
    assert new.describe()["step"] == 0
    assert new.push({"w": [3.0]}, worker="b", sequence=1).json["receipt"]["fate"] == "merged"
    told = new.send("GET", "/receipts/a/1").json
    assert (told["fate"], told["step"], told["sequence"]) == ("merged", 1, 1)
    refused(new.send("GET", "/receipts/a/2"), 404, "receipt-not-found")
    assert new.pull() == {"w": [6.0]}


def test_a_retry_joins_the_wait_and_counts_once(new: Model) -> None:
    joined(new, "a", "b")
    with ThreadPoolExecutor(3) as pool:
        tries: list[Future[Answer]] = [
            pool.submit(new.push, {"w": [1.0]}, worker="a", sequence=1, headers={"Prefer": "wait=10"})
            for _ in range(3)
        ]
        time.sleep(0.3)
        new.push({"w": [3.0]}, worker="b", sequence=1)
        receipts = [each.result().json["receipt"] for each in tries]
    assert {receipt["fate"] for receipt in receipts} == {"merged"}
    assert sorted(receipt["replayed"] for receipt in receipts) == [False, True, True]
    assert new.pull() == {"w": [6.0]}


def test_the_time_to_wait_runs_out(new: Model) -> None:
    joined(new, "a", "b")
    began = time.monotonic()
    answer = new.push({"w": [1.0]}, worker="a", sequence=1, headers={"Prefer": "wait=1"})
    assert answer.status == 202 and 0.9 < time.monotonic() - began < 8


def test_a_dead_worker_does_not_hang_the_others(new: Model) -> None:
    joined(new, "a", "b", "dead", lease_s=0.6)
    answers = together(new, "ab")
    assert [answer.json["receipt"]["fate"] for answer in answers] == ["merged", "merged"]
    kinds = [entry["kind"] for entry in new.send("GET", "/entries").json["entries"]]
    assert kinds.count("leave") >= 1
    listed = {each["worker"]: each["membership"] for each in new.send("GET", "/workers").json["workers"]}
    assert listed.get("dead") is None


def test_who_leaves_is_waited_for_no_longer(new: Model) -> None:
    joined(new, "a", "b")
    assert new.push({"w": [1.0]}, worker="a", sequence=1).status == 202
    assert new.send("DELETE", "/workers/b").status == 204
    assert new.send("DELETE", "/workers/b").status == 204, "leaving twice is leaving"
    assert new.send("GET", "/receipts/a/1").json["fate"] == "merged"
    refused(new.push({"w": [1.0]}, worker="b", sequence=1), 409, "not-a-member")


def test_a_heartbeat_keeps_a_worker_a_member(new: Model) -> None:
    joined(new, "a", lease_s=0.5)
    for _ in range(4):
        time.sleep(0.25)
        told = new.send("PUT", "/workers/a")
        assert told.status == 200 and told.json["membership"] == "member" and told.json["next_sequence"] == 1
    refused(new.send("PUT", "/workers/a%20b"), 422, "invalid")


def test_a_quorum_is_enough_when_the_grace_is_over(new: Model) -> None:
    new.create(START, SGD, sync={"mode": "quorum", "quorum": 2, "grace_ms": 300, "workers": 3})
    answers = together(new, "ab")
    assert [answer.json["receipt"]["fate"] for answer in answers] == ["merged", "merged"]
    assert new.pull() == {"w": [6.5]}


def test_ssp_holds_back_who_runs_ahead(new: Model) -> None:
    new.create(START, SGD, sync={"mode": "ssp", "slack": 1})
    for worker in ("fast", "slow"):
        new.send("POST", "/workers", {"worker": worker})
    fates = [new.push({"w": [1.0]}, worker="fast", sequence=n).json["receipt"]["fate"] for n in (1, 2, 3)]
    assert fates == ["applied", "applied", "waiting"]
    refused(new.push({"w": [1.0]}, worker="fast", sequence=4), 409, "worker-ahead")
    new.push({"w": [1.0]}, worker="slow", sequence=1)
    assert new.send("GET", "/receipts/fast/3").json["fate"] == "applied"


def test_a_stale_gradient_is_refused_and_leaves_its_sequence_free(new: Model) -> None:
    new.create(START, SGD, sync={"staleness": {"max": 1}})
    for sequence in (1, 2):
        new.push({"w": [1.0]}, worker="a", sequence=sequence)
    problem = refused(new.push({"w": [1.0]}, worker="b", sequence=1, base=0), 409, "stale-gradient")
    assert (problem["base"], problem["step"], problem["staleness"]) == (0, 2, 2)
    assert new.push({"w": [1.0]}, worker="b", sequence=1, base=2).json["receipt"]["fate"] == "applied"


def test_a_repeat_by_key_is_answered_with_its_receipt_however_old_its_base_is_by_now(new: Model) -> None:
    new.create(START, SGD, sync={"staleness": {"max": 0}})
    first, again = (new.push({"w": [1.0]}, base=0, headers={"Idempotency_Key": "once"}) for _ in range(2))
    assert again.status == 200
    assert again.json["receipt"] == {**first.json["receipt"], "replayed": True}
    refused(new.push({"w": [1.0]}, base=0, headers={"Idempotency_Key": "twice"}), 409, "stale-gradient")


def test_the_mode_can_be_changed_while_it_runs(new: Model) -> None:
    joined(new, "a", "b")
    assert new.push({"w": [1.0]}, worker="a", sequence=1).status == 202
    changed = new.send("PATCH", "", {"sync": "async"})
    assert changed.status == 200 and changed.json["sync"]["mode"] == "async"
    assert new.push({"w": [3.0]}, worker="b", sequence=1).json["receipt"]["fate"] == "merged"
    assert new.push({"w": [1.0]}, worker="b", sequence=2).json["receipt"]["fate"] == "applied"
    assert new.push({"w": [1.0]}).json["receipt"]["fate"] == "applied", "nobody need be named any more"


@pytest.mark.parametrize(
    ("sync", "field"),
    [
        ({"mode": "bulk"}, "sync.mode"),
        ({"mode": "ssp"}, "sync.slack"),
        ("sometimes", "sync.mode"),
        ({"x": 1}, "sync.x"),
    ],
)
def test_nonsense_is_refused(new: Model, sync: Any, field: str) -> None:
    answer = new.send("PUT", "", {"optimizer": SGD, "parameters": START, "sync": sync})
    assert refused(answer, 422, "invalid-spec")["field"] == field


def test_a_waiting_round_survives_the_service(new: Model) -> None:
    joined(new, "a", "b", lease_s=60)
    assert new.push({"w": [1.0]}, worker="a", sequence=1).status == 202
    new.service.kill()
    new.service.start()
    assert new.send("GET", "/receipts/a/1").json["fate"] == "waiting"
    assert new.push({"w": [3.0]}, worker="b", sequence=1).json["receipt"]["fate"] == "merged"
    assert new.pull() == {"w": [6.0]}
