"""/v1/models: create, list, describe, reconfigure, delete."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gradledger_server.api import documents, responses
from gradledger_server.api.body import receive
from gradledger_server.api.context import Context, ModelName, Served
from gradledger_server.api.forms import form_of_body
from gradledger_server.api.problems import responses as problems
from gradledger_server.api.query import NO_QUERY
from gradledger_server.api.schemas import Declaration, ModelChange, ModelRequest, read
from gradledger_server.dtypes import ITEM_BYTES
from gradledger_server.entries import Tensors
from gradledger_server.errors import InvalidSpec, UnsupportedMediaType
from gradledger_server.replica import Hot, Mailbox
from gradledger_server.wire import json_form

router = APIRouter(tags=["models"], dependencies=[NO_QUERY])

Shapes = Mapping[str, tuple[tuple[int, ...], str]]
Tables = Mapping[str, Mapping[str, Any]]

_JSON_ONLY = "Send Content-Type: application/json."


@router.get("/v1/models", responses=documents.MODELS | problems(422, 503))
async def list_models(served: Served) -> Response:
    """Every model's name and epoch, by name."""
    names = await served.replica.names()
    return responses.json(
        {"models": [{"name": name, "epoch": epoch} for name, epoch in sorted(names.items())]}
    )


@router.put(
    "/v1/models/{model}",
    status_code=201,
    openapi_extra=documents.body_of("ModelRequest"),
    responses=documents.MODEL | documents.CREATED | problems(400, 409, 411, 413, 415, 422, 503, 507),
)
async def create_model(request: Request, model: ModelName, served: Served) -> Response:
    """Creates the model. Repeating the same creation answers 200; another spec under this name is refused."""
    wanted, shapes, values, tables = await served.understand(await _spec(request, served), _wanted)
    initialised = {name for name, table in tables.items() if table["init"] is not None}
    brought = {name: shape for name, shape in shapes.items() if name not in initialised}
    _require_room(brought, served.limits.max_body_bytes)
    given = wanted.model_dump(exclude={"parameters"}, exclude_unset=True)
    mailbox, made = await served.replica.create(model, given, shapes, values, tables)
    return responses.json(await _description(mailbox), status=201 if made else 200)


@router.get("/v1/models/{model}", responses=documents.MODEL | problems(404, 503))
async def describe_model(model: ModelName, served: Served) -> Response:
    """The model's expanded spec, its step, and what is held for it."""
    return responses.json(await served.replica.on(model, _description))


@router.patch(
    "/v1/models/{model}",
    openapi_extra=documents.body_of("ModelChange") | documents.headers("If-Match"),
    responses=documents.MODEL | problems(400, 404, 409, 411, 412, 413, 415, 422, 503, 507),
)
async def configure_model(request: Request, model: ModelName, served: Served) -> Response:
    """Changes hyperparameters, schedule or groups from the next push on; `optimizer` fields overlay."""
    members = await served.understand(await _spec(request, served), json_form.parse)
    change = read(ModelChange, members).model_dump(exclude_unset=True)
    if_match = request.headers.get("if-match")

    async def work(mailbox: Mailbox) -> dict[str, Any]:
        await served.replica.configure(mailbox, change, if_match)
        return await _description(mailbox)

    return responses.json(await served.replica.on(model, work))


@router.delete(
    "/v1/models/{model}",
    status_code=204,
    openapi_extra=documents.headers("If-Match"),
    responses=problems(404, 412, 503, 507),
)
async def delete_model(request: Request, model: ModelName, served: Served) -> Response:
    """Deletes the model, its log and its snapshots."""
    await served.replica.delete(model, request.headers.get("if-match"))
    return Response(status_code=204)


async def _spec(request: Request, served: Context) -> memoryview:
    """The body of a request whose body is JSON only."""
    if form_of_body(request) != "json":
        raise UnsupportedMediaType(
            "a spec is JSON; its tensors' values may follow as safetensors", hint=_JSON_ONLY
        )
    return await receive(request, served.limits.max_json_bytes, served.replica.blocks)


def _wanted(body: memoryview) -> tuple[ModelRequest, Shapes, Tensors | None, Tables]:
    wanted = read(ModelRequest, json_form.parse(body))
    return wanted, *_declared(wanted.parameters)


def _declared(parameters: Mapping[str, Any]) -> tuple[Shapes, Tensors | None, Tables]:
    """What the spec's parameters declare: shapes and dtypes, the values it brought along, and its tables."""
    declared = {name: _declaration(name, given) for name, given in parameters.items()}
    values = {name: its.values for name, its in declared.items() if its.values is not None}
    dtypes = {name: its.dtype for name, its in declared.items()}
    tensors = json_form.tensors(values, dtypes) if values else None
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        name: (tuple(its.shape or ()), its.dtype) for name, its in declared.items()
    }
    for name, place in tensors.table.items() if tensors else ():
        if declared[name].shape not in (None, list(place.shape)):
            raise InvalidSpec(
                f"parameters.{name[:80]}: shape is {declared[name].shape}, but its values have "
                f"{list(place.shape)}",
                field=f"parameters.{name[:80]}.shape",
                hint="Leave the shape out: the values have one.",
            )
        shapes[name] = (place.shape, place.dtype)
    tables = {
        name: {"rows": its.rows, "init": its.init}
        for name, its in declared.items()
        if its.rows is not None or its.init is not None
    }
    return shapes, tensors, tables


def _declaration(name: str, given: Any) -> Declaration:
    where = f"parameters.{name[:80]}"
    declared = read(Declaration, given if isinstance(given, dict) else {"values": given}, where=where)
    if declared.values is None and declared.shape is None:
        raise InvalidSpec(
            f"{where} has neither values nor a shape",
            field=where,
            hint='Give nested lists, or {"shape": [10], "dtype": "F32"}.',
        )
    if declared.values is not None and declared.init is not None:
        raise InvalidSpec(
            f"{where} has both values and an init",
            field=f"{where}.init",
            hint="Give the values it begins with, or say how to make them.",
        )
    return declared


def _require_room(shapes: Shapes, limit_bytes: int) -> None:
    """Refuses a model whose parameters no request could ever bring: a shape is short, its memory is not."""
    nbytes = sum(prod(shape) * ITEM_BYTES[dtype] for shape, dtype in shapes.values())
    if nbytes > limit_bytes:
        raise InvalidSpec(
            f"the parameters take {nbytes} bytes; this service takes at most {limit_bytes}",
            field="parameters",
            hint="Split the model, or start the service with a larger max_body_bytes.",
        )


async def _description(mailbox: Mailbox) -> dict[str, Any]:
    return await mailbox.seen(_described)


def _described(hot: Hot) -> dict[str, Any]:
    published = hot.published
    layout = published.layout
    return {
        "name": hot.name,
        "epoch": hot.epoch,
        "etag": published.etag,
        "step": published.step,
        "offset": hot.playback.applied,
        "saved_offset": hot.playback.saved,
        "lr": hot.model.lr,
        **hot.model.spec.json,
        "views": list(hot.views),
        "missing": sorted(published.missing),
        "parameter_bytes": layout.nbytes + sum(table.nbytes for table in layout.tables.values()),
        "state_bytes": hot.model.nbytes,
        "rows_seen": {name: table.seen for name, table in hot.model.tables.items()},
    }
