"""Guard rails over HTTP: what is left out is told, quarantine can be seen and undone, and nobody hangs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.api.listening import listening
from tests.api.talk import SGD, Model, refused
from tests.service import Service

START = {"w": [0.0, 0.0]}
NAN = {"w": np.array([np.nan, 2.0], np.float32)}
OUTLIERS = {"outliers": {"factor": 10, "strikes": 2, "window": 8}}


def usual(model: Model, pushes: int = 8) -> None:
    for sequence in range(1, pushes + 1):
        assert model.push({"w": [1.0, 0.0]}, worker="good", sequence=sequence).status == 200


def test_by_default_what_is_not_finite_is_refused_and_leaves_no_trace(new: Model) -> None:
    new.create(START)
    assert new.describe()["guard"] == {"nonfinite": "reject", "outliers": None}
    with new.untouched():
        refused(new.push_bytes(NAN, "worker=a&sequence=1"), 422, "non-finite")


def test_skip_takes_it_and_leaves_it_out_however_often_it_is_sent(new: Model) -> None:
    new.create(START, guard={"nonfinite": "skip"})
    for replayed in (False, True):
        receipt = new.push_bytes(NAN, "worker=a&sequence=1", Accept="application/json").json["receipt"]
        assert (receipt["fate"], receipt["step"], receipt["grad_norm"]) == ("skipped", 0, None)
        assert receipt["replayed"] is replayed
    assert new.pull() == START
    assert new.push({"w": [1.0, 0.0]}, worker="a", sequence=2).json["receipt"]["step"] == 1


def test_zero_says_how_many_numbers_were_none(new: Model) -> None:
    new.create(START, guard={"nonfinite": "zero"})
    receipt = new.push_bytes(NAN, "worker=a&sequence=1", Accept="application/json").json["receipt"]
    assert (receipt["fate"], receipt["zeroed"], receipt["grad_norm"]) == ("applied", 1, 2.0)
    assert new.pull() == {"w": [0.0, -2.0]}


def test_the_guard_is_changed_on_the_living_model(new: Model) -> None:
    new.create(START)
    assert new.send("PATCH", "", {"guard": {"nonfinite": "zero"}}).json["guard"]["nonfinite"] == "zero"
    assert new.push_bytes(NAN).status == 200
    with new.untouched():
        problem = refused(new.send("PATCH", "", {"guard": {"outliers": {"factor": 0}}}), 422, "invalid-spec")
        assert problem["field"] == "guard.outliers.factor"


def test_a_quarantine_is_told_seen_and_undone(new: Model) -> None:
    new.create(START, guard=OUTLIERS)
    usual(new)
    with listening(new.service, new.name) as heard:
        for sequence in (1, 2):
            told = new.push({"w": [-99.0, 0.0]}, worker="bad", sequence=sequence).json["receipt"]
            assert told["fate"] == "outlier"
        problem = refused(new.push({"w": [1.0, 0.0]}, worker="bad", sequence=3), 409, "worker-quarantined")
        assert "bad" in problem["detail"] and "DELETE" in problem["hint"]
        refused(new.send("POST", "/workers", {"worker": "bad"}), 409, "worker-quarantined")
        refused(new.send("PUT", "/workers/bad"), 409, "worker-quarantined")
        seen = new.send("GET", "/workers").json
        assert seen["guard"] == {"largest_norm": 10.0, "quarantined": ["bad"]}
        assert {each["worker"]: each["quarantined"] for each in seen["workers"]} == {
            "bad": True,
            "good": False,
        }
        for _ in range(2):  # repeating it is harmless
            assert new.send("DELETE", "/quarantine/bad").status == 204
        assert new.push({"w": [1.0, 0.0]}, worker="bad", sequence=3).json["receipt"]["fate"] == "applied"
        kinds = [event.kind for event in heard.until("release")]
    assert [kind for kind in kinds if kind not in ("step", "snapshot")] == [
        "outlier",
        "outlier",
        "quarantine",
        "release",
    ]
    for _ in range(2):
        assert new.send("PUT", "/quarantine/good").status == 204
    refused(new.push({"w": [1.0, 0.0]}, worker="good", sequence=9), 409, "worker-quarantined")
    assert new.push({"w": [1.0, 0.0]}, worker="good", sequence=8).json["receipt"]["replayed"] is True
    refused(new.send("PUT", "/quarantine/a%20b"), 422, "invalid")


def test_who_waits_in_a_round_is_answered_when_all_of_it_is_left_out(new: Model) -> None:
    """Nothing is published then, and yet nobody may wait until the time is up."""
    new.create(START, SGD, sync={"mode": "bsp", "lease_s": 60}, guard={"nonfinite": "skip"})
    for worker in "ab":
        new.send("POST", "/workers", {"worker": worker})

    def push(worker: str) -> Any:
        query = f"worker={worker}&sequence=1"
        return new.push_bytes(NAN, query, Prefer="wait=60, return=minimal", Accept="application/json")

    with ThreadPoolExecutor(2) as pool:
        began = time.monotonic()
        answers = list(pool.map(push, "ab"))
    assert [answer.json["receipt"]["fate"] for answer in answers] == ["skipped", "skipped"]
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("asked", ["push", "receipt"])
def test_the_end_of_the_service_lets_nobody_wait(tmp_path: Path, asked: str) -> None:
    with Service(tmp_path) as service, ThreadPoolExecutor(1) as pool:
        model = Model(service, "m").create(START, SGD, sync={"mode": "bsp", "lease_s": 300})
        for worker in "ab":
            model.send("POST", "/workers", {"worker": worker})
        model.push({"w": [1.0, 0.0]}, worker="a", sequence=1)

        def wait() -> Any:
            if asked == "receipt":
                return model.send("GET", "/receipts/a/1", Prefer="wait=60").json["fate"]
            again = model.push({"w": [1.0, 0.0]}, worker="a", sequence=1, headers={"Prefer": "wait=60"})
            return again.json["receipt"]["fate"]

        waiting = pool.submit(wait)
        time.sleep(0.5)  # until it surely waits; if it does not, there is nothing to let go
        began = time.monotonic()
        assert service.stop() == 0
        assert waiting.result(timeout=1) == "waiting"
        assert time.monotonic() - began < 30
