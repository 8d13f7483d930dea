"""Which form a body has, which form its answer takes, and what happens when none will do."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.api.talk import Model, dumps, refused
from tests.service import SAFETENSORS

JSON = "application/json"
X_SAFETENSORS = "application/x-safetensors"
OCTETS = "application/octet-stream"

PULLS = [
    ("*/*", JSON),
    ("application/*", JSON),
    ("", JSON),
    (JSON, JSON),
    ("Application/JSON; charset=utf-8", JSON),
    (SAFETENSORS, SAFETENSORS),
    (X_SAFETENSORS, X_SAFETENSORS),
    (OCTETS, OCTETS),
    ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
    (f"{JSON};q=0.5, {SAFETENSORS}", SAFETENSORS),
    (f"{JSON} ;q=0.5, {SAFETENSORS} ; q=0.4", JSON),
    (f"{SAFETENSORS};q=0.9, {JSON};q=0.8", SAFETENSORS),
    (f"{JSON};q=0, */*", SAFETENSORS),
    (f"{JSON};q=0.1, */*;q=0.5", SAFETENSORS),
    (f"{SAFETENSORS}, */*", SAFETENSORS),
    (f"{JSON}, text/plain, */*", JSON),
    (f"text/*, {OCTETS};q=0.001", OCTETS),
]


@pytest.mark.parametrize(("accept", "form"), PULLS)
def test_a_pull_takes_the_form_liked_best(model: Model, accept: str, form: str) -> None:
    for path in ("/parameters", "/parameters/w"):
        answer = model.send("GET", path, Accept=accept)
        assert (answer.status, answer.headers["content-type"]) == (200, form)
        assert answer.headers["vary"] == "Accept"


UNACCEPTABLE = [
    "text/html",
    "text/*",
    f"{JSON};q=0",
    "*/*;q=0",
    f"{JSON};q=nan",
    "json",
    "application/json/x",
]


@pytest.mark.parametrize("accept", UNACCEPTABLE)
def test_what_nobody_offers_is_not_acceptable(model: Model, accept: str) -> None:
    with model.untouched():
        refused(model.send("GET", "/parameters", Accept=accept), 406, "not-acceptable")
        refused(model.send("GET", "/parameters/w", Accept=accept), 406, "not-acceptable")


@pytest.mark.parametrize("accept", UNACCEPTABLE)
def test_a_push_whose_answer_nobody_could_read_is_not_made(model: Model, accept: str) -> None:
    with model.untouched():
        refused(model.push({"b": [1.0, 1.0, 1.0]}, headers={"Accept": accept}), 406, "not-acceptable")


def test_the_state_is_bytes(model: Model) -> None:
    refused(model.send("GET", "/state", Accept=JSON), 406, "not-acceptable")
    assert model.send("GET", "/state", Accept=f"{JSON}, */*;q=0.1").headers["content-type"] == SAFETENSORS
    assert model.send("GET", "/state", Accept=OCTETS).headers["content-type"] == OCTETS


def test_a_push_is_answered_in_its_own_form_unless_told_otherwise(model: Model) -> None:
    gradient = {"b": np.ones(3)}
    assert model.push({"b": [1.0, 1.0, 1.0]}).headers["content-type"] == JSON
    assert model.push_bytes(gradient).headers["content-type"] == SAFETENSORS

    crossed = model.push({"b": [1.0, 1.0, 1.0]}, headers={"Accept": SAFETENSORS})
    assert load(crossed.data)["b"].tolist() == [-2.0, -1.0, 0.0]
    assert crossed.receipt["step"] == 3
    crossed = model.push_bytes(gradient, Accept=JSON)
    assert crossed.json["parameters"]["b"] == [-3.0, -2.0, -1.0]
    assert crossed.json["receipt"]["step"] == 4


@pytest.mark.parametrize("form", [SAFETENSORS, X_SAFETENSORS, OCTETS, SAFETENSORS.upper(), OCTETS + "; x=y"])
def test_safetensors_go_by_several_names(model: Model, form: str) -> None:
    gradient = {"b": np.ones(3)}
    assert model.push_bytes(gradient, Content_Type=form).status == 200
    assert model.send("PUT", "/parameters", save(gradient), Content_Type=form).status == 200


@pytest.mark.parametrize("form", ["text/plain", "application/x-npy", "", "json", "multipart/form-data"])
def test_an_unknown_form_is_refused_unread(model: Model, form: str) -> None:
    body = dumps({"gradients": {"b": [1.0, 1.0, 1.0]}})
    with model.untouched():
        for verb, path in (("POST", "/gradients"), ("PUT", "/parameters"), ("PUT", ""), ("PATCH", "")):
            refused(model.send(verb, path, body, Content_Type=form), 415, "unsupported-media-type")


def test_a_spec_is_json(model: Model) -> None:
    refused(
        model.send("PUT", "", save({"w": np.ones(1)}), Content_Type=SAFETENSORS),
        415,
        "unsupported-media-type",
    )


def test_a_compressed_body_is_refused_as_such(model: Model) -> None:
    with model.untouched():
        answer = model.push_bytes({"b": np.ones(3)}, Content_Encoding="gzip")
        refused(answer, 415, "unsupported-media-type")


def test_prefer_minimal_answers_the_receipt_alone(model: Model) -> None:
    for prefer in ("return=minimal", 'respond-async, Return="minimal"; x=y'):
        for push in (
            model.push({"b": [1.0, 1.0, 1.0]}, headers={"Prefer": prefer}),
            model.push_bytes({"b": np.ones(3)}, Prefer=prefer, Accept=SAFETENSORS),
        ):
            assert push.headers["preference-applied"] == "return=minimal"
            assert set(push.json) == {"receipt", "step"}
            assert push.headers["etag"].endswith(f'.{push.json["step"]}"')


def test_many_parameters_are_never_sent_as_json(new: Model) -> None:
    new.create({"big": {"shape": [1100, 1000]}, "small": [1.0]})
    values = {"big": np.ones((1100, 1000), np.float32)}
    new.send("PUT", "/parameters", save(values), Content_Type=SAFETENSORS)

    assert new.send("GET", "/parameters").headers["content-type"] == SAFETENSORS
    assert new.send("GET", "/parameters", Accept=f"{JSON}, */*;q=0.1").headers["content-type"] == SAFETENSORS
    assert new.send("GET", "/parameters/small", Accept=JSON).status == 200
    with new.untouched():
        for path in ("/parameters", "/parameters/big"):
            refused(new.send("GET", path, Accept=JSON), 406, "not-acceptable")
        refused(new.push({"small": [1.0]}, headers={"Accept": JSON}), 406, "not-acceptable")
    assert new.push({"small": [1.0]}).headers["content-type"] == SAFETENSORS
