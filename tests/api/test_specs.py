"""Specs that cannot be: the problem names the field and what is allowed, and no model appears."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.talk import SGD, Json, Model, refused

ADAM = {"rule": "adam"}
W = {"w": [0.0, 1.0]}


def optimizer(**fields: Any) -> Json:
    return {"optimizer": {**ADAM, **fields}, "parameters": W}


def parameters(**declared: Any) -> Json:
    return {"optimizer": SGD, "parameters": declared}


BAD_SPECS: list[tuple[Json, str]] = [
    (optimizer(lr=-0.1), "optimizer.lr"),
    (optimizer(lr="fast"), "optimizer.lr"),
    (optimizer(lr=True), "optimizer.lr"),
    (optimizer(lr=None), "optimizer.lr"),
    (optimizer(lr=1e39), "optimizer.lr"),
    (optimizer(lr=10**400), "optimizer.lr"),
    (optimizer(beta1=1.0), "optimizer.beta1"),
    (optimizer(beta2=-0.1), "optimizer.beta2"),
    (optimizer(eps=0.0), "optimizer.eps"),
    (optimizer(momentum=0.9), "optimizer.momentum"),
    (optimizer(lr=0.1, learning_rate=0.2), "optimizer.learning_rate"),
    (optimizer(betas=[0.9]), "optimizer.betas"),
    (optimizer(preset="pytorch"), "optimizer.preset"),
    (optimizer(rule="adamm"), "optimizer.rule"),
    (optimizer(rule=None), "optimizer.rule"),
    (optimizer(rule=["adam"]), "optimizer.rule"),
    ({"optimizer": {}, "parameters": W}, "optimizer.rule"),
    ({"optimizer": ["adam"], "parameters": W}, "optimizer"),
    ({"parameters": W}, "optimizer"),
    ({"optimizer": ADAM}, "parameters"),
    ({"optimizer": ADAM, "parameters": {}}, "parameters"),
    ({"optimizer": ADAM, "parameters": [1.0]}, "parameters"),
    ({"optimizer": ADAM, "parameters": W, "transforms": []}, "transforms"),
    ({"optimizer": ADAM, "parameters": W, "sync": {"mode": "bulk"}}, "sync.mode"),
    ({"optimizer": ADAM, "parameters": W, "sync": {"slack": 1}}, "sync.slack"),
    ({"optimizer": ADAM, "parameters": W, "schedule": {"name": "cosine"}}, "schedule.name"),
    ({"optimizer": ADAM, "parameters": W, "schedule": {"name": "exponential_decay"}}, "schedule.decay_rate"),
    ({"optimizer": ADAM, "parameters": W, "schedule": {"name": "constant", "power": 2}}, "schedule.power"),
    ({"optimizer": ADAM, "parameters": W, "schedule": 1}, "schedule"),
    ({"optimizer": ADAM, "parameters": W, "groups": {"match": "w"}}, "groups"),
    ({"optimizer": ADAM, "parameters": W, "groups": [{"optimizer": {}}]}, "groups[0].match"),
    ({"optimizer": ADAM, "parameters": W, "groups": [{"match": "w", "lr": 1}]}, "groups[0].lr"),
    ({"optimizer": ADAM, "parameters": W, "groups": [{"match": "v"}]}, "groups[0].match"),
    (
        {"optimizer": ADAM, "parameters": W, "groups": [{"match": "w", "optimizer": {"lr": -1}}]},
        "groups[0].optimizer.lr",
    ),
    ({"optimizer": ADAM, "parameters": W, "groups": [{"match": "w"}] * 65}, "groups"),
    (parameters(w={}), "parameters.w"),
    (parameters(w={"shape": None}), "parameters.w"),
    (parameters(w=None), "parameters.w"),
    (parameters(w={"shape": [-1]}), "parameters.w.shape"),
    (parameters(w={"shape": [0, 2**70]}), "parameters.w.shape"),
    (parameters(w={"shape": [1] * 17}), "parameters.w.shape"),
    (parameters(w={"shape": ["3"]}), "parameters.w.shape[0]"),
    (parameters(w={"shape": [True]}), "parameters.w.shape[0]"),
    (parameters(w={"shape": [1.5]}), "parameters.w.shape[0]"),
    (parameters(w={"shape": 3}), "parameters.w.shape"),
    (parameters(w={"shape": [2], "dtype": "F16"}), "parameters.w.dtype"),
    (parameters(w={"shape": [2], "dype": "F32"}), "parameters.w.dype"),
    (parameters(w={"shape": [3], "values": [1.0, 2.0]}), "parameters.w.shape"),
    (parameters(w={"shape": [1 << 40]}), "parameters"),
    (parameters(w={"shape": [1 << 60, 1 << 60]}), "parameters"),
    (parameters(**{str(number): {"shape": [1 << 20]} for number in range(2000)}), "parameters"),
]


@pytest.mark.parametrize(("spec", "field"), BAD_SPECS, ids=[f"{n}-{f}" for n, (_, f) in enumerate(BAD_SPECS)])
def test_a_wrong_field_is_named_and_no_model_made(new: Model, spec: Json, field: str) -> None:
    problem = refused(new.send("PUT", "", spec), 422, "invalid-spec")
    assert problem["field"] == field
    refused(new.send("GET"), 404, "model-not-found")


def test_a_number_out_of_range_learns_the_range(new: Model) -> None:
    problem = refused(new.send("PUT", "", optimizer(beta1=1.5)), 422, "invalid-spec")
    assert (problem["got"], problem["allowed"]) == (1.5, "0 <= beta1 < 1")
    assert "optimizer.beta1" in problem["detail"]


def test_a_misspelt_name_learns_the_right_one(new: Model) -> None:
    assert (
        "weight_decay"
        in refused(new.send("PUT", "", optimizer(weigth_decay=0.1)), 422, "invalid-spec")["hint"]
    )
    assert "'adam'" in refused(new.send("PUT", "", optimizer(rule="adm")), 422, "invalid-spec")["hint"]


SAID: list[tuple[Json, str, str]] = [
    (
        {"optimizer": 3, "parameters": W},
        "optimizer is 3; expected an object",
        'Give "optimizer": {"rule": "adam"}.',
    ),
    ({"parameters": W}, "optimizer is missing", 'Give "optimizer": {"rule": "adam"}.'),
    (
        {"optimizer": {"name": "adam"}, "parameters": W},
        "optimizer.rule is missing; ",
        'optimizer.name is not known: give {"rule": "adam"}.',
    ),
    (
        {"optimizer": ADAM, "parameters": {}},
        "parameters is an empty object; expected at least 1 tensor",
        'Give "parameters": {"w": {"shape": [10]}}.',
    ),
    (
        {"optimizer": ADAM, "parameters": W, "sync": None},
        "sync is null; expected an object",
        'Give "sync": {"mode": "async"}.',
    ),
    ({"optimizer": ADAM, "parameters": W, "sync": "BSP"}, "sync.mode is BSP; ", "Did you mean 'bsp'?"),
    (
        {"optimizer": ADAM, "parameters": W, "sync": {"mode": "ssp"}},
        "sync.slack is missing; ",
        "Give sync.slack.",
    ),
    (
        {"optimizer": ADAM, "parameters": W, "sync": {"quorum": 3}},
        "sync.quorum is 3; allowed: null in mode 'async'.",
        "",
    ),
    (
        {"optimizer": ADAM, "parameters": W, "schedule": "cosin"},
        "schedule.name is cosin; ",
        "Did you mean 'cosine_decay'?",
    ),
    (
        {"optimizer": ADAM, "parameters": W, "schedule": {"name": "exponential_decay"}},
        "schedule.decay_rate is missing; ",
        "schedule 'exponential_decay' needs schedule.decay_rate.",
    ),
    (
        {"optimiser": ADAM, "parameters": W},
        "body: field optimiser is not known; ",
        "Did you mean 'optimizer'?",
    ),
    ({"optimizer": ADAM, "params": W}, "body: field params is not known; ", "Did you mean 'parameters'?"),
    ({"optimizer": ADAM, "parameters": W, "zzz": 1}, "body: field zzz is not known; ", "Remove it."),
    (
        {"optimizer": ADAM, "parameters": W, "guard": {"zzz": 1}},
        "guard.zzz is not known: ",
        "Remove it.",
    ),
    (
        {"optimizer": ADAM, "parameters": W, "groups": [{"mtch": "w"}]},
        "groups[0]: field mtch is not known; ",
        "Did you mean 'match'?",
    ),
    (
        parameters(w={"shape": [2], "dtype": "float32"}),
        "parameters.w.dtype is 'float32'; expected 'F32' or 'F64'",
        'Give "dtype": "F32".',
    ),
    (
        {
            "optimizer": ADAM,
            "parameters": W,
            "schedule": {"name": "sequence", "schedules": [], "boundaries": []},
        },
        "schedule.schedules is an empty list; allowed: a list of 2 to 100 objects.",
        "",
    ),
    (
        {
            "optimizer": ADAM,
            "parameters": W,
            "schedule": {"name": "sequence", "schedules": [{"name": "constant"}], "boundaries": [5]},
        },
        "schedule.schedules is a list of 1; allowed: a list of 2 to 100 objects.",
        "",
    ),
]


@pytest.mark.parametrize(("spec", "detail", "hint"), SAID, ids=[said for _, said, _ in SAID])
def test_a_refusal_speaks_of_json_and_says_what_to_do(new: Model, spec: Json, detail: str, hint: str) -> None:
    problem = refused(new.send("PUT", "", spec), 422, "invalid-spec")
    assert problem["detail"].startswith(detail)
    assert problem["hint"] == hint
    for foreign in ("None", "True", "dict", "Dictionary", "validation", "valid "):
        assert foreign not in problem["detail"]


def test_a_bare_name_stands_for_an_object(new: Model) -> None:
    spec = {"optimizer": "adam", "schedule": "constant", "sync": "bsp", "parameters": W}
    made = new.send("PUT", "", spec)
    assert (made.status, made.json["optimizer"]["rule"], made.json["sync"]["mode"]) == (201, "adam", "bsp")
    again = {"optimizer": ADAM, "schedule": {"name": "constant"}, "sync": {"mode": "bsp"}, "parameters": W}
    assert new.send("PUT", "", again).status == 200
    assert new.send("PATCH", "", {"optimizer": "adam", "schedule": "noam"}).status == 422
    changed = new.send("PATCH", "", {"optimizer": "adam", "schedule": "constant", "sync": "async"})
    assert (changed.status, changed.json["sync"]["mode"]) == (200, "async")


@pytest.mark.parametrize("name", ["", "a#b", "__metadata__", "a\nb", "a\0b", "x" * 513, "\u2028"])
@pytest.mark.parametrize("declared", [[1.0, 2.0], {"shape": [2]}], ids=["values", "shape"])
def test_a_tensor_has_a_printable_name(new: Model, name: str, declared: Any) -> None:
    refused(new.send("PUT", "", parameters(**{name: declared})), 422, "invalid-name")
    refused(new.send("GET"), 404, "model-not-found")


@pytest.mark.parametrize(
    ("values", "status", "slug"),
    [
        ([1.0, [2.0]], 400, "malformed-body"),
        ([1.0, 1e39], 422, "non-finite"),
        ({"values": [1e39]}, 422, "non-finite"),
        (["one"], 400, "malformed-body"),
        ("one", 400, "malformed-body"),
    ],
)
def test_initial_values_must_be_numbers(new: Model, values: Any, status: int, slug: str) -> None:
    refused(new.send("PUT", "", parameters(w=values)), status, slug)
    refused(new.send("GET"), 404, "model-not-found")


def test_spellings_of_other_libraries_are_understood(new: Model) -> None:
    spec = {"optimizer": {"rule": "adam", "learning_rate": 0.5, "betas": [0.8, 0.9]}, "parameters": W}
    created = new.send("PUT", "", spec).json["optimizer"]
    assert (created["lr"], created["beta1"], created["beta2"]) == (0.5, 0.8, 0.9)


def test_a_double_beyond_float32_may_be_a_double(new: Model) -> None:
    new.create({"w": {"values": [1e39], "dtype": "F64"}})
    assert new.pull() == {"w": [1e39]}
