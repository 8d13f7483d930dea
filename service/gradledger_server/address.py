"""Where the service listens, and what that is called: by a client, and by one on this machine."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from gradledger_server.errors import GradledgerError

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # each with one address that is among them

NO_ADDRESS = "Choose an address of this machine with --host, such as 127.0.0.1, or 0.0.0.0 for all of them."
HINTS = {
    errno.EADDRINUSE: "Choose another with --port, or stop what listens there.",
    errno.EACCES: "Choose one above 1023 with --port; those below are for the system.",
}


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; raises GradledgerError if the address cannot be had."""
    try:
        listener = _listener(host, port)
    except (OSError, TypeError) as refused:  # TypeError: no name can be spelled like this
        raise GradledgerError(
            f"cannot listen on {_joined(host, port)}: {getattr(refused, 'strerror', None) or refused}",
            hint=HINTS.get(getattr(refused, "errno", 0), NO_ADDRESS),
        ) from refused
    with listener:
        yield listener


def url_of(host: str, port: int) -> str:
    """The URL of what listens there."""
    return f"http://{_joined(host, port)}"


def url_from_here(host: str, port: int) -> str:
    """A URL that a client on this machine can ask, also where the service listens on all addresses."""
    return url_of(EVERYWHERE.get(host, host), port)


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except BaseException:
        listener.close()
        raise
    return listener


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
