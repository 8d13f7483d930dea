"""The fast lane: pushes and pulls go straight to their routes' functions, past the framework's machinery.

The routes stay declared with FastAPI, which documents them and takes every other path and method. What the
lane skips (matching some twenty routes, solving dependencies, four layers of middleware) is as long as the
whole update of a small model.
"""

from __future__ import annotations

import re

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from gradledger_server.api import gradients, parameters, problems
from gradledger_server.errors import GradledgerError

LANES = (gradients, parameters)
_LANE_PATHS = ("/v1/models/{model}/gradients", "/v1/models/{model}/parameters")
_PATH = re.compile(r"/v1/models/([^/]{1,128})/(gradients|parameters)")


class Express:
    """Around the app; the lanes' functions take the request, the model's name and the app's context."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        declared = (route for lane in LANES for route in lane.router.routes if isinstance(route, APIRoute))
        self._routes = {
            (method, route.path.rpartition("/")[2]): route
            for route in declared
            for method in route.methods or ()
            if route.path in _LANE_PATHS
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" else None
        route = self._routes.get((scope["method"], found[2])) if found else None
        if route is None or found is None:
            await self.app(scope, receive, send)
            return
        scope["route"], scope["app"] = route, self.app
        request = Request(scope, receive)
        try:
            response = await route.endpoint(request, found[1], self.app.state.context)
        except GradledgerError as error:
            response = problems.answer(request, error)
        except Exception as error:
            response = problems.unexpected(request, error)
        await response(scope, receive, send)
