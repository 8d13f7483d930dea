"""Metrics over HTTP: what a plateau schedule makes of them, once each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.talk import Json, Model, refused
from tests.service import Answer

PLATEAU = {"name": "plateau", "patience": 0, "factor": 0.5}


@pytest.fixture
def watched(new: Model) -> Model:
    """SGD with learning rate 1 under a plateau schedule that puts up with nothing."""
    return new.create({"w": [0.0]}, schedule=PLATEAU)


def post(model: Model, value: Any, *, key: str | None = None, **facts: Any) -> Answer:
    headers = {} if key is None else {"Idempotency_Key": key}
    return model.send("POST", "/metrics", {"value": value, **facts}, **headers)


def test_a_metric_that_did_not_improve(watched: Model) -> None:
    first, second = post(watched, 0.53).json, post(watched, 0.54).json
    assert (first["receipt"]["lr"], first["receipt"]["reduced"]) == (1.0, False)
    assert second["receipt"] == {
        "fate": "applied",
        "step": 0,
        "offset": 3,
        "value": 0.54,
        "lr": 0.5,
        "reduced": True,
        "durability": watched.service.request("GET", "/v1").json["durability"],
        "worker": None,
        "sequence": None,
        "epoch": watched.describe()["epoch"],
        "replayed": False,
    }
    seen = {"match": "*", "lr": 0.5, "best": 0.53, "bad": 0, "cooldown": 0, "reductions": 1}
    assert second["plateaus"] == [seen] == watched.send("GET", "/metrics").json["plateaus"]
    assert watched.describe()["lr"] == 0.5
    assert watched.push({"w": [1.0]}).receipt["lr"] == 0.5
    assert watched.pull() == {"w": [-0.5]}


@pytest.mark.parametrize("named", [{"worker": "judge", "sequence": 1}, {"key": "once"}])
def test_a_named_metric_counts_once(watched: Model, named: Json) -> None:
    post(watched, 1)
    first = post(watched, 2, **named).json["receipt"]
    with watched.untouched():
        again = post(watched, 2, **named).json["receipt"]
        refused(post(watched, 3, **named), 422, "sequence-reused")
    assert again == first | {"replayed": True}
    assert post(watched, 3).json["receipt"]["lr"] == 0.25


def test_a_workers_metrics_and_pushes_are_counted_apart(watched: Model) -> None:
    assert watched.push({"w": [1.0]}, worker="w0", sequence=1).status == 200
    assert post(watched, 1.0, worker="w0", sequence=1).json["receipt"]["replayed"] is False
    with watched.untouched():
        assert refused(post(watched, 1.0, worker="w0", sequence=3), 409, "sequence-gap")["expected"] == 2
    workers = watched.send("GET", "/workers").json["workers"]
    assert [(told["worker"], told["sequence"]) for told in workers] == [("w0", 1)]
    kinds = [entry["kind"] for entry in watched.send("GET", "/entries").json["entries"]]
    assert kinds[-2:] == ["push", "metric"]


def test_a_model_without_a_plateau_says_what_to_do(model: Model) -> None:
    with model.untouched():
        problem = refused(post(model, 1.0), 409, "no-plateau")
    assert "PATCH" in problem["hint"]
    assert model.send("GET", "/metrics").json == {"plateaus": []}
    assert model.send("PATCH", "", {"schedule": PLATEAU}).status == 200
    assert post(model, 1.0).status == 200


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b'{"value": NaN}', 400, "malformed-body"),
        (b'{"value": 1e999}', 400, "malformed-body"),
        (b'{"value": "low"}', 422, "invalid"),
        (b'{"value": true}', 422, "invalid"),
        (b'{"value": null}', 422, "invalid"),
        (b"{}", 422, "invalid"),
        (b'{"value": 1, "loss": 2}', 422, "invalid"),
        (b'{"value": 1, "worker": "w0"}', 422, "invalid"),
        (b'{"value": 1, "worker": "w 0", "sequence": 1}', 422, "invalid"),
        (b'{"value": 1, "worker": "w0", "sequence": 0}', 422, "invalid"),
        (b'{"value": 1%s}' % (b"0" * 400), 422, "invalid"),
        (b"[1]", 400, "malformed-body"),
    ],
)
def test_metrics_that_cannot_be(watched: Model, body: bytes, status: int, slug: str) -> None:
    with watched.untouched():
        refused(watched.send("POST", "/metrics", body, Content_Type="application/json"), status, slug)


def test_other_refusals(watched: Model, new: Model) -> None:
    with watched.untouched():
        refused(post(watched, 1.0, key="a b"), 400, "malformed-request")
        refused(
            watched.send("POST", "/metrics", b"1", Content_Type="text/plain"), 415, "unsupported-media-type"
        )
    refused(post(Model(new.service, "nobody"), 1.0), 404, "model-not-found")
