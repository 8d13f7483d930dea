"""The OpenAPI document's part that FastAPI cannot see: bodies read as streams, answers sent as bytes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gradledger_server.api import schemas
from gradledger_server.api.forms import JSON, SAFETENSORS

Document = dict[str, Any]

FATES = ["applied", "accumulated", "merged", "waiting", "late", "rejected", "repeated"]
FATES += ["skipped", "outlier", "quarantined"]  # left out by a guard rail
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


def _object(description: str, **properties: Document) -> Document:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
    }


def _maybe(kind: str) -> Document:
    return {"type": [kind, "null"]}


_INTEGER, _NUMBER, _STRING = {"type": "integer"}, {"type": "number"}, {"type": "string"}
_ANY_OBJECT: Document = {"type": "object"}
_NAMES: Document = {"type": "array", "items": _STRING}
_NESTED = {"type": "object", "description": "Nested lists, row-major, by tensor name."}

_TOLD = {
    "name": _STRING,
    "summary": _STRING,
    "use": {"type": "string", "description": "When to use it."},
    "notes": _NAMES,
    "equation": {"type": "string", "description": "LaTeX, from the same trace as the kernels."},
    "hyperparameters": {"type": "object", "description": "JSON Schema 2020-12."},
}
_ROWS = _object(
    "Gradients for some rows of a tensor, with weight_decay 0. Null: the rule works on whole tensors.",
    lazy_equals_dense=_maybe("boolean"),
    note=_STRING,
)
_SLOT = _object(
    "What the rule remembers of each parameter; `when` names the setting that adds it, null: always.",
    name=_STRING,
    meaning=_STRING,
    starts_at=_NUMBER,
    when=_maybe("string"),
)

_ANSWERS: dict[str, Document] = {
    "Optimizer": _object(
        "A rule of the catalogue. `bytes_per_parameter`: weight and default slots of an F32 parameter.",
        **_TOLD,
        paper=_STRING,
        slots={"type": "array", "items": _SLOT},
        bytes_per_parameter=_INTEGER,
        sparse=_ROWS,
        presets={"type": "object", "description": "Every hyperparameter's value, by preset."},
    ),
    "Transform": _object(
        "What happens to a gradient before the rule. `position` 1 is applied first.",
        **_TOLD,
        source=_STRING,
        position=_INTEGER,
    ),
    "Problem": _object(
        "RFC 9457; further members belong to the type.",
        type=_STRING,
        title=_STRING,
        status=_INTEGER,
        detail=_STRING,
        hint=_STRING,
        request_id=_STRING,
    ),
    "Receipt": _object(
        "The fate of one push. `step` is the update it made, or the last one if it was accumulated; "
        "`staleness` = the step before it − base.",
        fate={"type": "string", "enum": FATES},
        step=_INTEGER,
        offset=_INTEGER,
        base=_maybe("integer"),
        staleness=_maybe("integer"),
        lr=_maybe("number"),
        clip_factor=_maybe("number"),
        grad_norm=_maybe("number"),
        durability=_maybe("string"),
        epoch=_STRING,
        worker=_maybe("string"),
        sequence=_maybe("integer"),
        round=_maybe("integer"),
        zeroed=_INTEGER,
        replayed={"type": "boolean"},
    ),
    "Model": _object(
        "A model with every default written out.",
        name=_STRING,
        epoch=_STRING,
        etag=_STRING,
        step=_INTEGER,
        offset=_INTEGER,
        saved_offset=_INTEGER,
        lr=_NUMBER,
        optimizer=_ANY_OBJECT,
        schedule=_ANY_OBJECT,
        transforms=_ANY_OBJECT,
        groups={"type": "array", "items": _ANY_OBJECT},
        sync=_ANY_OBJECT,
        guard=_ANY_OBJECT,
        parameters=_ANY_OBJECT,
        views=_NAMES,
        missing=_NAMES,
        parameter_bytes=_INTEGER,
        state_bytes=_INTEGER,
        rows_seen={"type": "object", "description": "Of each table: the rows that are held."},
    ),
    "Parameters": _object("One step's parameters.", step=_INTEGER, parameters=_NESTED),
    "Uploaded": _object("The version after an upload.", step=_INTEGER, etag=_STRING, missing=_NAMES),
}


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


def _list_of(noun: str, item: Document = _ANY_OBJECT, **others: Document) -> dict[int | str, Document]:
    rows = {"type": "array", "items": item}
    return _json(_object(f"The {noun}.", **{noun: rows}, **others), f"The {noun}")


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
        "schema": _STRING,
    }
}
PUSHED = _json(
    _object(
        "A receipt, and unless `Prefer: return=minimal` the parameters.",
        receipt=_ref("Receipt"),
        step=_INTEGER,
    ),
    "The update was made; with a safetensors answer the receipt is the header `Receipt`",
    more=_BINARY,
    headers=_TIMED,
)
WAITING = _json(_ref("Receipt"), "The push waits for others; Location tells its fate", 202, headers=_TIMED)
RECEIPT = _json(_ref("Receipt"), "The fate of the push")
TENSORS: dict[int | str, Document] = {200: {"description": "The whole state", "content": _BINARY}}
ENTRIES = _list_of("entries", next_after=_maybe("integer"), offset=_INTEGER, saved_offset=_INTEGER)
EVENTS: dict[int | str, Document] = {
    200: {"description": "The stream", "content": {"text/event-stream": {"schema": _STRING}}}
}
WORKERS = _list_of("workers", round=_ANY_OBJECT, guard=_ANY_OBJECT)
WORKER = _json(_ANY_OBJECT, "The worker, and the sequence its next push must carry")
QUARANTINED: dict[int | str, Document] = {204: {"description": "It is so from the next entry on"}}
LEFT: dict[int | str, Document] = {204: {"description": "Nobody waits for the worker any more"}}
OPTIMIZERS = _list_of("optimizers", _ref("Optimizer"))
OPTIMIZER = _json(_ref("Optimizer"), "The rule")
TRANSFORMS = _list_of("transforms", _ref("Transform"))
TRANSFORM = _json(_ref("Transform"), "The transform")
SCHEDULES = _list_of("schedules")
SCHEDULE = _json(_ANY_OBJECT, "The schedule")
PREVIEW = _json(
    _object(
        "Learning rates for plotting: `lr[i]` is that of the update after `s[i]` applied ones.",
        schedule=_ANY_OBJECT,
        s={"type": "array", "items": _INTEGER},
        lr={"type": "array", "items": _NUMBER},
    ),
    "The curve",
)
PLATEAUS = _list_of("plateaus")
METRIC = _list_of("plateaus", receipt=_ANY_OBJECT)
FACTS = _json(_ANY_OBJECT, "The service")
HEALTH = _json(_object("Health.", status=_STRING), "Healthy")
PROBLEM_TYPE = _json(
    _object("A problem type.", type=_STRING, title=_STRING, hint=_STRING), "The problem type"
)


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
            {"name": name, "in": "header", "required": False, "description": meaning, "schema": _STRING}
            for name, meaning in read.items()
        ]
    }


def pull() -> Document:
    """What a pull may say."""
    return {"parameters": [*headers("If-None-Match", prefer=WAIT)["parameters"], *view()["parameters"]]}


def view() -> Document:
    """Which reading of the parameters is asked for."""
    meaning = "`train` (the default), or another of the model's `views`."
    asked = {"name": "view", "in": "query", "required": False, "description": meaning, "schema": _STRING}
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
    rows = {"name": "rows", "in": "query", "required": False, "description": meaning, "schema": _STRING}
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
    """Makes `app.openapi()` answer the whole document, with FastAPI's own 422 replaced by ours."""

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
    components |= _ANSWERS
    for schema in _REQUESTS:
        described = schema.model_json_schema(ref_template="#/components/schemas/{model}")
        components |= described.pop("$defs", {})
        components[schema.__name__] = described
    problem = {"application/problem+json": {"schema": _ref("Problem")}}
    for operations in document["paths"].values():
        for operation in operations.values():
            if "422" in operation["responses"]:
                operation["responses"]["422"] = {"description": "Problem", "content": problem}
    return document


def _plain(field: Document) -> Document:
    """An optional field's schema as a query parameter has it: present or absent, never null."""
    options = [option for option in field.get("anyOf", []) if option.get("type") != "null"]
    kept = {key: value for key, value in field.items() if key not in ("anyOf", "default", "title")}
    return kept | (options[0] if options else {})
