"""What every route needs, handed over by the app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Path, Request

from gradledger_server.api.telemetry import Metrics
from gradledger_server.entries import Tensors
from gradledger_server.replica import Replica
from gradledger_server.wire import safetensors

T = TypeVar("T")

INLINE_BYTES = 128 << 10  # of a body that is understood sooner than a thread could be asked
ModelName = Annotated[str, Path(description="The model's name.")]


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest bodies this service reads, in bytes, and for how long they may come too slowly."""

    max_body_bytes: int
    max_json_bytes: int
    stall_s: float


@dataclass(frozen=True, slots=True)
class Context:
    """The replica behind the door, its limits, its metrics; `leaving` is set when the process shall end."""

    replica: Replica
    limits: Limits
    metrics: Metrics
    leaving: asyncio.Event

    async def understand(self, body: memoryview, read: Callable[[memoryview], T]) -> T:
        """What `read` makes of the body; on a thread if it is large, so that nobody else waits for it."""
        if len(body) > INLINE_BYTES:
            return await self.replica.thread(lambda: read(body))
        return read(body)

    async def decode(self, body: memoryview) -> Tensors:
        """The tensors of a safetensors body; its header takes reading, the data stay where they are."""
        if safetensors.header_bytes(body) > INLINE_BYTES:
            return await self.replica.thread(lambda: safetensors.decode(body))
        return safetensors.decode(body)


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Served = Annotated[Context, Depends(_context)]
