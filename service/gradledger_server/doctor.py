"""What the service needs of this machine, examined one by one, each with its fix."""

from __future__ import annotations

import shutil
import socket
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gradledger_server.errors import GradledgerError
from gradledger_server.kernels.device import open_device
from gradledger_server.settings import Settings
from gradledger_server.store import open_store

FREE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing examined: what was found and, unless it is well, the next move."""

    subject: str
    ok: bool
    found: str
    fix: str = ""


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order a start-up would meet them."""
    checks: tuple[Callable[[Settings], Finding], ...] = (_python, _device, _disk, _port, _store)
    return [check(settings) for check in checks]


def is_ready(port: int) -> bool:
    """Whether the service on this machine answers /readyz with 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _python(_: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), version, "Install Python 3.11 or newer.")


def _device(settings: Settings) -> Finding:
    try:
        return Finding("device", True, open_device(settings.device).name)
    except GradledgerError as error:
        return Finding("device", False, error.detail, error.advice)


def _disk(settings: Settings) -> Finding:
    existing = next(
        path
        for path in (settings.data_dir.absolute(), *settings.data_dir.absolute().parents)
        if path.exists()
    )
    free = shutil.disk_usage(existing).free
    return Finding("disk", free > FREE_BYTES, f"{free >> 20} MiB free", "Free some space or set --data-dir.")


def _port(settings: Settings) -> Finding:
    with socket.socket() as probe:
        busy = probe.connect_ex((settings.host, settings.port)) == 0
    found = f"{settings.port} is {'in use' if busy else 'free'}"
    ours = busy and is_ready(settings.port)
    return Finding(
        "port",
        not busy or ours,
        found + (" by a ready service" if ours else ""),
        "Choose another with --port.",
    )


def _store(settings: Settings) -> Finding:
    """An external server as it is; otherwise an embedded one, tried in a directory of its own."""
    with TemporaryDirectory() as scratch:
        try:
            store = open_store(settings.redis_url, Path(scratch), settings.durability)
        except GradledgerError as error:
            return Finding("store", False, error.detail, error.advice)
        try:
            facts = store.facts()
            return Finding("store", True, f"{facts.server} {facts.version}, durability {facts.durability}")
        finally:
            store.close()
