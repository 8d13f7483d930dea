"""What the service tells about itself: request ids, one log line per failure, Prometheus metrics."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import Counter as Counted
from functools import cache
from itertools import count
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradledger_server.replica import Replica

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PROCESS, _COUNT = secrets.token_hex(4), count()  # together they name a request
NOTE_S = 1.0
NOTED = 1000  # before they are counted
_LATENCY_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Metrics:
    """The service's metrics in a registry of their own. Processes of one service count together in `shared`,
    a directory, and each tells the sum of all."""

    def __init__(self, shared: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        self._told = self.registry
        self._noted_at_most = NOTED if shared is None else 1  # another process may tell them at any time
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
        self._times: list[tuple[str, str, int, float]] = []
        self._pushes: list[tuple[str, int, int | None]] = []
        self._timers = cache(lambda *labels: self.requests.labels(*map(str, labels)))
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

    def time(self, method: str, route: str, status: int, seconds: float) -> None:
        """Notes how long a request took."""
        self._times.append((method, route, status, seconds))
        if len(self._times) >= self._noted_at_most:
            self._settle()

    def count(self, fate: str, nbytes: int, staleness: int | None) -> None:
        """Notes a push's answer, and its staleness if it was applied just now."""
        self._pushes.append((fate, nbytes, staleness))
        if len(self._pushes) >= self._noted_at_most:
            self._settle()

    def _settle(self) -> None:
        """Counts what was noted: all at once it is a fraction of one by one."""
        times, self._times = self._times, []
        for method, route, status, seconds in times:
            self._timers(method, route, status).observe(seconds)
        pushes, self._pushes = self._pushes, []
        for fate, answered in Counted(fate for fate, _, _ in pushes).items():
            self.pushes.labels(fate).inc(answered)
        self.received_bytes.inc(sum(nbytes for _, nbytes, _ in pushes))
        for staleness in (steps for _, _, steps in pushes if steps is not None):
            self.staleness.observe(staleness)

    def note(self, replica: Replica) -> None:
        """Takes down what this process has counted and holds now."""
        self._settle()
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

    def __init__(self, app: ASGIApp, lane: object, metrics: Metrics) -> None:
        self.app, self.lane, self._metrics = app, lane, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = name
        started = time.perf_counter()
        status = 500

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = name
            await send(message)

        try:
            await self.app(scope, receive, named)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self._metrics.time(scope["method"], route, status, time.perf_counter() - started)


def request_id(headers: Headers) -> str:
    """The client's name for its request, if it gave a good one, or a new one."""
    given = headers.get("x-request-id")
    if given is not None and REQUEST_ID.fullmatch(given):
        return given
    return f"{_PROCESS}{next(_COUNT) & 0xFFFFFFFF:08x}"
