"""6/6 respond: the update becomes an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gradledger_server.api.forms import JSON, Chosen, Form, form_but_json, form_of_answer
from gradledger_server.replica import Answer, Published, Receipt, TableRows
from gradledger_server.wire import json_form, safetensors

JSON_ANSWER_BYTES = 4 << 20  # of tensors; as text they are about five times as many
JOINED_BYTES = 64 << 10  # up to here copying a piece is cheaper than sending it alone

Fields = Sequence[tuple[bytes, bytes]]  # headers as they go over the wire, their names in lower case
_OF_ANY_STEP: Fields = ((b"vary", b"Accept"), (b"cache-control", b"no-cache"))


class Parts(Response):
    """A body in several pieces of memory, sent as they are: large ones are neither joined nor copied.

    The transport keeps the pieces alive until the last byte has left.
    """

    def __init__(self, parts: Sequence[Any], media_type: str, fields: Fields = ()) -> None:
        views = [memoryview(part) for part in parts]
        nbytes = sum([view.nbytes for view in views])
        self.parts = [memoryview(b"".join(views))] if nbytes <= JOINED_BYTES else _joined(views)
        self.status_code = 200
        self.background = None
        self.body = b""
        length = b"%d" % nbytes
        self.raw_headers = [(b"content-type", media_type.encode()), (b"content-length", length), *fields]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        for part in self.parts[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": self.parts[-1], "more_body": False})


def _joined(parts: Sequence[memoryview]) -> list[memoryview]:
    """The same bytes, small neighbours as one piece."""
    joined: list[memoryview] = []
    for small, run in groupby(parts, lambda part: part.nbytes <= JOINED_BYTES):
        pieces = list(run)
        joined += [memoryview(b"".join(pieces))] if small else pieces
    return joined


def json(members: Mapping[str, Any], status: int = 200, fields: Fields = ()) -> Response:
    """A JSON answer; arrays become nested lists with the shortest digits that give the same bits back."""
    response = Response(json_form.render(members), status, media_type=JSON)
    response.raw_headers += fields
    return response


def not_modified(published: Published, view: str) -> Response:
    """304: the client has this version of the view."""
    response = Response(None, 304)
    response.raw_headers += version(published, view)
    return response


def choose_form(request: Request, nbytes: int, default: Form) -> Chosen:
    """The form of an answer that carries `nbytes` of tensors, or NotAcceptable: ask before doing anything."""
    if nbytes <= JSON_ANSWER_BYTES:
        return form_of_answer(request, default)
    many = f"{nbytes} bytes are too many for JSON; the limit is {JSON_ANSWER_BYTES}"
    return form_but_json(request, many)


def parameters(published: Published, chosen: Chosen) -> Response:
    """One step's parameters in the form chosen."""
    (form, media_type), fields = chosen, [*version(published), *_left_out(published)]
    if form == "json":
        members = {"step": published.step, "parameters": published.arrays()}
        return json(members, fields=fields)
    return Parts([published.header, published.block], media_type, fields)


def rows(published: Published, read: TableRows, chosen: Chosen) -> Response:
    """Rows of one table at one step."""
    form, media_type = chosen
    if form == "json":
        return json({"step": published.step, "parameters": read.arrays()}, fields=version(published))
    shaped, parts = _laid_out((read,))
    return Parts([safetensors.header(shaped), *parts], media_type, version(published))


def tensor(published: Published, name: str, chosen: Chosen) -> Response:
    """One tensor of one step."""
    array = published.array(name)
    form, media_type = chosen
    if form == "json":
        return json({"step": published.step, "parameters": {name: array}}, fields=version(published))
    place = published.layout.by_name[name].tensor
    header = safetensors.header([(name, place.dtype, place.shape)])
    return Parts([header, array.reshape(-1).view("u1")], media_type, version(published))


def pushed(answer: Answer, chosen: Chosen | None) -> Response:
    """The receipt, and the new parameters in the form chosen, if any."""
    published = answer.published
    receipt = receipt_members(answer)
    fields = version(published)
    if answer.replayed:
        fields.append((b"idempotent-replayed", b"true"))
    if chosen is None:
        fields.append((b"preference-applied", b"return=minimal"))
        return json({"receipt": receipt, "step": published.step}, fields=fields)
    form, media_type = chosen
    if form == "json":
        arrays = published.arrays()
        for read in answer.rows:
            arrays |= read.arrays()
        return json({"receipt": receipt, "step": published.step, "parameters": arrays}, fields=fields)
    fields.append((b"receipt", orjson.dumps(receipt)))
    if not answer.rows:
        return Parts([published.header, published.block], media_type, fields)
    shaped, parts = _laid_out(answer.rows)
    header = safetensors.header([*published.layout.signature, *shaped])
    return Parts([header, published.block, *parts], media_type, fields)


def waiting(answer: Answer, model: str) -> Response:
    """202: the push is in the log and waits for others. `Location` tells its fate later."""
    fields = version(answer.published)
    if answer.receipt.worker is not None:
        name = f"{quote(answer.receipt.worker, safe='')}/{answer.receipt.sequence}"
        fields.append((b"location", f"/v1/models/{quote(model, safe='')}/receipts/{name}".encode()))
    members = {"receipt": receipt_members(answer), "step": answer.published.step}
    return json(members, status=202, fields=fields)


def receipt_members(answer: Answer) -> dict[str, Any]:
    """The receipt as clients see it: everything about the push's fate."""
    return receipt_of(answer.receipt, answer.published.epoch, replayed=answer.replayed)


def receipt_of(receipt: Receipt, epoch: str, *, replayed: bool) -> dict[str, Any]:
    """The same of a receipt alone."""
    return {
        "fate": receipt.fate,
        "step": receipt.step,
        "offset": receipt.offset,
        "base": receipt.base,
        "staleness": receipt.staleness,
        "lr": receipt.lr,
        "clip_factor": receipt.clip_factor,
        "grad_norm": receipt.grad_norm,
        "durability": receipt.durability,
        "epoch": epoch,
        "worker": receipt.worker,
        "sequence": receipt.sequence,
        "round": receipt.round,
        "zeroed": receipt.zeroed,
        "replayed": replayed,
    }


def _laid_out(rows: Sequence[TableRows]) -> tuple[list[safetensors.Shaped], list[Any]]:
    """Tables' rows as tensors of a safetensors body: names, dtypes and shapes, and their bytes.

    Which rows they are goes before their values: it is small and is sent together with the header.
    """
    shaped: list[safetensors.Shaped] = []
    parts = []
    for read in rows:
        for name, array in reversed(read.arrays().items()):
            shaped.append((name, read.table.dtype if name == read.table.name else "I64", array.shape))
            parts.append(array.reshape(-1).view("u1"))
    return shaped, parts


def _left_out(published: Published) -> Fields:
    """Which tables a pull of all parameters leaves out, percent-encoded: their rows are asked for."""
    tables = published.layout.tables
    return [(b"tables", ", ".join(quote(name, safe="") for name in tables).encode())] if tables else ()


def version(published: Published, view: str | None = None) -> list[tuple[bytes, bytes]]:
    """Which step's parameters these are, or which of a view of them, and how long a cache may believe it."""
    etag = published.etag_of(view or published.view)
    return [(b"etag", etag.encode()), *_OF_ANY_STEP]
