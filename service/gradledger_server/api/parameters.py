"""/v1/models/{model}/parameters: pull, wait for news, upload."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request
from starlette.responses import Response

from gradledger_server.api import documents, query, responses, rows
from gradledger_server.api.body import HEADER_ALLOWANCE_BYTES, receive
from gradledger_server.api.context import Context, ModelName, Served
from gradledger_server.api.forms import Chosen, form_of_answer, form_of_body, matches, wait_s
from gradledger_server.api.problems import responses as problems
from gradledger_server.api.schemas import UploadRequest, read
from gradledger_server.api.whole import Whole, once
from gradledger_server.entries import Tensors
from gradledger_server.errors import GradledgerError, TensorNotFound
from gradledger_server.replica import TRAIN, Mailbox, Published
from gradledger_server.wire import json_form

router = APIRouter(tags=["parameters"])

WIDEST_ITEM_BYTES = 8


@router.get(
    "/v1/models/{model}/parameters",
    openapi_extra=documents.pull(),
    responses=documents.PARAMETERS | problems(400, 404, 406, 409, 503),
)
async def pull(request: Request, model: ModelName, served: Served) -> Response:
    """One step's parameters, no older than any acknowledged push.

    Tables are not among them: the header `Tables` names those left out, whose rows are asked for by name.
    `If-None-Match` with the present ETag answers 304; with `Prefer: wait=20` the answer comes as soon as
    there is another step. `view` asks for an average of the weights in place of those that train.
    """
    query.read(request, rows.VIEW)
    published, tag = await _news(request, model, served)
    chosen = responses.choose_form(request, published.layout.nbytes, default="json")
    if matches(published.etag_of(tag), request.headers.get("if-none-match")):
        return responses.not_modified(published, tag)
    return responses.parameters(await _seen(published, request, model, served), chosen)


def pull_at_once(request: Whole, served: Context, told: Callable[[Response], None]) -> bool:
    """The same of a model whose latest parameters are known here, without waiting for anything.

    False, and nothing done, if the request says more than the ordinary: then `pull` answers.
    """
    chosen, mailbox = _usual_answer(request), served.replica.shelf.at_hand(request.head.model)
    published = None if mailbox is None else mailbox.latest
    if chosen is None or request.head.query or published is None or published.missing:
        return False
    if published.layout.nbytes > responses.JSON_ANSWER_BYTES:
        return False
    if matches(published.etag, request.headers.get("if-none-match")):
        told(responses.not_modified(published, TRAIN))
    else:
        told(responses.parameters(published, chosen))
    return True


@once
def _usual_answer(request: Request) -> Chosen | None:
    """The form of the answer to a pull that does not wait; None for one that does, or asks for another."""
    try:
        return None if "prefer" in request.headers else form_of_answer(request, "json")
    except GradledgerError:
        return None


@router.get(
    "/v1/models/{model}/parameters/{tensor:path}",
    openapi_extra=documents.pull_tensor(),
    responses=documents.PARAMETERS | problems(400, 404, 406, 409, 422, 503),
)
async def pull_tensor(request: Request, model: ModelName, tensor: str, served: Served) -> Response:
    """One tensor of one step; of a table all rows, or some: `?rows=1,5,7`."""
    query.read(request, rows.VIEW, rows.IDS)
    published, tag = await _news(request, model, served)
    ids = rows.asked(request)
    if ids is not None or tensor in published.layout.tables:
        if matches(published.etag_of(tag), request.headers.get("if-none-match")):
            return responses.not_modified(published, tag)
        return await rows.answer(request, model, tensor, ids, served, default="json")
    if tensor not in published.layout.by_name:
        raise TensorNotFound(f"model {model!r} has no tensor {tensor[:200]!r}", tensor=tensor[:200])
    chosen = responses.choose_form(request, published.array(tensor).nbytes, default="json")
    if matches(published.etag_of(tag), request.headers.get("if-none-match")):
        return responses.not_modified(published, tag)
    return responses.tensor(await _seen(published, request, model, served), tensor, chosen)


@router.put(
    "/v1/models/{model}/parameters",
    openapi_extra=documents.tensors_body("UploadRequest") | documents.headers("If-Match", "If-None-Match"),
    responses=documents.UPLOADED | problems(400, 404, 409, 411, 412, 413, 415, 422, 503, 507),
)
async def upload(request: Request, model: ModelName, served: Served) -> Response:
    """Sets the values of the tensors sent: the first ones, or others, which counts as a step of its own.

    With `If-None-Match: *` values are set only where there are none: of several workers that begin one model
    together, one does.
    """
    query.read(request)
    mailbox = await served.replica.shelf.open(model)
    tensors = await read_tensors(request, mailbox, served)
    if_match = request.headers.get("if-match")
    first = request.headers.get("if-none-match") == "*"

    async def work(mailbox: Mailbox) -> Published:
        await served.replica.upload(mailbox, tensors, if_match, first=first)
        return await mailbox.look()

    published = await served.replica.on(model, work)
    members = {"step": published.step, "etag": published.etag, "missing": sorted(published.missing)}
    return responses.json(members, fields=[(b"etag", published.etag.encode())])


async def read_tensors(request: Request, mailbox: Mailbox, served: Context) -> Tensors:
    """The body's parameter values."""
    dtypes = mailbox.hot.model.layout.wire_dtypes

    def from_json(body: memoryview) -> Tensors:
        return json_form.tensors(read(UploadRequest, json_form.parse(body)).parameters, dtypes)

    is_json = form_of_body(request) == "json"
    limit_bytes = served.limits.max_json_bytes if is_json else body_limit(mailbox, served)
    body = await receive(request, limit_bytes, served.replica.blocks)
    return await (served.understand(body, from_json) if is_json else served.decode(body))


def body_limit(mailbox: Mailbox, served: Context) -> int:
    """The most bytes a body for this model can need."""
    needed = mailbox.hot.model.layout.most_sent * WIDEST_ITEM_BYTES + HEADER_ALLOWANCE_BYTES
    return min(needed, served.limits.max_body_bytes)


async def _news(request: Request, model: str, served: Context) -> tuple[Published, str]:
    """The parameters that train, once the view asked for is another than the client has, and its tag."""
    patience_s, known = wait_s(request), request.headers.get("if-none-match")

    async def work(mailbox: Mailbox) -> tuple[Published, str]:
        published, tag = await mailbox.look(), mailbox.hot.tag(rows.view_of(request))
        # Second by second: neither a client that hung up nor the end of the service waits for news.
        for _ in range(patience_s):
            if not matches(published.etag_of(tag), known):
                break
            if served.leaving.is_set() or await request.is_disconnected():
                break
            published = await mailbox.look_after(published.etag, 1.0)
            tag = mailbox.hot.tag(rows.view_of(request))
        return published, tag

    published, tag = await served.replica.on(model, work)
    published.require_values()
    return published, tag


async def _seen(published: Published, request: Request, model: str, served: Context) -> Published:
    """The view asked for, of this step or a later one: only the weights that train are kept ready."""
    if (view := rows.view_of(request)) == TRAIN:
        return published
    seen: Published = await served.replica.on(model, lambda mailbox: mailbox.run(lambda hot: hot.view(view)))
    return seen
