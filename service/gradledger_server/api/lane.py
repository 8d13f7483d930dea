"""The fast lane: pushes and pulls go straight to their routes' functions, past the framework's machinery.

The routes stay declared with FastAPI, which documents them and takes every other path and method. What the
lane skips (matching some twenty routes, solving dependencies, layers of middleware, and for whole requests
ASGI itself) is longer than the whole update of a small model.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gradledger_server.api import gradients, parameters, problems
from gradledger_server.api.body import LANDED_BYTES
from gradledger_server.api.context import Context
from gradledger_server.api.gate import Gate, to_puller, to_pusher
from gradledger_server.api.haste import Haste, Told
from gradledger_server.api.pace import Pace
from gradledger_server.api.telemetry import Metrics
from gradledger_server.api.whole import Whole
from gradledger_server.errors import GradledgerError

MODULES = (gradients, parameters)
_LANE_PATHS = ("/v1/models/{model}/gradients", "/v1/models/{model}/parameters")
_PATH = re.compile(r"/v1/models/([^/]{1,128})/(gradients|parameters)")

Work = Callable[[Request, str, Context], Awaitable[Response]]


class Lane:
    """Around the app; the lane's functions take the request, the model's name and the app's context.

    Large answers leave through its `gate`; its `pace` is that of who sends.
    """

    def __init__(self, app: FastAPI, metrics: Metrics, pace: Pace) -> None:
        self.app, self._metrics, self.pace = app, metrics, pace
        self.gate = Gate()
        self._haste = Haste()
        declared = (
            route for module in MODULES for route in module.router.routes if isinstance(route, APIRoute)
        )
        self._routes = {
            (method, route.path.rpartition("/")[2]): route
            for route in declared
            for method in route.methods or ()
            if route.path in _LANE_PATHS
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" else None
        route = self._routes.get((scope["method"], found[2])) if found else None
        if scope["type"] == "http" and scope["method"] == "GET":
            send = to_puller(send, self.gate)
        if route is None or found is None:
            await self.app(scope, receive, send)
            return
        scope["route"], scope["app"] = route, self.app
        if scope["method"] == "GET":
            await self._respond(route.endpoint, found[1], scope, receive, send)
            return
        with self.gate.push():
            await self._respond(route.endpoint, found[1], scope, receive, to_pusher(send))

    async def _respond(self, work: Work, model: str, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(work, Request(scope, receive), model)
        await response(scope, receive, send)

    async def serve(self, request: Whole) -> Response:
        """The answer to a request that came in one piece."""
        head = request.head
        return await self._answer(self._routes[head.method, head.kind].endpoint, request, head.model)

    def place(self, nbytes: int) -> memoryview:
        """Memory for a body, aligned: it is computed on as it lies. That of larger ones is used again."""
        if nbytes <= LANDED_BYTES:
            return memoryview(bytearray(nbytes))
        context: Context = self.app.state.context
        return context.replica.blocks.take(nbytes).data

    def at_once(self, request: Whole, told: Told) -> None:
        """Serves a usual request without a task, if nothing is in the way: `told` gets the answer, perhaps
        before this returns. None instead of one: nothing was done, and it needs `serve`."""
        context: Context = self.app.state.context
        if request.head.kind == "gradients":
            self._haste.push(request, context, told)
        elif not parameters.pull_at_once(request, context, told):
            told(None)

    def note(self, request: Whole, status: int, seconds: float) -> None:
        """Counts such a request, once its answer is on its way."""
        head = request.head
        self._metrics.time(head.method, self._routes[head.method, head.kind].path, status, seconds)

    async def _answer(self, work: Work, request: Request, model: str) -> Response:
        try:
            return await work(request, model, self.app.state.context)
        except GradledgerError as error:
            return problems.answer(request, error)
        except Exception as error:
            return problems.unexpected(request, error)
