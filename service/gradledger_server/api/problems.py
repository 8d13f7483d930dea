"""Errors become answers: every non-2xx is application/problem+json (RFC 9457), made in this one place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gradledger_server import errors
from gradledger_server.api.wording import detail_of, path_of
from gradledger_server.errors import GradledgerError

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
QUOTED_CHARS = 1000
_MODELS = re.compile(r"/v1/models(/[^/]+)?")
_BY_STATUS = {404: errors.NotFound, 405: errors.MethodNotAllowed}


class ProblemResponse(Response):
    media_type = MEDIA_TYPE


def problem(request: Request, error: GradledgerError) -> Response:
    """The error as a problem: what, got, expected, and the next move."""
    headers = {}
    if isinstance(error, errors.Unavailable):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.BodyTooLarge | errors.LengthRequired):
        headers["Connection"] = "close"  # the body is on its way and nobody will read it
    return ProblemResponse(render(error, request.state.request_id), error.status, headers)


def answer(request: Request, error: GradledgerError) -> Response:
    """The error as a problem; those that are ours are logged."""
    if error.status >= 500:
        log.error(error.detail, problem=error.problem, request_id=request.state.request_id)
    return problem(request, error)


def unexpected(request: Request, error: Exception) -> Response:
    """A failure nobody foresaw: its story goes to the log, not to the client."""
    log.error("unexpected failure", request_id=request.state.request_id, exc_info=error)
    return problem(request, GradledgerError("the service failed to answer; its log has the details"))


def render(error: GradledgerError, request_id: str) -> bytes:
    """The problem's JSON."""
    members = {
        "type": f"/problems/{error.problem}",
        "title": error.title,
        "status": error.status,
        "detail": _short(error.detail),
        "hint": error.advice,
        "request_id": request_id,
        **{name: _short(fact) for name, fact in error.facts.items()},
    }
    return orjson.dumps(members, default=str)


def _short(said: Any) -> Any:
    """A text as a problem quotes it: the names in it came with the request and may be megabytes."""
    return said if not isinstance(said, str) or len(said) <= QUOTED_CHARS else said[: QUOTED_CHARS - 1] + "…"


def catalogue() -> Iterator[type[GradledgerError]]:
    """Every problem there is, in the order of the tree."""

    def below(kind: type[GradledgerError]) -> Iterator[type[GradledgerError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    return below(GradledgerError)


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Answers every error of the service, the framework and the unexpected as a problem."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, GradledgerError)
        return answer(request, error)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = _BY_STATUS.get(error.status_code, errors.MalformedRequest)
        path: str = request.scope["path"]  # not request.url, which a strange Host header breaks
        allowed = ", ".join(sorted(_methods(routes, path))) if error.status_code == 405 else ""
        hint = _other_method(allowed, path) if allowed else _other_path(path) + kind.hint
        refused = problem(request, kind(f"{request.method} {path[:200]!r}: {error.detail}", hint=hint))
        if allowed:
            refused.headers["Allow"] = allowed
        return refused

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place, field = first["loc"][0], path_of({"loc": first["loc"][1:]})
        hint = "Correct it, or leave it out." if place == "query" else "Correct the path."
        return problem(request, errors.Invalid(detail_of(first, field), field=field, hint=hint))

    async def anything(request: Request, error: Exception) -> Response:
        return unexpected(request, error)

    app.add_exception_handler(GradledgerError, ours)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, anything)


def _other_method(allowed: str, path: str) -> str:
    creating = " Create a model with PUT /v1/models/{model}." if _MODELS.fullmatch(path) else ""
    return f"Allowed here: {allowed}.{creating}"


def _other_path(path: str) -> str:
    return "A model's name cannot contain '/'. " if path.startswith("/v1/models/") else ""


def _methods(routes: Sequence[BaseRoute], path: str) -> set[str]:
    """What the routes of a path take; each of them knows only its own method."""
    served = (route for route in routes if isinstance(route, Route) and route.path_regex.match(path))
    return {method for route in served for method in route.methods or ()}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems a route may answer, for the OpenAPI document."""
    return {
        status: {
            "description": "Problem",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }
