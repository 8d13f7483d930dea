"""/v1/models/{model}/workers: who takes part, by lease; /quarantine: who must not; /receipts: their fates."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from gradledger_server.api import documents, responses
from gradledger_server.api.body import receive
from gradledger_server.api.context import Context, ModelName, Served
from gradledger_server.api.forms import form_of_body, wait_s
from gradledger_server.api.problems import responses as problems
from gradledger_server.api.query import NO_QUERY
from gradledger_server.api.schemas import WorkerRequest, read
from gradledger_server.errors import Invalid, UnsupportedMediaType
from gradledger_server.replica import Mailbox, roster
from gradledger_server.wire import json_form

router = APIRouter(tags=["workers"], dependencies=[NO_QUERY])


@router.get("/v1/models/{model}/workers", responses=documents.WORKERS | problems(404, 503))
async def list_workers(model: ModelName, served: Served) -> Response:
    """Every worker that is a member or has pushed, and how the open round stands."""

    async def work(mailbox: Mailbox) -> dict[str, Any]:
        return await mailbox.seen(lambda hot: roster.told(hot.model))

    return responses.json(await served.replica.on(model, work))


@router.post(
    "/v1/models/{model}/workers",
    openapi_extra=documents.body_of("WorkerRequest"),
    responses=documents.WORKER | problems(400, 404, 409, 411, 413, 415, 422, 503, 507),
)
async def join(request: Request, model: ModelName, served: Served) -> Response:
    """Joins, from the round's edge on; again, and the lease is renewed. A push renews it as well."""
    if form_of_body(request) != "json":
        raise UnsupportedMediaType("a worker is JSON", hint="Send Content-Type: application/json.")
    body = await receive(request, served.limits.max_json_bytes, served.replica.blocks)
    wanted = read(WorkerRequest, await served.understand(body, json_form.parse), error=Invalid)
    return await _joined(model, wanted.worker, served)


@router.put(
    "/v1/models/{model}/workers/{worker}", responses=documents.WORKER | problems(404, 409, 422, 503, 507)
)
async def renew(model: ModelName, worker: str, served: Served) -> Response:
    """A sign of life: the worker's lease is renewed, or begins."""
    return await _joined(model, _name(worker), served)


@router.delete(
    "/v1/models/{model}/workers/{worker}",
    status_code=204,
    responses=documents.LEFT | problems(404, 422, 503, 507),
)
async def leave(model: ModelName, worker: str, served: Served) -> Response:
    """Leaves; what the worker has pushed counts. Repeating it is harmless."""
    name = _name(worker)
    await served.replica.on(model, lambda mailbox: roster.leave(mailbox, name))
    return Response(status_code=204)


@router.put(
    "/v1/models/{model}/quarantine/{worker}",
    status_code=204,
    responses=documents.QUARANTINED | problems(404, 422, 503, 507),
)
async def put_into_quarantine(model: ModelName, worker: str, served: Served) -> Response:
    """From now on none of the worker's gradients count and nobody waits for it. What it pushed stays."""
    return await _set_quarantine(model, worker, served, begins=True)


@router.delete(
    "/v1/models/{model}/quarantine/{worker}",
    status_code=204,
    responses=documents.QUARANTINED | problems(404, 422, 503, 507),
)
async def let_out_of_quarantine(model: ModelName, worker: str, served: Served) -> Response:
    """The worker may push and join again, and begins without strikes."""
    return await _set_quarantine(model, worker, served, begins=False)


@router.get(
    "/v1/models/{model}/receipts/{worker}/{sequence}",
    openapi_extra=documents.headers(prefer=documents.WAIT),
    responses=documents.RECEIPT | problems(400, 404, 422, 503),
)
async def receipt(
    request: Request,
    model: ModelName,
    worker: str,
    sequence: Annotated[int, Path(ge=1, lt=2**53)],
    served: Served,
) -> Response:
    """The fate of a push, if it is among the worker's latest 64; with `Prefer: wait` once it has one."""
    seconds, name = wait_s(request), _name(worker)

    async def work(mailbox: Mailbox) -> dict[str, Any]:
        await mailbox.look()
        found = await mailbox.fate(name, sequence, seconds)
        return responses.receipt_of(found, mailbox.hot.epoch, replayed=True)

    return responses.json(await served.replica.on(model, work))


def _name(worker: str) -> str:
    """A worker's name in a path, checked. Raises Invalid."""
    return read(WorkerRequest, {"worker": worker}, error=Invalid).worker


async def _set_quarantine(model: str, worker: str, served: Context, *, begins: bool) -> Response:
    name = _name(worker)
    await served.replica.on(model, lambda mailbox: roster.quarantine(mailbox, name, begins=begins))
    return Response(status_code=204)


async def _joined(model: str, worker: str, served: Context) -> Response:
    async def work(mailbox: Mailbox) -> dict[str, Any]:
        await roster.join(mailbox, worker)
        return await mailbox.seen(lambda hot: roster.of(hot.model, worker))

    return responses.json(await served.replica.on(model, work))
