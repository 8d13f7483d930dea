"""What every route needs, handed over by the app."""

from __future__ import annotations

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
    """The replica behind the door, its limits and its metrics."""

    replica: Replica
    limits: Limits
    metrics: Metrics


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Served = Annotated[Context, Depends(_context)]
