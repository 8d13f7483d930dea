"""/v1/models/{model}/parameters/{table}/rows: rows of a table, many at once; and how any of them are read."""

from __future__ import annotations

import re

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from starlette.responses import Response

from gradledger_server.api import documents, query, responses
from gradledger_server.api.body import HEADER_ALLOWANCE_BYTES, receive
from gradledger_server.api.context import Context, ModelName, Served
from gradledger_server.api.forms import Chosen, Form, form_of_body
from gradledger_server.api.problems import responses as problems
from gradledger_server.api.schemas import RowsRequest, read
from gradledger_server.entries import Tensors
from gradledger_server.errors import Invalid, MalformedRequest, TensorNotFound, WrongRows
from gradledger_server.replica import TRAIN, Mailbox, Published, TableRows
from gradledger_server.wire import json_form

router = APIRouter(tags=["parameters"])

Rows = NDArray[np.int64]

IDS, VIEW = "rows", "view"
MAX_IDS = 1 << 20
_LISTED = re.compile(r"[0-9]{1,18}(,[0-9]{1,18})*")


@router.post(
    "/v1/models/{model}/parameters/{tensor:path}/rows",
    openapi_extra=documents.tensors_body("RowsRequest") | documents.view(),
    responses=documents.ROWS | problems(400, 404, 406, 409, 411, 413, 415, 422, 503, 507),
)
async def pull_rows(request: Request, model: ModelName, tensor: str, served: Served) -> Response:
    """Rows of a table at one step, in the order asked for: JSON `{"rows": [1, 5]}` or safetensors `rows` I64.

    The answer holds the table's name with the values [k, …], and beside it `<table>#rows` with the numbers.
    """
    query.read(request, VIEW)
    form = form_of_body(request)
    body = await receive(request, HEADER_ALLOWANCE_BYTES + 32 * MAX_IDS, served.replica.blocks)
    ids = _ids(await (served.understand(body, _from_json) if form == "json" else served.decode(body)))
    return await answer(request, model, tensor, ids, served, default=form)


async def answer(
    request: Request, model: str, name: str, ids: Rows | None, served: Context, *, default: Form
) -> Response:
    """The table's rows in the view asked for, all of them if `ids` is None.

    Raises TensorNotFound, ViewNotFound, WrongRows, ParametersMissing, and Invalid if they are more than one
    answer holds.
    """

    async def work(mailbox: Mailbox) -> tuple[Published, TableRows, Chosen]:
        layout = mailbox.hot.model.layout
        table = layout.tables.get(name)
        if table is None:
            if name in layout.by_name:
                raise Invalid(f"{name!r} is no table: it has no rows to choose from", tensor=name)
            raise TensorNotFound(f"model {model!r} has no tensor {name[:200]!r}", tensor=name[:200])
        nbytes = table.row_bytes * (table.rows if ids is None else ids.size)
        _require_room(name, nbytes, served.limits.max_body_bytes)
        chosen = responses.choose_form(request, nbytes, default=default)
        published, read = await served.replica.rows(mailbox, name, ids, view_of(request))
        return published, read, chosen

    published, read, chosen = await served.replica.on(model, work)
    published.require_values()
    return responses.rows(published, read, chosen)


def view_of(request: Request) -> str:
    """The view in the query: those that train if there is none."""
    return request.query_params.get(VIEW, TRAIN)


def asked(request: Request) -> Rows | None:
    """The rows in the query, `?rows=1,5,7`; None without. Raises MalformedRequest."""
    listed = request.query_params.get(IDS)
    if listed is None:
        return None
    if not _LISTED.fullmatch(listed):
        raise MalformedRequest(
            f"rows is {listed[:80]!r}; expected whole numbers with commas between them",
            hint="Many rows are asked for with POST …/rows.",
        )
    return np.array([int(row) for row in listed.split(",")], np.int64)


def _from_json(body: memoryview) -> Tensors:
    return json_form.tensors(
        {IDS: read(RowsRequest, json_form.parse(body), error=Invalid).rows}, {IDS: "I64"}
    )


def _ids(tensors: Tensors) -> Rows:
    place = tensors.table.get(IDS)
    if place is None or len(tensors.table) > 1 or place.dtype != "I64" or len(place.shape) != 1:
        raise WrongRows(
            f"the body holds {', '.join(map(repr, list(tensors.table)[:5])) or 'nothing'}; "
            f"expected one tensor {IDS!r}, I64 of one dimension"
        )
    if place.shape[0] > MAX_IDS:
        raise WrongRows(f"{place.shape[0]} rows are asked for; at most {MAX_IDS} come in one answer")
    return np.frombuffer(tensors[IDS], "<i8")


def _require_room(name: str, nbytes: int, limit_bytes: int) -> None:
    if nbytes > limit_bytes:
        raise Invalid(
            f"what is asked for of {name!r} takes {nbytes} bytes; one answer carries at most {limit_bytes}",
            hint="Ask for some rows: GET …?rows=1,5 or POST …/rows.",
            tensor=name,
        )
