"""The life of a service process: open the store, open the device, serve, drain."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog
import typer
import uvicorn

from gradledger_server.api.app import create_app, create_door
from gradledger_server.api.context import Limits
from gradledger_server.api.telemetry import Metrics
from gradledger_server.errors import GradledgerError
from gradledger_server.kernels.device import open_device
from gradledger_server.replica import Cadence, Replica
from gradledger_server.settings import Settings
from gradledger_server.store import MemoryStore, Store, open_store

log = structlog.get_logger()

PROTOCOL = "gradledger_server.api.landing:LandingProtocol"

CURL = """  curl -X PUT {url}/v1/models/demo -H 'Content-Type: application/json' \\
       -d '{{"optimizer": {{"rule": "adam", "lr": 0.01}}, "parameters": {{"w": [[0.0, 1.0]]}}}}'
  curl -X POST {url}/v1/models/demo/gradients -H 'Content-Type: application/json' \\
       -d '{{"gradients": {{"w": [[0.1, -0.2]]}}, "worker": "w0", "sequence": 1}}'"""


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then drains. Raises GradledgerError if it cannot start."""
    _configure_logging(settings.log_level)
    # uvicorn drains, then raises the signal again: by then it only has to lead through the `finally` below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with listening(settings.host, settings.port) as listener:
        port = listener.getsockname()[1]
        store = open_store(settings.redis_url, settings.data_dir, settings.durability)
        try:
            _announce(f"http://{settings.host}:{port}", store)
            config = uvicorn.Config(
                create_door(lambda: opened(store, settings), limits_of(settings)),
                loop="uvloop",
                http=PROTOCOL,
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=settings.drain_s,
            )
            gc.freeze()  # what start-up made stays: no need to look through it ever again
            gc.set_threshold(10_000, 50, 50)
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            store.close()


@asynccontextmanager
async def opened(store: Store, settings: Settings) -> AsyncIterator[Replica]:
    """A running replica over the store."""
    device = open_device(settings.device, threads=settings.threads, compiled=settings.compiled)
    cadence = Cadence(
        log_ratio=settings.snapshot_log_ratio, quiet_s=settings.snapshot_quiet_s, drop_s=settings.idle_drop_s
    )
    async with Replica(store, device, cadence) as replica:
        yield replica


def limits_of(settings: Settings) -> Limits:
    """What the door needs of the settings."""
    return Limits(settings.max_body_bytes, settings.max_json_bytes)


def document() -> dict[str, Any]:
    """The OpenAPI document; nothing is opened for it."""
    settings = Settings()
    return create_app(lambda: opened(MemoryStore(), settings), limits_of(settings), Metrics()).openapi()


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; raises GradledgerError if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as refused:
            raise GradledgerError(
                f"cannot listen on {host}:{port}: {refused.strerror or refused}",
                hint="Choose another with --port, or stop what listens there.",
            ) from refused
        listener.listen(2048)
        yield listener


def _announce(url: str, store: Store) -> None:
    facts = store.facts()
    typer.echo(f"Gradledger serves {url}  ({facts.server} {facts.version}, durability {facts.durability})")
    typer.echo(f"Documentation: {url}/docs\nTry:\n{CURL.format(url=url)}")


def _configure_logging(level: str) -> None:
    threshold = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=threshold, format="%(levelname)s %(name)s: %(message)s")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(),
    )
