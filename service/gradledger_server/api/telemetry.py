"""What the service tells about itself: request ids, one log line per failure, Prometheus metrics."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradledger_server.replica import Replica

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
NOTE_S = 1.0
_LATENCY_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Metrics:
    """The service's metrics in a registry of their own. Processes of one service count together in `shared`,
    a directory, and each tells the sum of all."""

    def __init__(self, shared: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        self._told = self.registry
        if shared is not None:
            self._told = CollectorRegistry()
            MultiProcessCollector(self._told, str(shared))  # type: ignore[no-untyped-call]
        self.requests = Histogram(
            "gradledger_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ("method", "route", "status"),
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        self.pushes = Counter(
            "gradledger_pushes_total", "Pushes answered, by fate.", ("fate",), registry=self.registry
        )
        self.staleness = Histogram(
            "gradledger_push_staleness_steps",
            "Steps between a gradient's base and the model when it was applied.",
            buckets=(0, 1, 2, 4, 8, 16, 32, 64, 128),
            registry=self.registry,
        )
        self.received_bytes = Counter(
            "gradledger_received_bytes_total", "Bytes of pushed bodies.", registry=self.registry
        )
        self.models = Gauge(
            "gradledger_models_in_memory",
            "Models in memory; one held by several processes counts several times.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.shelved_bytes = Gauge(
            "gradledger_shelved_bytes",
            "Recycled memory waiting for its next use.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )

    def note(self, replica: Replica) -> None:
        """Takes down what this process holds now."""
        self.models.set(len(replica.shelf.loaded()))
        self.shelved_bytes.set(replica.blocks.shelved_bytes)

    async def keep_noting(self, replica: Replica) -> None:
        """Does so every second, for when another process is asked."""
        while True:
            self.note(replica)
            await asyncio.sleep(NOTE_S)

    def tell(self) -> bytes:
        """All of them in the text format of Prometheus."""
        return generate_latest(self._told)


def bury(pid: int, shared: Path) -> None:
    """Takes what a dead process held out of the sums; what it counted stays in them."""
    mark_process_dead(pid, str(shared))  # type: ignore[no-untyped-call]


class Telemetry:
    """ASGI middleware: names each request, times it, and echoes its name in X-Request-ID."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._timer = cache(lambda method, route, status: metrics.requests.labels(method, route, str(status)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 500

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, named)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self._timer(scope["method"], route, status).observe(time.perf_counter() - started)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return secrets.token_hex(8)
