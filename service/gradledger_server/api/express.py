"""The fast lane: pushes and pulls go straight to their routes' functions, past the framework's machinery.

The routes stay declared with FastAPI, which documents them and takes every other path and method. What the
lane skips (matching some twenty routes, solving dependencies, four layers of middleware) is as long as the
whole update of a small model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from gradledger_server.api import problems
from gradledger_server.errors import GradledgerError

LANES = {
    ("POST", "gradients"): "/v1/models/{model}/gradients",
    ("GET", "parameters"): "/v1/models/{model}/parameters",
}
_PATH = re.compile(r"/v1/models/([^/]{1,128})/(gradients|parameters)")


class Express:
    """ASGI middleware; the lanes' functions take the request, the model's name and the app's context."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self.app = app
        declared = {
            (method, route.path): route
            for route in routes
            if isinstance(route, APIRoute)
            for method in route.methods or ()
        }
        self._routes = {lane: declared[lane[0], path] for lane, path in LANES.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" else None
        route = self._routes.get((scope["method"], found[2])) if found else None
        if route is None or found is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive)
        try:
            response = await route.endpoint(request, found[1], request.app.state.context)
        except GradledgerError as error:
            response = problems.answer(request, error)
        await response(scope, receive, send)
