"""Every hostile body, against a real service: a problem in plain words, no trace, and it goes on serving."""

from __future__ import annotations

import pytest

from tests.api.talk import Model, refused
from tests.attacks.bodies import ATTACKS, GOOD, JSON_ATTACKS, JSON_VALUES, SCALE_ATTACKS, Attack
from tests.service import SAFETENSORS

LIMIT_BYTES = (4 << 20) + 8
"""The most a body for the model may have: its one element, and 4 MiB of header."""


@pytest.fixture
def model(new: Model) -> Model:
    """One element, as the attacks expect it."""
    return new.create({"w": [0.0]})


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_hostile_body_leaves_no_trace(model: Model, attack: Attack) -> None:
    with model.untouched():
        for answer in (
            model.push_bytes(attack.body, "worker=w0&sequence=1"),
            model.send("PUT", "/parameters", attack.body, Content_Type=SAFETENSORS),
        ):
            if len(attack.body) > LIMIT_BYTES:
                refused(answer, 413, "body-too-large")
            else:
                assert attack.expect in refused(answer, 400, "malformed-body")["detail"]
    assert model.push_bytes(GOOD, "worker=w0&sequence=1").receipt["step"] == 1


@pytest.mark.parametrize(("slug", "attack"), SCALE_ATTACKS, ids=lambda part: getattr(part, "name", part))
def test_hostile_scales_leave_no_trace(model: Model, slug: str, attack: Attack) -> None:
    with model.untouched():
        answer = model.push_bytes(attack.body, "worker=w0&sequence=1")
        assert attack.expect in refused(answer, 422, slug)["detail"]
        upload = model.send("PUT", "/parameters", attack.body, Content_Type=SAFETENSORS)
        assert upload.status == 422
    assert model.push_bytes(GOOD, "worker=w0&sequence=1").receipt["step"] == 1


@pytest.mark.parametrize("attack", JSON_ATTACKS, ids=lambda attack: attack.name)
def test_hostile_json_leaves_no_trace(model: Model, attack: Attack) -> None:
    with model.untouched():
        for verb, path in (("POST", "/gradients"), ("PUT", "/parameters"), ("PUT", ""), ("PATCH", "")):
            answer = model.send(verb, path, attack.body, Content_Type="application/json")
            assert attack.expect in refused(answer, 400, "malformed-body")["detail"]


@pytest.mark.parametrize(("value", "words"), [v[1:] for v in JSON_VALUES], ids=[v[0] for v in JSON_VALUES])
def test_what_is_no_tensor_leaves_no_trace(model: Model, value: object, words: str) -> None:
    with model.untouched():
        for answer in (
            model.push({"w": value}),
            model.send("PUT", "/parameters", {"parameters": {"w": value}}),
        ):
            assert words in refused(answer, 400, "malformed-body")["detail"]
