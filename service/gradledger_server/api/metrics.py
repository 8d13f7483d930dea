"""/v1/models/{model}/metrics: what clients measure, for the plateau schedules that follow it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gradledger_server.api import documents, responses
from gradledger_server.api.body import receive
from gradledger_server.api.context import Context, ModelName, Served
from gradledger_server.api.forms import form_of_body
from gradledger_server.api.gradients import name_of
from gradledger_server.api.problems import responses as problems
from gradledger_server.api.query import NO_QUERY
from gradledger_server.api.schemas import MetricRequest, read
from gradledger_server.errors import Invalid, UnsupportedMediaType
from gradledger_server.replica import Mailbox, Reported, Sender, plateaus
from gradledger_server.wire import json_form

router = APIRouter(tags=["metrics"], dependencies=[NO_QUERY])


@router.post(
    "/v1/models/{model}/metrics",
    openapi_extra=documents.body_of("MetricRequest") | documents.headers("Idempotency-Key"),
    responses=documents.METRIC | problems(400, 404, 409, 411, 413, 415, 422, 503, 507),
)
async def post_metric(request: Request, model: ModelName, served: Served) -> Response:
    """A metric in, the learning rate it leads to out.

    Name it with `worker` and `sequence` (apart from the worker's pushes) or an Idempotency-Key and it counts
    exactly once, however often it is sent.
    """
    wanted = await _read(request, served)
    key = name_of(request, wanted.worker, wanted.sequence)
    sender = Sender(wanted.worker, wanted.sequence, key)

    async def work(mailbox: Mailbox) -> dict[str, Any]:
        reported: Reported = await served.replica.report(mailbox, wanted.value, sender)
        receipt = {
            **reported.receipt._asdict(),
            "epoch": mailbox.hot.epoch,
            "replayed": reported.replayed,
        }
        return {"receipt": receipt, "plateaus": reported.plateaus}

    return responses.json(await served.replica.on(model, work))


@router.get("/v1/models/{model}/metrics", responses=documents.PLATEAUS | problems(404, 503))
async def show_plateaus(model: ModelName, served: Served) -> Response:
    """What each plateau schedule of the model has seen: best metric, bad ones in a row, reductions made."""

    async def work(mailbox: Mailbox) -> dict[str, Any]:
        return {"plateaus": await mailbox.run(plateaus)}

    return responses.json(await served.replica.on(model, work))


async def _read(request: Request, served: Context) -> MetricRequest:
    if form_of_body(request) != "json":
        raise UnsupportedMediaType("a metric is JSON", hint="Send Content-Type: application/json.")
    body = await receive(request, served.limits.max_json_bytes, served.replica.blocks)
    members = await served.understand(body, json_form.parse)
    return read(MetricRequest, members, error=Invalid)
