"""A request's body, received straight into one block of exactly its declared size."""

from __future__ import annotations

from fastapi import Request
from starlette.requests import ClientDisconnect

from gradledger_server.api.forms import Form, form_of_body
from gradledger_server.api.whole import LANDING, Whole
from gradledger_server.blocks import Blocks
from gradledger_server.errors import BodyTooLarge, LengthRequired, MalformedRequest

LANDED_BYTES = 64 << 10  # larger bodies are read straight into their block
HEADER_ALLOWANCE_BYTES = 4 << 20  # what a safetensors header may add to its tensors

_SMALLER: dict[Form, str] = {
    "json": "JSON is for small ones: send tensors as safetensors, which takes a fifth of the bytes.",
    "safetensors": "Send each of the model's tensors once and nothing else; a service started with a larger "
    "GRADLEDGER_MAX_BODY_BYTES reads more.",
}


async def receive(request: Request, limit_bytes: int, blocks: Blocks) -> memoryview:
    """The whole body. Its size is checked before the first byte is read.

    Raises LengthRequired, BodyTooLarge; MalformedRequest, which nobody will read, if the client hangs up.
    """
    length = declared_length(request, limit_bytes)
    if isinstance(request, Whole):
        return request.whole
    landing = request.scope.get("extensions", {}).get(LANDING)
    if landing is not None and length > LANDED_BYTES:
        body = blocks.take(length).data
        try:
            await landing(body)
        except ClientDisconnect:
            raise MalformedRequest("the client hung up in the middle of the body") from None
        return body
    chunk, more = await _chunk(request)
    if not more and len(chunk) == length:
        return memoryview(chunk)  # a small body comes in one piece
    body = blocks.take(length).data
    filled = 0
    while True:
        end = filled + len(chunk)
        body[filled:end] = chunk
        filled = end
        if not more:
            break
        chunk, more = await _chunk(request)
    if filled != length:
        raise MalformedRequest(f"the body has {filled} bytes; Content-Length declared {length}")
    return body


async def _chunk(request: Request) -> tuple[bytes, bool]:
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise MalformedRequest("the client hung up in the middle of the body")
    return message.get("body", b""), message.get("more_body", False)


def declared_length(request: Request, limit_bytes: int) -> int:
    """Content-Length, if it is within the limit."""
    declared = request.headers.get("content-length")
    if declared is None or "transfer-encoding" in request.headers:
        raise LengthRequired("the request declares no Content-Length")
    if not (declared.isascii() and declared.isdigit() and len(declared) < 19):
        raise MalformedRequest(f"Content-Length is {declared[:40]!r}; expected a number of bytes")
    if int(declared) > limit_bytes:
        raise BodyTooLarge(
            f"the body has {declared} bytes; this request may need {limit_bytes}",
            got=int(declared),
            limit=limit_bytes,
            hint=_SMALLER[form_of_body(request)],
        )
    return int(declared)
