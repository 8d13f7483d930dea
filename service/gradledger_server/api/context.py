"""What every route needs, handed over by the app."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request

from gradledger_server.api.telemetry import Metrics
from gradledger_server.replica import Replica

ModelName = Annotated[str, Path(description="The model's name.")]


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest bodies this service reads, in bytes."""

    max_body_bytes: int
    max_json_bytes: int


@dataclass(frozen=True, slots=True)
class Context:
    """The replica behind the door, its limits, its metrics; `leaving` is set when the process shall end."""

    replica: Replica
    limits: Limits
    metrics: Metrics
    leaving: asyncio.Event


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Served = Annotated[Context, Depends(_context)]
