"""The catalogue of schedules and their previews, over HTTP."""

from __future__ import annotations

import math
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator

from gradledger_server.optim.schedules.catalog import SCHEDULES
from tests.api.talk import Json, refused
from tests.service import Answer, Service


def preview(service: Service, name: str, query: str = "") -> Answer:
    return service.request("GET", f"/v1/schedules/{name}/preview?{query}")


def test_every_schedule_tells_what_it_is(service: Service) -> None:
    listed = service.request("GET", "/v1/schedules").json["schedules"]
    assert [told["name"] for told in listed] == list(SCHEDULES)
    for told in listed:
        assert told["summary"] and told["source"] and told["formula"], told["name"]
        assert told["reproduces"], told["name"]
        OAS31Validator.check_schema(told["settings"])
        assert service.request("GET", f"/v1/schedules/{told['name']}").json == told
    assert service.request("GET", "/v1").json["links"]["schedules"] == "/v1/schedules"


def test_an_alias_leads_to_its_schedule(service: Service) -> None:
    told = service.request("GET", "/v1/schedules/caffe_step").json
    assert told["name"] == "exponential_decay"
    assert told["aliases"]["caffe_step"]["settings"] == {"gamma": "decay_rate", "step_size": "decay_steps"}


def test_a_curve(service: Service) -> None:
    answer = preview(service, "cosine_decay", "lr=0.5&decay_steps=8&first=2&last=10&points=5")
    assert answer.json["s"] == [2, 4, 6, 8, 10]
    assert answer.json["lr"] == pytest.approx(
        [0.25 * (1 + math.cos(math.pi * s / 8)) for s in (2, 4, 6, 8, 8)], abs=1e-16
    )
    assert answer.json["schedule"]["after_end"] == "hold"


@pytest.mark.parametrize(
    ("name", "query", "rates"),
    [
        ("caffe_multistep", "gamma=0.5&step_values=1,3&last=3", [1, 0.5, 0.5, 0.25]),
        ("piecewise_constant", "boundaries=1&values=1,0.1&boundary=gt&last=2", [1, 1, 0.1]),
        ("exponential_decay", "decay_rate=0.5&decay_steps=2&staircase=true&last=2", [1, 1, 0.5]),
        ("plateau", "last=2", [1, 1, 1]),
        ("linear", "start_factor=1&end_factor=0&total_steps=9007199254740992&first=9007199254740992", [0]),
        ("constant", "points=1&first=5&last=9", [1]),
    ],
)
def test_settings_in_a_query(service: Service, name: str, query: str, rates: list[float]) -> None:
    if "9007199254740992&first" in query:
        query += "&last=9007199254740992"
    assert preview(service, name, query).json["lr"] == rates


def test_a_nested_schedule_is_previewed_from_json(service: Service) -> None:
    linear = {"name": "linear", "start_factor": 0, "total_steps": 2}
    nested = {"name": "sequence", "schedules": [linear, {"name": "constant"}], "boundaries": [2]}
    answer = service.request("POST", "/v1/schedules/preview", {"schedule": nested, "lr": 2, "last": 3})
    assert answer.json["lr"] == [0, 1, 2, 2]


def test_a_preview_is_bounded(service: Service) -> None:
    whole = preview(
        service, "noam", "model_width=64&warmup_steps=100&last=9007199254740992&points=10000"
    ).json
    assert (len(whole["s"]), whole["s"][0], whole["s"][-1]) == (10_000, 0, 2**53)
    assert len(preview(service, "constant").json["lr"]) == 1000
    for query in ("points=10001", "points=0", "last=9007199254740993", "first=-1", "first=5&last=4", "lr=-1"):
        refused(preview(service, "constant", query), 422, "invalid")
    refused(preview(service, "constant", "lr=1e999"), 422, "invalid")


BAD: list[tuple[str, str, str]] = [
    ("cosine_decay", "", "schedule.decay_steps"),
    ("cosine_decay", "decay_steps=ten", "schedule.decay_steps"),
    ("multistep", "step_values=1,2,2", "schedule.step_values[2]"),
    ("multistep", "step_values=" + ",".join(map(str, range(1001))), "schedule.step_values"),
    ("constant", "power=2", "schedule.power"),
    ("sequence", "schedules=a,b&boundaries=5", "schedule.schedules[0]"),
]


@pytest.mark.parametrize(("name", "query", "field"), BAD)
def test_settings_that_cannot_be(service: Service, name: str, query: str, field: str) -> None:
    assert refused(preview(service, name, query), 422, "invalid-spec")["field"] == field


def test_what_is_not_there_and_what_is_said_twice(service: Service) -> None:
    refused(preview(service, "cosine"), 404, "schedule-not-found")
    refused(service.request("GET", "/v1/schedules/cosine"), 404, "schedule-not-found")
    refused(preview(service, "constant", "lr=1&lr=1"), 400, "malformed-request")
    refused(preview(service, "constant", "name=noam"), 400, "malformed-request")


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({}, 422, "invalid"),
        ({"schedule": 3}, 422, "invalid"),
        ({"schedule": {"name": "constant"}, "steps": 5}, 422, "invalid"),
        ({"schedule": {"name": "constant"}, "points": 1.5}, 422, "invalid"),
        ({"schedule": {"name": "sequence", "schedules": [[]], "boundaries": [1]}}, 422, "invalid-spec"),
        ([], 400, "malformed-body"),
    ],
)
def test_bodies_that_cannot_be(service: Service, body: Any, status: int, slug: str) -> None:
    refused(service.request("POST", "/v1/schedules/preview", body), status, slug)


def test_a_preview_is_what_a_model_will_do(service: Service) -> None:
    schedule: Json = {"name": "warmup_cosine", "warmup_steps": 3, "decay_steps": 8, "init_lr": 0.01}
    told = service.request("POST", "/v1/schedules/preview", {"schedule": schedule, "lr": 0.3, "last": 9}).json
    spec = {"optimizer": {"rule": "sgd", "lr": 0.3}, "schedule": schedule, "parameters": {"w": [1.0]}}
    assert service.request("PUT", "/v1/models/previewed", spec).json["schedule"] == told["schedule"]
    body = {"gradients": {"w": [1.0]}}
    rates = [service.request("POST", "/v1/models/previewed/gradients", body).receipt["lr"] for _ in range(10)]
    assert rates == told["lr"]
