"""/v1/models/{model}/events: what happens to a model, as it happens (server-sent events).

    id: 17@5f0c                 the offset in the log, and the model's epoch; "17.2@5f0c" has two more events
                                of the same entry behind it
    event: step
    data: {"offset": 17, "step": 9, …}

Whoever comes back with `Last-Event-ID` hears what it missed, or a `reset` if that is held no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gradledger_server.api import documents
from gradledger_server.api.context import Context, ModelName, Served
from gradledger_server.api.problems import responses as problems
from gradledger_server.api.query import NO_QUERY
from gradledger_server.errors import (
    GradledgerError,
    MalformedRequest,
    ModelNotFound,
    ModelQuarantined,
    TooManyStreams,
)
from gradledger_server.replica import Mailbox, News, Place

router = APIRouter(tags=["events"], dependencies=[NO_QUERY])

MOST_STREAMS = 64  # of one model, by one replica
MOST_AT_ONCE = 256  # events read before they are written
GATHER_S = 0.05  # what happens within it is sent together: a fast model costs each stream no more
LOOK_S = 1.0  # how often a silent stream looks whether to end
ELSEWHERE = Place(-1)  # in the log of another model of this name: nothing of it is held
SILENCE_LOOKS = 15  # so many of them, and a comment keeps the connection open


@router.get(
    "/v1/models/{model}/events",
    openapi_extra=documents.headers("Last-Event-ID"),
    responses=documents.EVENTS | problems(400, 404, 503),
)
async def events(request: Request, model: ModelName, served: Served) -> Response:
    """Steps, rounds, joins, leaves, time-outs, gradients that waited or came late, changes, snapshots.

    A stream begins now, or behind `Last-Event-ID`. It ends with `delete`, or when the service does: reconnect
    with the last id. If what was missed is held no more, `reset` says where the model stands.
    """
    after, epoch = _resumed(request)

    async def work(mailbox: Mailbox) -> Stream:
        await mailbox.look()
        elsewhere = epoch not in ("", mailbox.hot.epoch)
        return Stream(mailbox, ELSEWHERE if elsewhere else after, served)

    stream: Response = await served.replica.on(model, work)
    return stream


class Stream(StreamingResponse):
    """One client's stream. Raises TooManyStreams."""

    def __init__(self, mailbox: Mailbox, after: Place | None, served: Context) -> None:
        if mailbox.streams >= MOST_STREAMS:
            raise TooManyStreams(f"{MOST_STREAMS} clients watch model {mailbox.hot.name!r} here already")
        mailbox.streams += 1
        self._mailbox = mailbox
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_told(mailbox, after, served), headers=headers, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._mailbox.streams -= 1


async def _told(mailbox: Mailbox, after: Place | None, served: Context) -> AsyncIterator[bytes]:
    looks = 0
    while not served.leaving.is_set():
        mailbox.touch()
        try:
            news = await mailbox.news(after, MOST_AT_ONCE, LOOK_S if looks else 0.0)
        except ModelNotFound:
            yield _block("delete", {"epoch": mailbox.hot.epoch})
            return
        except ModelQuarantined:
            return
        except GradledgerError:  # the server is away, and may come back
            await asyncio.sleep(LOOK_S)
            news = None
        if news is not None and (text := _written(news, mailbox.hot.epoch)):
            yield text
            looks = 0
            await asyncio.sleep(GATHER_S)
        if news is not None:
            # The first words say where the stream begins, so that it can be resumed before anything happens.
            if after is None:
                yield f"retry: 1000\n{_id(mailbox.hot.epoch, news.until)}\n".encode()
            after = news.until
        looks += 1
        if looks % SILENCE_LOOKS == 0:
            yield b": nothing new\n\n"


def _written(news: News, epoch: str) -> bytes:
    if news.lost:
        facts = {"epoch": epoch, "step": news.step, "offset": news.until.offset}
        return _block("reset", facts, _id(epoch, news.until))
    return b"".join(
        _block(event.kind, event.told(), "" if event.place.aside else _id(epoch, event.place))
        for event in news.events
    )


def _id(epoch: str, place: Place) -> str:
    return f"id: {place.id}@{epoch}\n"


def _block(kind: str, facts: dict[str, object], named: str = "") -> bytes:
    return f"{named}event: {kind}\ndata: ".encode() + orjson.dumps(facts) + b"\n\n"


def _resumed(request: Request) -> tuple[Place | None, str]:
    """Behind what the stream goes on, and in which epoch if the client says so."""
    given = request.headers.get("last-event-id", "").strip()
    text, _, epoch = given.partition("@")
    place = Place.read(text)
    if given and place is None:
        raise MalformedRequest(
            f"Last-Event-ID is {given[:80]!r}; expected an id of this stream, or an offset such as 17"
        )
    return place, epoch
