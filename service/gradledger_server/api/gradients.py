"""1/6 HTTP: a request becomes a Push, and its answer the new parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastapi import APIRouter, Request
from starlette.responses import Response

from gradledger_server.api import documents, query, responses
from gradledger_server.api.body import receive
from gradledger_server.api.context import Context, ModelName, Served
from gradledger_server.api.forms import Chosen, Form, form_of_body, preferences, wait_s
from gradledger_server.api.parameters import body_limit
from gradledger_server.api.problems import responses as problems
from gradledger_server.api.schemas import PushFacts, PushRequest, read
from gradledger_server.api.whole import Whole
from gradledger_server.dtypes import ITEM_BYTES
from gradledger_server.entries import Placement, Tensors
from gradledger_server.errors import Invalid, MalformedRequest
from gradledger_server.replica import Answer, Laps, Mailbox, Sender
from gradledger_server.wire import json_form

router = APIRouter(tags=["gradients"])

KEY = re.compile(r"[!-~]{1,255}")
USUAL = re.compile(
    r"worker=([A-Za-z0-9][A-Za-z0-9._:-]{0,127})&sequence=([1-9][0-9]{0,14})(?:&base=(0|[1-9][0-9]{0,14}))?"
)
WHOLE = re.compile(r"-?[0-9]{1,20}")
NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,3})?")


@router.post(
    "/v1/models/{model}/gradients",
    openapi_extra=documents.push_body(),
    responses=documents.PUSHED
    | documents.WAITING
    | problems(400, 404, 406, 409, 411, 412, 413, 415, 422, 503, 507),
)
async def push(request: Request, model: ModelName, served: Served) -> Response:
    """A gradient in, the new parameters and a receipt out.

    Name the push with `worker` and `sequence` (or an Idempotency-Key) and it counts exactly once, however
    often it is sent. The gradient of a table has k rows, [k, …], and beside it `<table>#rows`, I64 [k], says
    which; so has the answer, with the rows that were touched. Safetensors may bring I8 beside
    `<tensor>#scale`, F32, a scale for each 256 elements. `If-Match` makes the push conditional;
    `Prefer: return=minimal` answers the receipt alone. In a mode where pushes wait for each other the answer
    is 202, unless `Prefer: wait=20` waits and the push counts meanwhile. `Server-Timing` tells where
    the time went.
    """
    laps = Laps()
    form = form_of_body(request)
    mailbox = await served.replica.shelf.open(model)
    laps.end("queue")
    chosen = _form_of_answer(request, form, mailbox)
    tensors, sender = await _read(request, form, mailbox, served, laps)
    if chosen is not None and mailbox.hot.model.layout.tables:
        chosen = _form_of_answer(request, form, mailbox, tensors)  # now that its rows are known
    if_match = request.headers.get("if-match")
    seconds = wait_s(request)
    answer: Answer = await served.replica.on(
        model, lambda mailbox: served.replica.push(mailbox, tensors, sender, if_match, seconds, laps)
    )
    waits = answer.receipt.fate == "waiting"
    response = responses.waiting(answer, model) if waits else responses.pushed(answer, chosen)
    finish(response, served, answer, tensors, laps)
    return response


def finish(response: Response, served: Context, answer: Answer, tensors: Tensors, laps: Laps) -> None:
    """The last of a push: it is counted, and the answer says where its time went."""
    fate, staleness = answer.receipt.fate, answer.receipt.staleness
    if answer.replayed:
        fate, staleness = "replayed", None
    served.metrics.count(fate, len(tensors.payload), staleness)
    laps.end("respond")
    response.raw_headers.append((b"server-timing", laps.header.encode()))


async def _read(
    request: Request, form: Form, mailbox: Mailbox, served: Context, laps: Laps
) -> tuple[Tensors, Sender]:
    if form == "safetensors":
        sender = _in_query(request)
        body = await receive(request, body_limit(mailbox, served), served.replica.blocks)
        laps.end("receive")
        return await served.decode(body), sender
    body = await receive(request, served.limits.max_json_bytes, served.replica.blocks)
    laps.end("receive")
    dtypes, asked = mailbox.hot.model.layout.wire_dtypes, _query(request)
    tensors, facts = await served.understand(body, lambda body: _from_json(body, asked, dtypes))
    return tensors, _sender(request, facts)


def _from_json(
    body: memoryview, asked: Mapping[str, object], dtypes: Mapping[str, str]
) -> tuple[Tensors, PushFacts]:
    members = json_form.parse(body)
    if twice := asked.keys() & members.keys():
        raise MalformedRequest(f"{sorted(twice)} stand in the query and in the body", hint="Say it once.")
    wanted = read(PushRequest, {**members, **asked}, error=Invalid)
    return json_form.tensors(wanted.gradients, dtypes), wanted


def _form_of_answer(
    request: Request, form: Form, mailbox: Mailbox, tensors: Tensors | None = None
) -> Chosen | None:
    """The form of the parameters that go with the receipt; None if the client wants the receipt alone.

    The answer holds every tensor of the model, and of its tables the rows in `tensors`.
    """
    if preferences(request).get("return") == "minimal":
        return None
    layout = mailbox.hot.model.layout
    sent = {} if tensors is None else tensors.table
    touched = (
        _answered_bytes(sent[name], table.dtype) for name, table in layout.tables.items() if name in sent
    )
    return responses.choose_form(request, layout.nbytes + sum(touched), default=form)


def _answered_bytes(rows: Placement, dtype: str) -> int:
    """What the rows of a push take in the table's dtype, which may be wider than the one they came in."""
    return (rows.stop - rows.start) // ITEM_BYTES[rows.dtype] * ITEM_BYTES[dtype]


def _sender(request: Request, facts: PushFacts) -> Sender:
    key = name_of(request, facts.worker, facts.sequence)
    return Sender(facts.worker, facts.sequence, key, facts.base, facts.weight)


def name_of(request: Request, worker: str | None, sequence: int | None) -> str | None:
    """The key of a push or metric that no worker names. Raises Invalid for half a name, MalformedRequest."""
    if (worker is None) != (sequence is None):
        raise Invalid(
            "worker and sequence are a name together; one of them is missing",
            hint="Send both, or neither and perhaps an Idempotency-Key.",
        )
    key = request.headers.get("idempotency-key")
    if key is not None:
        key = key.strip().removeprefix('"').removesuffix('"')
        if not KEY.fullmatch(key):
            raise MalformedRequest("Idempotency-Key must be 1 to 255 visible ASCII characters")
    return None if worker is not None else key


def _in_query(request: Request) -> Sender:
    """What the query says of a push, read in one go where it says the usual in the usual order."""
    usual = USUAL.fullmatch(request.head.query) if isinstance(request, Whole) else None
    if usual is None or "idempotency-key" in request.headers:
        return _sender(request, read(PushFacts, _query(request), error=Invalid))
    return named(usual)


def named(usual: re.Match[str]) -> Sender:
    """What a usual query says."""
    return Sender(usual[1], int(usual[2]), None, None if usual[3] is None else int(usual[3]))


def _query(request: Request) -> dict[str, object]:
    """The push's facts in the query, typed as JSON would have them."""
    facts = query.read(request, *PushFacts.model_fields)
    return {name: text if name == "worker" else _number(text) for name, text in facts.items()}


def _number(text: str) -> object:
    """A number as JSON writes them; anything else stays text, to be refused with its field's name."""
    if WHOLE.fullmatch(text):
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else text
