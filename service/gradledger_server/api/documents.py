"""The OpenAPI document's part that FastAPI cannot see: bodies read as streams, answers sent as bytes."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gradledger_server.api import schemas
from gradledger_server.api.forms import JSON, SAFETENSORS
from gradledger_server.api.shapes import (
    ANSWERS,
    ANY_OBJECT,
    INTEGER,
    NUMBER,
    STRING,
    Document,
    described,
    maybe,
)

_REQUESTS = (
    schemas.ModelRequest,
    schemas.ModelChange,
    schemas.PushFacts,
    schemas.WorkerRequest,
    schemas.PushRequest,
    schemas.UploadRequest,
    schemas.MetricRequest,
    schemas.PreviewRequest,
    schemas.RowsRequest,
)


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(
    schema: Document,
    description: str,
    status: int = 200,
    more: Document | None = None,
    headers: Document | None = None,
) -> dict[int | str, Document]:
    answer = {"description": description, "content": {JSON: {"schema": schema}} | (more or {})}
    return {status: answer | ({"headers": headers} if headers else {})}


def _list_of(noun: str, item: Document = ANY_OBJECT, **others: Document) -> dict[int | str, Document]:
    rows = {"type": "array", "items": item}
    return _json(described(f"The {noun}.", **{noun: rows}, **others), f"The {noun}")


_BINARY = {SAFETENSORS: {"schema": {"description": "safetensors; the media type is not registered"}}}
_NOT_MODIFIED: dict[int | str, Document] = {304: {"description": "The client has this version"}}

MODELS = _list_of("models")
MODEL = _json(_ref("Model"), "The model")
CREATED = _json(_ref("Model"), "The model, created", 201)
PARAMETERS = _json(_ref("Parameters"), "One step's parameters", more=_BINARY) | _NOT_MODIFIED
ROWS = _json(_ref("Parameters"), "Rows of a table at one step", more=_BINARY)
UPLOADED = _json(_ref("Uploaded"), "The version after the upload")
_TIMED = {
    "Server-Timing": {
        "description": "Where the push's time went, `receive;dur=1.250, …` in milliseconds: `receive`, "
        "`decode`, `queue` (it waits for its turn), `append`, `apply`, `wait` (in a round) and `respond`. "
        "They add up to the time from the request's head to the answer's.",
        "schema": STRING,
    }
}
PUSHED = _json(
    described(
        "A receipt, and unless `Prefer: return=minimal` the parameters.",
        receipt=_ref("Receipt"),
        step=INTEGER,
    ),
    "The update was made; with a safetensors answer the receipt is the header `Receipt`",
    more=_BINARY,
    headers=_TIMED,
)
WAITING = _json(_ref("Receipt"), "The push waits for others; Location tells its fate", 202, headers=_TIMED)
RECEIPT = _json(_ref("Receipt"), "The fate of the push")
TENSORS: dict[int | str, Document] = {200: {"description": "The whole state", "content": _BINARY}}
ENTRIES = _list_of("entries", next_after=maybe("integer"), offset=INTEGER, saved_offset=INTEGER)
EVENTS: dict[int | str, Document] = {
    200: {"description": "The stream", "content": {"text/event-stream": {"schema": STRING}}}
}
WORKERS = _list_of("workers", round=ANY_OBJECT, guard=ANY_OBJECT)
WORKER = _json(ANY_OBJECT, "The worker, and the sequence its next push must carry")
QUARANTINED: dict[int | str, Document] = {204: {"description": "It is so from the next entry on"}}
LEFT: dict[int | str, Document] = {204: {"description": "Nobody waits for the worker any more"}}
OPTIMIZERS = _list_of("optimizers", _ref("Optimizer"))
OPTIMIZER = _json(_ref("Optimizer"), "The rule")
TRANSFORMS = _list_of("transforms", _ref("Transform"))
TRANSFORM = _json(_ref("Transform"), "The transform")
SCHEDULES = _list_of("schedules")
SCHEDULE = _json(ANY_OBJECT, "The schedule")
PREVIEW = _json(
    described(
        "Learning rates for plotting: `lr[i]` is that of the update after `s[i]` applied ones.",
        schedule=ANY_OBJECT,
        s={"type": "array", "items": INTEGER},
        lr={"type": "array", "items": NUMBER},
    ),
    "The curve",
)
PLATEAUS = _list_of("plateaus")
METRIC = _list_of("plateaus", receipt=ANY_OBJECT)
FACTS = _json(ANY_OBJECT, "The service")
HEALTH = _json(described("Health.", status=STRING), "Healthy")
PROBLEM_TYPE = _json(described("A problem type.", type=STRING, title=STRING, hint=STRING), "The problem type")


_HEADERS = {
    "If-Match": "Only if the model is still at this version: an ETag, or `*`.",
    "If-None-Match": "ETags the client has; the present one answers 304.",
    "Last-Event-ID": "The id of the last event heard: the stream goes on behind it.",
    "Idempotency-Key": "Names a push without a worker: 1 to 255 visible ASCII characters.",
}
RETURN = "`return=minimal` answers the receipt alone."
WAIT = "`wait=20` waits up to so many seconds for a version that If-None-Match does not name."


def headers(*names: str, prefer: str | None = None) -> Document:
    """The request headers a route reads; `prefer` says which preferences."""
    read = {name: _HEADERS[name] for name in names} | ({"Prefer": prefer} if prefer else {})
    return {
        "parameters": [
            {"name": name, "in": "header", "required": False, "description": meaning, "schema": STRING}
            for name, meaning in read.items()
        ]
    }


def pull() -> Document:
    """What a pull may say."""
    return {"parameters": [*headers("If-None-Match", prefer=WAIT)["parameters"], *view()["parameters"]]}


def view() -> Document:
    """Which reading of the parameters is asked for."""
    meaning = "`train` (the default), or another of the model's `views`."
    asked = {"name": "view", "in": "query", "required": False, "description": meaning, "schema": STRING}
    return {"parameters": [asked]}


def body_of(schema: str) -> Document:
    """A JSON request body."""
    return {"requestBody": {"required": True, "content": {JSON: {"schema": _ref(schema)}}}}


def tensors_body(schema: str) -> Document:
    """A request body in either form."""
    content = {JSON: {"schema": _ref(schema)}, **_BINARY}
    return {"requestBody": {"required": True, "content": content}}


def pull_tensor() -> Document:
    """What a pull of one tensor may say."""
    meaning = "Of a table: the rows wanted, such as `1,5,7`."
    rows = {"name": "rows", "in": "query", "required": False, "description": meaning, "schema": STRING}
    return {"parameters": [*pull()["parameters"], rows]}


def push_body() -> Document:
    """A push: with safetensors its facts are query parameters."""
    read = headers("Idempotency-Key", "If-Match", prefer=RETURN)
    fields = schemas.PushFacts.model_json_schema()["properties"]
    read["parameters"] += [
        {"name": name, "in": "query", "required": False, "schema": _plain(field)}
        for name, field in fields.items()
    ]
    return tensors_body("PushRequest") | read


def preview_query() -> Document:
    """The stretch of a preview; a schedule's own settings are further parameters."""
    fields = schemas.PreviewRequest.model_json_schema()["properties"]
    stretch: list[Document] = [
        {"name": name, "in": "query", "required": False, "schema": _plain(field)}
        for name, field in fields.items()
        if name != "schedule"
    ]
    settings = {
        "name": "settings",
        "in": "query",
        "required": False,
        "description": "The schedule's own settings, each by its name; lists as `10,20`.",
        "style": "form",
        "explode": True,
        "schema": {"type": "object", "additionalProperties": True},
    }
    return {"parameters": [*stretch, settings]}


def install(app: FastAPI) -> None:
    """Makes `app.openapi()` answer the whole document: with our 422, and with 408 where there is a body."""

    def document() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    description=app.description,
                    routes=app.routes,
                    servers=[{"url": "http://127.0.0.1:8000"}],
                )
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(document: Document) -> Document:
    components = document.setdefault("components", {}).setdefault("schemas", {})
    for framework in ("HTTPValidationError", "ValidationError"):
        components.pop(framework, None)
    components |= ANSWERS
    for schema in _REQUESTS:
        described = schema.model_json_schema(ref_template="#/components/schemas/{model}")
        components |= described.pop("$defs", {})
        components[schema.__name__] = described
    problem = {"application/problem+json": {"schema": _ref("Problem")}}
    for operations in document["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            if "422" in answers:
                answers["422"] = {"description": "Problem", "content": problem}
            if "requestBody" in operation:  # which may stop half-way
                answers["408"] = {"description": "Problem", "content": problem}
    return document


def _plain(field: Document) -> Document:
    """An optional field's schema as a query parameter has it: present or absent, never null."""
    options = [option for option in field.get("anyOf", []) if option.get("type") != "null"]
    kept = {key: value for key, value in field.items() if key not in ("anyOf", "default", "title")}
    return kept | (options[0] if options else {})
