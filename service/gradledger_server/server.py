"""The life of the service: open the device, open the store, serve in one process or several, drain."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
import typer
import uvicorn

from gradledger_server.address import listening, url_from_here, url_of
from gradledger_server.api.app import create_app, create_door
from gradledger_server.api.context import Limits
from gradledger_server.api.telemetry import Metrics, bury
from gradledger_server.errors import DeviceUnavailable
from gradledger_server.handover import Handover
from gradledger_server.kernels.device import Device, open_device
from gradledger_server.replica import Cadence, Replica
from gradledger_server.settings import Settings, read
from gradledger_server.sharing import ABSENT, Board, SharingServer
from gradledger_server.store import MemoryStore, RedisStore, Store, open_store
from gradledger_server.supervisor import Supervisor

log = structlog.get_logger()

SAVING_S = 60.0  # beyond the draining: to save models before a process is killed
TRY_GPU = (sys.executable, "-m", "gradledger_server", "gpu")
PROTOCOL = "gradledger_server.api.landing:LandingProtocol"

CURL = """  curl -X PUT '{url}/v1/models/demo' -H 'Content-Type: application/json' \\
       -d '{{"optimizer": {{"rule": "adam", "lr": 0.01}}, "parameters": {{"w": [[0.0, 1.0]]}}}}'
  curl -X POST '{url}/v1/models/demo/gradients' -H 'Content-Type: application/json' \\
       -d '{{"gradients": {{"w": [[0.1, -0.2]]}}, "worker": "w0", "sequence": 1}}'"""


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then drains. Raises GradledgerError if it cannot start."""
    _configure_logging(settings.log_level)
    # uvicorn drains, then raises the signal again: by then it only has to lead through the `finally` below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with listening(settings.host, settings.port) as listener:
        port = listener.getsockname()[1]
        if settings.workers == 1:
            serve = partial(_alone, listener, settings, device_of(settings))
        else:
            _try_device(settings)
            serve = partial(_supervise, listener, settings)
        store = open_store(settings.redis_url, settings.data_dir, settings.durability)
        try:
            _announce(settings.host, port, store)
            serve(store)
        finally:
            store.close()


def run_replica(handover: Handover) -> None:
    """Serves as one of several processes: on the parent's socket, from the parent's store."""
    settings = handover.settings
    _configure_logging(settings.log_level)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    assert settings.redis_url is not None
    device = device_of(settings)
    # The parent has found the store fit; if it is away just now, this process answers 503 until it is back.
    store = RedisStore(settings.redis_url, settings.durability or "memory")
    try:
        with socket.socket(fileno=handover.listener) as listener:
            config = configured(store, device, settings, Metrics(handover.metrics_dir))
            _serve(SharingServer(config, Board(handover.board), handover.place), listener)
    finally:
        store.close()


def _try_device(settings: Settings) -> None:
    """Exits, or raises DeviceUnavailable, if the processes would be asked for a GPU and cannot use one.

    A process of its own tries, for one that has looked at a GPU holds memory of it until it ends.
    """
    if settings.device != "gpu":
        return
    status = subprocess.run(TRY_GPU, check=False).returncode
    if status == 1:
        sys.exit(1)  # it has said why
    if status != 0:
        raise DeviceUnavailable(f"a process that tried the GPU ended with status {status}")


def _alone(listener: socket.socket, settings: Settings, device: Device, store: RedisStore) -> None:
    """One process, this one."""
    _serve(uvicorn.Server(configured(store, device, settings, Metrics())), listener)


def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    gc.freeze()  # what start-up made stays: no need to look through it ever again
    gc.set_threshold(10_000, 50, 50)
    server.run(sockets=[listener])


def configured(store: Store, device: Device, settings: Settings, metrics: Metrics) -> uvicorn.Config:
    """How uvicorn serves the door over the store and the device."""
    return uvicorn.Config(
        create_door(lambda: opened(store, device, settings), limits_of(settings), metrics),
        loop="uvloop",
        http=PROTOCOL,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_s,
    )


def _supervise(listener: socket.socket, settings: Settings, store: RedisStore) -> None:
    """Several processes on the one listening socket.

    Who dies leaves its unaccepted connections to the others, as it would not with a socket of its own
    (SO_REUSEPORT), and connections are shared out evenly, as they are not by the kernel's hash.
    """
    threads = settings.threads or max(1, len(os.sched_getaffinity(0)) // settings.workers)
    found = {"redis_url": store.url, "durability": store.durability, "threads": threads}
    with TemporaryDirectory(prefix="gradledger-") as shared:
        metrics_dir, board_path = Path(shared, "metrics"), Path(shared, "connections")
        metrics_dir.mkdir()
        board = Board.make(board_path, settings.workers)

        def start(place: int) -> subprocess.Popen[bytes]:
            return Handover(
                settings=settings.model_copy(update=found),
                listener=listener.fileno(),
                metrics_dir=metrics_dir,
                board=board_path,
                place=place,
                parent_pid=os.getpid(),
            ).start()

        def buried(place: int, pid: int) -> None:
            board.say(place, ABSENT)
            bury(pid, metrics_dir)

        processes = Supervisor(start, settings.workers, buried)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: processes.stop())
        processes.run(settings.drain_s + SAVING_S)


@asynccontextmanager
async def opened(store: Store, device: Device, settings: Settings) -> AsyncIterator[Replica]:
    """A running replica over the store and the device."""
    cadence = Cadence(
        log_ratio=settings.snapshot_log_ratio, quiet_s=settings.snapshot_quiet_s, drop_s=settings.idle_drop_s
    )
    async with Replica(store, device, cadence) as replica:
        yield replica


def device_of(settings: Settings) -> Device:
    """Where this process computes. Raises DeviceUnavailable."""
    return open_device(settings.device, threads=settings.threads, compiled=settings.compiled)


def limits_of(settings: Settings) -> Limits:
    """What the door needs of the settings."""
    return Limits(settings.max_body_bytes, settings.max_json_bytes, settings.stall_s)


def document() -> dict[str, Any]:
    """The OpenAPI document; nothing is opened for it."""
    settings = read()
    app = create_app(
        lambda: opened(MemoryStore(), device_of(settings), settings), limits_of(settings), Metrics()
    )
    return app.openapi()


def _announce(host: str, port: int, store: Store) -> None:
    facts, url = store.facts(), url_from_here(host, port)
    server = f"{facts.server} {facts.version}, durability {facts.durability}"
    typer.echo(f"Gradledger serves {url_of(host, port)}  ({server})")
    typer.echo(f"Documentation: {url}/docs\nTry:\n{CURL.format(url=url)}")


def _configure_logging(level: str) -> None:
    threshold = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=threshold, format="%(levelname)s %(name)s: %(message)s")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(),
    )
