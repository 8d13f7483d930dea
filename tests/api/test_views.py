"""Views of the parameters over HTTP: averages beside the weights that train, with versions of their own."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from safetensors.numpy import load

from gradledger import Client
from gradledger.errors import ViewNotFound
from tests.api.talk import Json, Model, refused
from tests.service import SAFETENSORS, Answer, Service

VALUES = {"w": [0.0, 4.0], "b": [1.0]}
AVERAGES = {"ema": {"decay": 0.5}, "lookahead": {"every": 2, "rate": 0.5}}
PUSH = {"w": [1.0, 1.0], "b": [1.0]}


@pytest.fixture
def averaged(new: Model) -> Model:
    return new.create(VALUES, transforms=AVERAGES)


def test_a_model_says_what_it_can_be_seen_as(averaged: Model) -> None:
    assert averaged.describe()["views"] == ["train", "slow", "ema"]


def test_a_view_is_pulled_in_any_form_and_by_tensor(averaged: Model) -> None:
    averaged.push(PUSH)
    averaged.push(PUSH)
    # The weights: 0, -1, then -2 and back to -1 by lookahead. The average: -1, then halfway from there to -1.
    assert averaged.pull() == {"b": [0.0], "w": [-1.0, 3.0]}
    averaged.push(PUSH)
    seen = averaged.send("GET", "/parameters?view=ema")
    assert seen.json == {"step": 3, "parameters": {"b": [-0.5], "w": [-1.5, 2.5]}}
    assert load(averaged.send("GET", "/parameters?view=ema", Accept=SAFETENSORS).data)["w"].tolist() == [
        -1.5,
        2.5,
    ]
    assert averaged.send("GET", "/parameters/w?view=slow").json["parameters"] == {"w": [-1.0, 3.0]}
    assert averaged.send("GET", "/parameters?view=train").json["parameters"] == averaged.pull()


@pytest.mark.parametrize("path", ["/parameters", "/parameters/w"])
def test_every_view_has_an_etag_of_its_own(averaged: Model, path: str) -> None:
    averaged.push(PUSH)
    tags = {
        view: averaged.send("GET", f"{path}?view={view}").headers["etag"] for view in ("train", "ema", "slow")
    }
    assert len(set(tags.values())) == 3
    assert tags["train"] == averaged.describe()["etag"]
    for view in tags:
        for other, tag in tags.items():
            answer = averaged.send("GET", f"{path}?view={view}", If_None_Match=tag)
            assert answer.status == (304 if view == other else 200), (view, other)
            assert answer.headers["etag"] == tags[view]
    averaged.push(PUSH)
    assert averaged.send("GET", f"{path}?view=ema", If_None_Match=tags["ema"]).status == 200


@pytest.mark.parametrize("path", ["/parameters", "/parameters/w"])
@pytest.mark.parametrize("view", ["eval", "polyak", "", "x" * 300])
def test_an_unknown_view_is_refused_with_those_there_are(averaged: Model, path: str, view: str) -> None:
    problem = refused(averaged.send("GET", f"{path}?view={view}"), 404, "view-not-found")
    assert problem["views"] == ["train", "slow", "ema"]


def test_a_plain_model_has_one_view(model: Model) -> None:
    assert model.send("GET", "/parameters?view=train").status == 200
    assert refused(model.send("GET", "/parameters?view=ema"), 404, "view-not-found")["views"] == ["train"]


def test_one_can_wait_for_a_views_news(averaged: Model) -> None:
    tag = averaged.send("GET", "/parameters?view=ema").headers["etag"]
    heard: list[Answer] = []
    waiting = threading.Thread(
        target=lambda: heard.append(
            averaged.send("GET", "/parameters?view=ema", If_None_Match=tag, Prefer="wait=20")
        )
    )
    waiting.start()
    time.sleep(0.2)
    assert not heard
    averaged.push(PUSH)
    waiting.join(10)
    assert heard[0].json == {"step": 1, "parameters": {"b": [0.0], "w": [-1.0, 3.0]}}


def test_views_wait_for_the_values_like_everything_else(new: Model) -> None:
    new.create({"w": {"shape": [2]}}, transforms=AVERAGES)
    refused(new.send("GET", "/parameters?view=ema"), 409, "parameters-missing")


def test_the_python_client_keeps_views_apart(service: Service) -> None:
    with Client(service.url) as client:
        weights = {"w": np.zeros(2, np.float32)}
        model = client.create("averaged-by-client", weights, {"rule": "sgd", "lr": 1.0}, transforms=AVERAGES)
        for _ in range(3):
            model.push({"w": np.ones(2, np.float32)})
        assert model.pull(view="ema")["w"].tolist() == [-1.5, -1.5]
        assert model.pull(view="ema")["w"].tolist() == [-1.5, -1.5], "304"
        assert model.pull()["w"].tolist() == [-2.0, -2.0]
        assert (model.step, model.pull(view="slow")["w"].tolist()) == (3, [-1.0, -1.0])
        with pytest.raises(ViewNotFound, match="train, slow, ema"):
            model.pull(view="eval")


def test_accumulated_pushes_are_told_apart_and_move_nothing(new: Model) -> None:
    new.create(
        {"w": [0.0, 0.0]}, transforms={"accumulate": {"every": 2}, "clip_global_norm": {"max_norm": 1}}
    )
    before = new.send("GET", "/parameters")
    waiting = new.push({"w": [4.0, 0.0]}, worker="a", sequence=1)
    assert (waiting.receipt["fate"], waiting.receipt["step"], waiting.json["step"]) == ("accumulated", 0, 0)
    assert (waiting.receipt["lr"], waiting.receipt["clip_factor"], waiting.receipt["grad_norm"]) == (
        None,
        None,
        4.0,
    )
    assert waiting.headers["etag"] == before.headers["etag"]
    assert new.state()["accumulated/w"].tolist() == [4.0, 0.0]
    done = new.push({"w": [0.0, 4.0]}, worker="b", sequence=1)
    assert (done.receipt["fate"], done.receipt["step"]) == ("applied", 1)
    assert done.receipt["clip_factor"] == 1.0 / (8.0**0.5 + 1e-6)
    again = new.push({"w": [4.0, 0.0]}, worker="a", sequence=1)
    assert again.receipt == {**waiting.receipt, "replayed": True}
    assert new.state()["accumulated/w"].tolist() == [0.0, 0.0]
    fates = [entry.get("fate") for entry in new.send("GET", "/entries").json["entries"]]
    assert fates == [None, "accumulated", "applied"]


def test_transforms_are_refused_by_their_path(new: Model) -> None:
    spec = {"optimizer": {"rule": "sgd"}, "parameters": {"w": [0.0]}}
    for transforms, field in (
        ({"clip": {}}, "transforms.clip"),
        ({"ema": {"decay": 2}}, "transforms.ema.decay"),
        ({"ema": 1}, "transforms.ema"),
        ([], "transforms"),
    ):
        assert (
            refused(new.send("PUT", "", {**spec, "transforms": transforms}), 422, "invalid-spec")["field"]
            == field
        )
    group = {"match": "w", "transforms": {"accumulate": {"every": 2}}}
    problem = refused(new.send("PUT", "", {**spec, "groups": [group]}), 422, "invalid-spec")
    assert problem["field"] == "groups[0].transforms.accumulate"


def test_a_patch_changes_settings_and_refuses_slots(averaged: Model) -> None:
    changed = averaged.send("PATCH", "", {"transforms": {"ema": {"decay": 0.75}, "clip_value": {"limit": 1}}})
    assert changed.json["transforms"]["ema"] == {"decay": 0.75, "start": "first"}
    assert changed.json["transforms"]["clip_value"] == {"limit": 1.0}
    removed = averaged.send("PATCH", "", {"transforms": {"clip_value": None}})
    assert "clip_value" not in removed.json["transforms"]
    with averaged.untouched():
        changes: list[Json] = [{"ema": None}, {"polyak": {}}, {"accumulate": {"every": 2}}]
        for change in changes:
            problem = refused(averaged.send("PATCH", "", {"transforms": change}), 422, "invalid-spec")
            assert problem["field"].startswith("transforms") and "new model" in problem["hint"]
