"""Paths nobody serves, verbs a path does not take, and names that could not be a path's."""

from __future__ import annotations

import numpy as np
import pytest

from gradledger_server.server import document
from tests.api.talk import SGD, Model, quoted, refused
from tests.service import Service

GOOD = {"b": [1.0, 1.0, 1.0]}


def test_what_is_not_there(service: Service, model: Model) -> None:
    missing = Model(service, "missing")
    gradient = {"b": np.zeros(3)}
    for answer in (
        missing.send("GET"),
        missing.send("PATCH", "", {"optimizer": {"lr": 1.0}}),
        missing.send("DELETE"),
        missing.push(GOOD),
        missing.push_bytes(gradient),
        missing.send("PUT", "/parameters", {"parameters": GOOD}),
        *(
            missing.send("GET", path)
            for path in ("/parameters", "/parameters/w", "/state", "/entries", "/workers")
        ),
    ):
        refused(answer, 404, "model-not-found")
    for path in (
        "/",
        "/v2",
        "/v1/",
        "/v1/models/",
        "/v1/model",
        model.path + "/",
        model.path + "/gradient",
        "//v1",
    ):
        refused(service.request("GET", path), 404, "not-found")


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("POST", "/v1/models", "GET"),
        ("POST", "/v1/models/x", "DELETE, GET, PATCH, PUT"),
        ("GET", "/v1/models/x/gradients", "POST"),
        ("DELETE", "/v1/models/x/parameters", "GET, PUT"),
        ("PUT", "/v1/models/x/parameters/w", "GET"),
        ("HEAD", "/v1/models/x/state", "GET"),
        ("OPTIONS", "/v1/models/x/entries", "GET"),
        ("POST", "/docs", "GET"),
        ("DELETE", "/metrics", "GET"),
    ],
)
def test_the_wrong_verb_learns_the_right_ones(service: Service, verb: str, path: str, allowed: str) -> None:
    answer = service.request(verb, path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    if verb != "HEAD":
        hint = refused(answer, 405, "method-not-allowed")["hint"]
        assert hint.startswith(f"Allowed here: {allowed}.")
        assert ("Create a model with PUT" in hint) == (path in ("/v1/models", "/v1/models/x"))


NAMES = [
    "",
    ".",
    "..",
    ".hidden",
    "-x",
    "a b",
    "a\0b",
    "a\nb",
    "ü",
    "λ",
    "a#b",
    "a?b",
    "a:b",
    "x" * 129,
    "x" * 10_000,
    "😀",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:20])
def test_odd_names_cannot_name_a_model(service: Service, name: str) -> None:
    model = Model(service, quoted(name))
    spec = {"optimizer": SGD, "parameters": {"w": [0.0]}}
    before = service.request("GET", "/v1/models").json
    answer = model.send("PUT", "", spec)
    if name:
        refused(answer, 422, "invalid-name")
        assert model.send("GET").status in (404, 422)
    else:
        refused(answer, 404, "not-found")
    assert service.request("GET", "/v1/models").json == before


@pytest.mark.parametrize("name", ["a/b", "../x", "a/parameters"])
def test_a_slash_does_not_hide_in_a_name(service: Service, name: str) -> None:
    answer = Model(service, quoted(name)).send("PUT", "", {"optimizer": SGD, "parameters": {"w": [0.0]}})
    assert answer.status in (404, 405), answer
    assert answer.problem in ("not-found", "method-not-allowed", "model-not-found")
    if answer.problem == "not-found":
        assert answer.json["hint"].startswith("A model's name cannot contain '/'.")


def test_whoever_looks_for_the_health_learns_where_it_is(service: Service) -> None:
    for path in ("/healthz", "/health"):
        hint = refused(service.request("GET", path), 404, "not-found")["hint"]
        assert "/readyz" in hint
        assert "/livez" in hint
    links = set(service.request("GET", "/v1").json["links"].values())
    assert {"/readyz", "/livez", "/metrics", "/openapi.json"} <= links


def test_a_model_name_is_told_that_letters_are_ascii(service: Service) -> None:
    answer = Model(service, quoted("mödel")).send("PUT", "", {"optimizer": SGD, "parameters": {"w": [0.0]}})
    assert "ASCII letters" in refused(answer, 422, "invalid-name")["hint"]


SETTLED = [
    (verb.upper(), path)
    for path, operations in document()["paths"].items()
    for verb, operation in operations.items()
    if "service" not in operation["tags"] and not path.endswith("/preview")
]
"""What takes no query, or a few fields; probes may say anything, and a preview takes its schedule's own."""


@pytest.mark.parametrize(("verb", "path"), SETTLED, ids=[f"{verb} {path}" for verb, path in SETTLED])
def test_a_query_that_nobody_reads_is_refused(service: Service, model: Model, verb: str, path: str) -> None:
    filled = path.replace("{model}", model.name).replace("{tensor}", "b").replace("{worker}", "w0")
    filled = filled.replace("{sequence}", "1").replace("{rule}", "adam").replace("{name}", "constant")
    body = {"gradients": GOOD} if path.endswith("/gradients") else None
    with model.untouched():
        answer = service.request(verb, f"{filled}?colour=red", body)
        problem = refused(answer, 422, "invalid")
        assert (problem["field"], problem["hint"]) == ("colour", "Remove it.")
        assert problem["detail"].startswith("query: field colour is not known; ")


@pytest.mark.parametrize("path", ["/parameters", "/parameters/w"])
def test_a_misspelt_view_is_not_answered_with_another(model: Model, path: str) -> None:
    problem = refused(model.send("GET", f"{path}?wiew=ema"), 422, "invalid")
    assert "known are view" in problem["detail"]
    assert problem["hint"] == "Did you mean 'view'?"
    twice = refused(model.send("GET", f"{path}?view=ema&view=train"), 400, "malformed-request")
    assert "'view'" in twice["detail"]


def test_a_fact_misspelt_in_the_query_is_not_looked_for_in_the_body(model: Model) -> None:
    with model.untouched():
        for answer in (
            model.push_bytes({"b": np.zeros(3)}, "wroker=q"),
            model.send("POST", "/gradients?wroker=q", {"gradients": GOOD}),
        ):
            problem = refused(answer, 422, "invalid")
            assert problem["detail"].startswith("query: field wroker is not known; ")
            assert (problem["field"], problem["hint"]) == ("wroker", "Did you mean 'worker'?")
