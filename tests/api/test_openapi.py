"""The OpenAPI document: valid, committed, complete, and true of the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gradledger_server.server import document
from tests.api.talk import Model
from tests.service import Answer, Service

COMMITTED = Path(__file__).resolve().parents[2] / "openapi" / "openapi.json"
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
HARMLESS = {"/livez", "/metrics"}
"""Paths that cannot fail in any way the service knows of."""


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    return document()


def operations(spec: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (verb, path, operation) for path, item in spec["paths"].items() for verb, operation in item.items()
    ]


def test_it_is_valid(spec: dict[str, Any]) -> None:
    assert spec["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(spec).validate()


def test_the_committed_one_is_this_one(spec: dict[str, Any]) -> None:
    assert json.loads(COMMITTED.read_text()) == spec, "run `make openapi`"


def test_the_service_serves_it(service: Service, spec: dict[str, Any]) -> None:
    assert service.request("GET", "/openapi.json").json == spec


def test_every_operation_documents_its_problems(spec: dict[str, Any]) -> None:
    for verb, path, operation in operations(spec):
        answers = operation["responses"]
        problems = {status for status in answers if status >= "400"}
        assert problems or path in HARMLESS, f"{verb} {path}"
        for status in problems:
            assert answers[status]["content"] == PROBLEM, f"{verb} {path} {status}"
        if "{model}" in path:
            assert {"404", "503"} <= problems or verb == "put", f"{verb} {path}"
        if "requestBody" in operation:
            assert {"400", "408", "411", "413", "415", "422", "503", "507"} <= problems, f"{verb} {path}"


def test_every_operation_is_described(spec: dict[str, Any]) -> None:
    for verb, path, operation in operations(spec):
        assert operation["description"], f"{verb} {path}"
        assert operation["tags"], f"{verb} {path}"
    identities = [operation["operationId"] for _, _, operation in operations(spec)]
    assert len(identities) == len(set(identities))


def test_both_body_forms_are_documented(spec: dict[str, Any]) -> None:
    for path, verb in (("/gradients", "post"), ("/parameters", "put")):
        content = spec["paths"]["/v1/models/{model}" + path][verb]["requestBody"]["content"]
        assert set(content) == {"application/json", "application/vnd.safetensors"}
    query = spec["paths"]["/v1/models/{model}/gradients"]["post"]["parameters"]
    assert {"worker", "sequence", "base", "weight"} <= {parameter["name"] for parameter in query}


def test_request_headers_are_documented(spec: dict[str, Any]) -> None:
    def headers(path: str, verb: str) -> set[str]:
        parameters = spec["paths"]["/v1/models/{model}" + path][verb].get("parameters", [])
        return {parameter["name"] for parameter in parameters if parameter["in"] == "header"}

    assert headers("/gradients", "post") == {"Idempotency-Key", "If-Match", "Prefer"}
    assert headers("/parameters", "get") == {"If-None-Match", "Prefer"}
    assert headers("/parameters", "put") == {"If-Match", "If-None-Match"}
    assert headers("", "patch") == headers("", "delete") == {"If-Match"}


def test_what_the_service_answers_is_what_the_document_promises(spec: dict[str, Any], model: Model) -> None:
    def promised(verb: str, path: str, answer: Answer) -> None:
        operation = spec["paths"]["/v1/models/{model}" + path][verb]
        media_type = answer.headers["content-type"]
        schema = operation["responses"][str(answer.status)]["content"][media_type]["schema"]
        OAS31Validator({**schema, "components": spec["components"]}).validate(answer.json)

    gradients = {"b": [1.0, 1.0, 1.0]}
    for _ in range(2):
        promised("post", "/gradients", model.push(gradients, worker="w0", sequence=1))
    promised("post", "/gradients", model.push(gradients, headers={"Prefer": "return=minimal"}))
    promised("post", "/gradients", model.push(gradients, worker="w0", sequence=9))
    promised("put", "/parameters", model.send("PUT", "/parameters", {"parameters": gradients}))
    promised("patch", "", model.send("PATCH", "", {"optimizer": {"lr": 0.5}}))
    promised("post", "/metrics", model.send("POST", "/metrics", {"value": 1.0}))
    for path in ("", "/parameters", "/entries", "/workers", "/metrics"):
        promised("get", path, model.send("GET", path))
    promised("get", "/parameters/{tensor}", model.send("GET", "/parameters/w"))


@pytest.mark.parametrize(("noun", "item"), [("optimizers", "{rule}"), ("transforms", "{name}")])
def test_the_catalogue_is_what_the_document_promises(
    spec: dict[str, Any], service: Service, noun: str, item: str
) -> None:
    listed = service.request("GET", f"/v1/{noun}").json
    answered = {f"/v1/{noun}": [listed], f"/v1/{noun}/{item}": listed[noun]}
    for path, answers in answered.items():
        schema = spec["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        for answer in answers:
            OAS31Validator({**schema, "components": spec["components"]}).validate(answer)
