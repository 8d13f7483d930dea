"""/v1/schedules: the catalogue of schedules, derived from the schedules themselves, and their curves."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gradledger_server.api import documents, query, responses
from gradledger_server.api.body import receive
from gradledger_server.api.context import Context, Served
from gradledger_server.api.forms import form_of_body
from gradledger_server.api.gradients import NUMBER, WHOLE
from gradledger_server.api.problems import responses as problems
from gradledger_server.api.query import NO_QUERY
from gradledger_server.api.schemas import PreviewRequest, read
from gradledger_server.errors import Invalid, MalformedRequest, UnsupportedMediaType
from gradledger_server.optim.schedules import guide
from gradledger_server.optim.schedules.catalog import SCHEDULES, expand_schedule, settings_of
from gradledger_server.wire import json_form

router = APIRouter(tags=["schedules"])

_OF_THE_PREVIEW = ("lr", "first", "last", "points")
MOST_ITEMS = 1001  # of a list in a query


@router.get("/v1/schedules", dependencies=[NO_QUERY], responses=documents.SCHEDULES | problems(422))
async def list_schedules() -> Response:
    """Every schedule: settings with their bounds, formula, source, and whose behaviour it reproduces."""
    return responses.json({"schedules": [guide.describe(name) for name in SCHEDULES]})


@router.get(
    "/v1/schedules/{name}", dependencies=[NO_QUERY], responses=documents.SCHEDULE | problems(404, 422)
)
async def describe_schedule(name: str) -> Response:
    """One schedule, by its name or an alias."""
    return responses.json(guide.describe(name))


@router.get(
    "/v1/schedules/{name}/preview",
    openapi_extra=documents.preview_query(),
    responses=documents.PREVIEW | problems(400, 404, 422),
)
async def preview_schedule(request: Request, name: str, served: Served) -> Response:
    """Learning rates for plotting. Further parameters are the schedule's settings; lists take commas."""
    own = guide.require_known(name)
    stretch: dict[str, Any] = {}
    settings: dict[str, Any] = {"name": name}
    lists = {key for key, its in settings_of(own).items() if its.kind == "list"}
    for key, text in query.told(request).items():
        members = stretch if key in _OF_THE_PREVIEW else settings
        if key in members:  # the path has a name already
            raise MalformedRequest(f"{key[:80]!r} stands in the query twice", hint="Say it once.")
        members[key] = _items(text) if key in lists else _plain(text)
    return await _preview(read(PreviewRequest, {"schedule": settings, **stretch}, error=Invalid), served)


@router.post(
    "/v1/schedules/preview",
    dependencies=[NO_QUERY],
    openapi_extra=documents.body_of("PreviewRequest"),
    responses=documents.PREVIEW | problems(400, 411, 413, 415, 422, 503, 507),
)
async def preview_nested_schedule(request: Request, served: Served) -> Response:
    """Learning rates for plotting of any schedule object, as a model's spec would have it."""
    if form_of_body(request) != "json":
        raise UnsupportedMediaType("a schedule is JSON", hint="Send Content-Type: application/json.")
    body = await receive(request, served.limits.max_json_bytes, served.replica.blocks)
    members = await served.understand(body, json_form.parse)
    return await _preview(read(PreviewRequest, members, error=Invalid), served)


async def _preview(wanted: PreviewRequest, served: Context) -> Response:
    last = wanted.first + 999 if wanted.last is None else wanted.last
    if last < wanted.first:
        raise Invalid(f"last is {last}; expected at least first, {wanted.first}", field="last")
    schedule = expand_schedule(wanted.schedule, where="schedule")
    steps = guide.steps_between(wanted.first, last, wanted.points)
    rates = await served.replica.thread(lambda: guide.curve(schedule, wanted.lr, steps))
    return responses.json({"schedule": schedule, "s": steps, "lr": rates})


def _plain(text: str) -> object:
    """A value as JSON would have it; what is neither a number nor a truth stays text."""
    if WHOLE.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text):
        return float(text)
    return {"true": True, "false": False}.get(text, text)


def _items(text: str) -> list[object]:
    return [_plain(item) for item in text.split(",", MOST_ITEMS)]
