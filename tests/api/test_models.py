"""Create, list, describe, reconfigure, delete."""

from __future__ import annotations

import pytest

from gradledger_server.optim.catalog import RULES, presets_of
from tests.api.talk import SGD, Json, Model, refused
from tests.service import Service

SPEC: Json = {"optimizer": {"rule": "momentum", "lr": 0.5}, "parameters": {"w": [1.0, 2.0]}}


def test_creating_twice_is_creating_once(new: Model) -> None:
    first, second = new.send("PUT", "", SPEC), new.send("PUT", "", SPEC)

    assert (first.status, second.status) == (201, 200)
    assert first.json == second.json
    assert first.json["etag"] == f'"{first.json["epoch"]}.0"'


@pytest.mark.parametrize(
    "other",
    [
        SPEC | {"optimizer": {"rule": "momentum", "lr": 0.6}},
        SPEC | {"optimizer": {"rule": "nesterov", "lr": 0.5}},
        SPEC | {"parameters": {"w": [1.0, 2.5]}},
        SPEC | {"parameters": {"w": {"shape": [2]}}},
        SPEC | {"parameters": {"v": [1.0, 2.0]}},
    ],
)
def test_another_spec_under_the_same_name_is_refused(new: Model, other: Json) -> None:
    new.send("PUT", "", SPEC)
    with new.untouched():
        refused(new.send("PUT", "", other), 409, "model-exists")


def test_creating_again_after_training_is_harmless(new: Model) -> None:
    new.send("PUT", "", SPEC)
    new.push({"w": [1.0, 1.0]})
    with new.untouched():
        assert new.send("PUT", "", SPEC).status == 200


def test_a_description_writes_every_default_out_and_creates_the_same_model(
    service: Service, new: Model
) -> None:
    new.send("PUT", "", SPEC)
    described = new.describe()

    assert described["name"] == new.name
    assert described["optimizer"] == {
        "rule": "momentum",
        "preset": "torch",
        "lr": 0.5,
        "momentum": 0.9,
        "dampening": 0.0,
        "first_step": "copy",
        "lr_in_velocity": False,
        "weight_decay": 0.0,
        "weight_decay_mode": "l2",
    }
    assert described["schedule"] == {"name": "constant"}
    assert (described["transforms"], described["views"]) == ({}, ["train"])
    assert described["sync"]["mode"] == "async" and described["sync"]["take"] == 1
    assert described["groups"] == []
    assert (described["step"], described["offset"], described["lr"]) == (0, 1, 0.5)
    assert (described["parameter_bytes"], described["missing"]) == (8, [])

    twin = Model(service, new.name + ".twin")
    fields = ("optimizer", "schedule", "transforms", "groups", "sync", "parameters")
    given = {name: described[name] for name in fields}
    assert twin.send("PUT", "", given).status == 201
    assert twin.describe()["optimizer"] == described["optimizer"]


def test_the_list_names_every_model_in_order(service: Service, new: Model) -> None:
    new.send("PUT", "", SPEC)
    listed = service.request("GET", "/v1/models").json["models"]

    assert {"name": new.name, "epoch": new.describe()["epoch"]} in listed
    names = [model["name"] for model in listed]
    assert names == sorted(names)


def test_a_patch_counts_from_the_next_push_on(new: Model) -> None:
    new.create({"w": [0.0]})
    new.push({"w": [1.0]})
    patched = new.send("PATCH", "", {"optimizer": {"lr": 0.25}})

    assert patched.status == 200
    assert patched.json["optimizer"]["lr"] == 0.25
    assert new.push({"w": [1.0]}).receipt["lr"] == 0.25
    assert new.pull() == {"w": [-1.25]}


def test_a_patch_of_the_schedule_keeps_the_step_count(new: Model) -> None:
    new.create({"w": [0.0]})
    new.push({"w": [1.0]})
    halving = {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 1}
    new.send("PATCH", "", {"schedule": halving})
    assert new.push({"w": [1.0]}).receipt["lr"] == 0.5
    new.send("PATCH", "", {"schedule": None})
    assert new.push({"w": [1.0]}).receipt["lr"] == 1.0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"optimizer": {"rule": "adam"}}, "optimizer.rule"),
        ({"optimizer": {"lr": -1.0}}, "optimizer.lr"),
        ({"optimizer": {"beta1": 0.5}}, "optimizer.beta1"),
        ({"schedule": {"name": "cosine"}}, "schedule.name"),
        ({"groups": [{"match": "nothing.*"}]}, "groups[0].match"),
        ({"groups": [{"match": "w", "optimizer": {"lr": 2.0}}]}, "groups"),
        ({"parameters": {"w": [1.0]}}, "parameters"),
        ({"optimizer": [1]}, "optimizer"),
    ],
)
def test_an_impossible_patch_names_its_field_and_changes_nothing(
    model: Model, change: Json, field: str
) -> None:
    with model.untouched():
        assert refused(model.send("PATCH", "", change), 422, "invalid-spec")["field"] == field


def test_a_patch_may_ask_for_a_version(model: Model) -> None:
    old = model.describe()["etag"]
    model.push({"w": [[1.0, 1.0], [1.0, 1.0]]})
    with model.untouched():
        refused(model.send("PATCH", "", {"optimizer": {"lr": 0.5}}, If_Match=old), 412, "precondition-failed")
    now = model.describe()["etag"]
    assert model.send("PATCH", "", {"optimizer": {"lr": 0.5}}, If_Match=now).status == 200


def test_a_deleted_model_is_gone_and_its_name_free(model: Model) -> None:
    epoch = model.describe()["epoch"]
    refused(model.send("DELETE", If_Match='"other.7"'), 412, "precondition-failed")
    gone = model.send("DELETE")
    assert (gone.status, gone.data) == (204, b"")

    refused(model.send("GET"), 404, "model-not-found")
    refused(model.send("DELETE"), 404, "model-not-found")
    refused(model.push({"w": [1.0]}), 404, "model-not-found")
    refused(model.send("GET", "/state"), 404, "model-not-found")

    model.create({"w": [5.0]})
    assert model.describe()["epoch"] != epoch
    assert model.pull() == {"w": [5.0]}


def test_a_model_made_anew_knows_nothing_of_the_old_ones_workers(model: Model) -> None:
    model.push({"b": [1.0, 1.0, 1.0]}, worker="w0", sequence=1)
    model.send("DELETE")
    model.create({"w": [5.0]}, SGD)
    refused(model.push({"w": [1.0]}, worker="w0", sequence=2), 409, "sequence-gap")
    assert model.push({"w": [1.0]}, worker="w0", sequence=1).receipt["replayed"] is False


@pytest.mark.parametrize(("rule", "preset"), [(rule, name) for rule in RULES for name in presets_of(rule)])
def test_every_rule_and_preset_can_be_created_and_trained(new: Model, rule: str, preset: str) -> None:
    new.create({"w": [[1.0, -1.0]]}, {"rule": rule, "preset": preset})
    for sequence in (1, 2, 3):
        assert new.push({"w": [[0.5, -0.5]]}, worker="w0", sequence=sequence).status == 200
    high, low = new.pull()["w"][0]
    assert high < 1.0
    assert low > -1.0


def test_a_model_that_is_there_already_is_told_by_what_differs(new: Model) -> None:
    new.create({"w": [1.0]}, SGD)
    spec = {"optimizer": {"rule": "adam"}, "sync": "bsp", "parameters": {"w": [1.0]}}
    problem = refused(new.send("PUT", "", spec), 409, "model-exists")
    assert problem["differs"] == ["optimizer", "sync"]
    assert "what differs is optimizer, sync" in problem["detail"]
    others = refused(new.send("PUT", "", {"optimizer": SGD, "parameters": {"w": [2.0]}}), 409, "model-exists")
    assert others["differs"] == [] and "other initial values" in others["detail"]


def test_a_gap_is_told_by_who_left_it(model: Model) -> None:
    problem = refused(model.push({"b": [1.0, 2.0, 3.0]}, worker="w", sequence=5), 409, "sequence-gap")
    assert problem["detail"] == "worker 'w' sent sequence 5; expected 1"
    assert (problem["worker"], problem["got"], problem["expected"]) == ("w", 5, 1)
