"""What the service needs of this machine, examined one by one, each with its fix."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from gradledger_server.address import listening, url_from_here
from gradledger_server.errors import GradledgerError
from gradledger_server.kernels.device import open_device
from gradledger_server.settings import Settings
from gradledger_server.store import open_store
from gradledger_server.store.datadir import DataDir

FREE_BYTES = 1 << 30
STRAIGHT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy knows this machine better


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing examined: what was found and, unless it is well, the next move."""

    subject: str
    ok: bool
    found: str
    fix: str = ""


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order a start-up would meet them."""
    checks: tuple[Callable[[Settings], Finding], ...] = (_python, _port, _device, _data_dir, _store)
    return [check(settings) for check in checks]


def is_ready(host: str, port: int) -> bool:
    """Whether the service that listens there, on this machine, answers /readyz with 200."""
    try:
        with STRAIGHT.open(f"{url_from_here(host, port)}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException, UnicodeError):  # it speaks another protocol, or its name is none
        return False


def _python(_: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), version, "Install Python 3.11 or newer.")


def _device(settings: Settings) -> Finding:
    try:
        return Finding("device", True, open_device(settings.device).name)
    except GradledgerError as error:
        return Finding("device", False, error.detail, error.advice)


def _data_dir(settings: Settings) -> Finding:
    """Made and written to as a start-up would, and left as it was."""
    if settings.redis_url is not None:
        return Finding("data directory", True, "not needed with --redis-url")
    path = settings.data_dir.absolute()
    made = [each for each in (path, *path.parents) if not _is_there(each)]
    try:
        free = DataDir(path).free_bytes()
    except GradledgerError as error:
        return Finding("data directory", False, error.detail, error.advice)
    finally:
        for each in made:
            with suppress(OSError):
                each.rmdir()
    fix = "Free some space or set --data-dir."
    return Finding("data directory", free > FREE_BYTES, f"{path}, {free >> 20} MiB free", fix)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # it may not be looked at, so nobody can have made it either
        return True


def _port(settings: Settings) -> Finding:
    try:
        with listening(settings.host, settings.port) as listener:
            return Finding("port", True, f"{listener.getsockname()[1]} is free")
    except GradledgerError as error:
        if is_ready(settings.host, settings.port):
            return Finding("port", True, f"{settings.port} is in use by a ready service")
        return Finding("port", False, error.detail, error.advice)


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
