"""The door: one FastAPI app over one replica. It knows no Redis and no arithmetic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from gradledger_server import __version__
from gradledger_server.api import (
    documents,
    events,
    gradients,
    ledger,
    metrics,
    models,
    optimizers,
    parameters,
    problems,
    rows,
    schedules,
    service,
    state,
    transforms,
    workers,
)
from gradledger_server.api.context import Context, Limits
from gradledger_server.api.lane import Lane
from gradledger_server.api.pace import Pace
from gradledger_server.api.telemetry import Metrics, Telemetry
from gradledger_server.replica import Replica

Opened = Callable[[], AbstractAsyncContextManager[Replica]]

ROUTERS = (
    models,
    gradients,
    parameters,
    rows,
    state,
    ledger,
    events,
    metrics,
    optimizers,
    schedules,
    transforms,
    workers,
    service,
)


def create_door(replica: Opened, limits: Limits, counted: Metrics) -> ASGIApp:
    """The whole door: telemetry, then the fast lane, then the app. To its `lane` leads a shortcut."""
    lane = Lane(create_app(replica, limits, counted), counted, Pace(limits.stall_s))
    return Telemetry(lane, lane, counted)


def create_app(replica: Opened, limits: Limits, counted: Metrics) -> FastAPI:
    """The app; `replica` is opened when it starts and closed, its models saved, when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, asyncio.Event]]:
        leaving = asyncio.Event()
        async with replica() as opened:
            app.state.context = Context(opened, limits, counted, leaving)
            farewell = asyncio.create_task(_release(opened, leaving))
            noting = asyncio.create_task(counted.keep_noting(opened))
            yield {"leaving": leaving}
            farewell.cancel()
            noting.cancel()

    app = FastAPIOffline(
        title="Gradledger",
        version=__version__,
        description="A parameter server anyone can reach with HTTP: gradients in, parameters out.",
        lifespan=lifespan,
        separate_input_output_schemas=False,
        redirect_slashes=False,
    )
    for module in ROUTERS:
        app.include_router(module.router)
    routes = [*app.router.routes, *(route for module in ROUTERS for route in module.router.routes)]
    problems.install(app, routes)
    documents.install(app)
    return app


async def _release(replica: Replica, leaving: asyncio.Event) -> None:
    """Lets nobody wait for others who will not come any more."""
    await leaving.wait()
    replica.shelf.release()
