"""What is held of a model can be read: the state's tensors, the ledger's entries, the workers' counts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.api.talk import Model, refused
from tests.service import normal

RATE, BETA1, BETA2, EPS = 0.01, 0.9, 0.999, 1e-8
ADAM = {"rule": "adam", "lr": RATE, "beta1": BETA1, "beta2": BETA2, "eps": EPS}


def test_the_state_is_what_numpy_computes(new: Model) -> None:
    w = normal((3, 4), seed=1).astype(np.float64)
    new.create({"w": {"values": w.tolist(), "dtype": "F64"}, "b": [0.0, 1.0]}, ADAM)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, 6):
        g = normal((3, 4), seed=10 + t).astype(np.float64)
        new.push({"w": g.tolist()})
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g * g
        w = w - RATE * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + EPS)

    state = new.state()

    assert set(state) == {f"{kind}/{name}" for kind in ("param", "m", "v", "t") for name in ("w", "b")}
    np.testing.assert_allclose(state["param/w"], w, rtol=1e-14)
    np.testing.assert_allclose(state["m/w"], m, rtol=1e-14)
    np.testing.assert_allclose(state["v/w"], v, rtol=1e-14)
    assert state["t/w"].dtype == np.int64
    assert state["t/w"].shape == ()
    assert int(state["t/w"]) == 5
    assert int(state["t/b"]) == 0
    assert state["param/b"].tolist() == [0.0, 1.0]
    assert state["m/b"].dtype == np.float32


def test_the_state_carries_the_version(model: Model) -> None:
    model.push({"b": [1.0, 1.0, 1.0]})
    assert model.send("GET", "/state").headers["etag"] == model.describe()["etag"]


def test_every_change_is_an_entry(new: Model) -> None:
    new.create({"w": {"shape": [2]}})
    new.send("PUT", "/parameters", {"parameters": {"w": [1.0, 2.0]}})
    new.push({"w": [1.0, 1.0]}, worker="w0", sequence=1, base=0)
    new.send("PATCH", "", {"optimizer": {"lr": 0.5}})
    new.push({"w": [3.0, 4.0]}, headers={"Idempotency_Key": "a-key"})

    ledger = new.send("GET", "/entries").json
    if ledger["saved_offset"]:
        pytest.skip("a snapshot came in between and took the entries with it")

    entries = ledger["entries"]
    assert [entry["offset"] for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry["kind"] for entry in entries] == ["create", "upload", "push", "configure", "push"]
    assert (ledger["offset"], ledger["next_after"]) == (5, None)
    pushed = entries[2]
    assert (pushed["worker"], pushed["sequence"], pushed["base"]) == ("w0", 1, 0)
    assert (pushed["fate"], pushed["step"], pushed["lr"]) == ("applied", 1, 1.0)
    assert entries[4]["grad_norm"] == 5.0
    assert len({entry["chain"] for entry in entries}) == 5
    assert all(entry["at_ms"] > 1.7e12 for entry in entries)


def test_an_entry_keeps_its_fate_when_its_receipt_is_no_longer_kept(new: Model) -> None:
    new.create({"w": [0.0]})
    for sequence in range(1, 71):
        new.push({"w": [1.0]}, worker="w0", sequence=sequence, headers={"Prefer": "return=minimal"})
    ledger = new.send("GET", "/entries").json
    pushes = [entry for entry in ledger["entries"] if entry["kind"] == "push"]
    assert len(pushes) == 70 or ledger["saved_offset"]
    assert {push.get("fate", "applied") for push in pushes} == {"applied"}
    assert all(push.get("step", push["sequence"]) == push["sequence"] for push in pushes)


def test_entries_come_in_pages(new: Model) -> None:
    new.create({"w": [0.0]})
    for sequence in range(1, 6):
        new.push({"w": [1.0]}, worker="w0", sequence=sequence)
    offsets: list[int] = []
    after: int | None = 0
    while after is not None:
        page = new.send("GET", f"/entries?after={after}&limit=2").json
        if page["saved_offset"]:
            pytest.skip("a snapshot came in between and took the entries with it")
        assert len(page["entries"]) <= 2
        offsets += [entry["offset"] for entry in page["entries"]]
        after = page["next_after"]
    assert offsets == [1, 2, 3, 4, 5, 6]
    assert new.send("GET", "/entries?after=6").json["entries"] == []
    assert new.send("GET", f"/entries?after={2**52}").json["entries"] == []


@pytest.mark.parametrize(
    "query", ["after=-1", "after=x", f"after={2**70}", "limit=0", "limit=1001", "limit=1.5"]
)
def test_a_page_that_cannot_be_is_refused(model: Model, query: str) -> None:
    assert refused(model.send("GET", f"/entries?{query}"), 422, "invalid")["field"] == query.partition("=")[0]


def test_workers_and_what_each_must_send_next(model: Model) -> None:
    assert model.send("GET", "/workers").json["workers"] == []
    for worker, sequence in (("w1", 1), ("w0", 1), ("w1", 2)):
        model.push({"b": [1.0, 1.0, 1.0]}, worker=worker, sequence=sequence)
    model.push({"b": [1.0, 1.0, 1.0]}, headers={"Idempotency_Key": "a-key"})

    workers = model.send("GET", "/workers").json["workers"]

    assert [(w["worker"], w["sequence"], w["next_sequence"]) for w in workers] == [("w0", 1, 2), ("w1", 2, 3)]
    assert workers[1]["receipt"]["step"] == 3
