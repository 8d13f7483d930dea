"""The connections to one service, kept open while nobody needs them."""

from __future__ import annotations

import select
import socket
import ssl
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote, urlsplit

from gradledger.connection import Connection, SecureConnection

KEPT = 16  # idle connections
PORTS = {"http": 80, "https": 443}


class Pool:
    """Connections to the service at `url`, for any number of threads; each is made within `connect_s`.

    Raises ValueError for a URL that is none of http or https.
    """

    def __init__(self, url: str, connect_s: float) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in PORTS or not _is_host(parts.hostname):
            raise ValueError(f"the service's address is {url!r}, expected one like 'http://127.0.0.1:8000'")
        # Each request has its /v1. An address that ends in it is meant as well as one that does not.
        self.prefix = quote(parts.path.rstrip("/").removesuffix("/v1"), safe="/%")
        self.url = f"{parts.scheme}://{parts.netloc}{self.prefix}"
        port = PORTS[parts.scheme] if parts.port is None else parts.port
        self._host, self._port, self._connect_s = str(parts.hostname), port, connect_s
        self._terms = _terms() if parts.scheme == "https" else None
        self._idle: deque[Connection] = deque()
        self._kept = KEPT
        weakref.finalize(self, _hang_up, self._idle).atexit = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """One for a request and its whole answer; where that goes wrong nobody uses it again."""
        connection = self.take()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self.give_back(connection)

    def give_back(self, connection: Connection) -> None:
        """Its answer is read to the end; the next request may have it, if it is still open."""
        if connection.sock is not None and len(self._idle) < self._kept:
            self._idle.append(connection)
        else:
            connection.close()

    def take(self) -> Connection:
        """One for the caller alone, who closes it or gives it back."""
        while self._idle:
            with suppress(IndexError):  # another thread took the last one
                connection = self._idle.pop()
                if not _readable(connection.sock):
                    return connection
                connection.close()  # the service has hung up on it
        if self._terms is None:
            return Connection(self._host, self._port, timeout=self._connect_s)
        return SecureConnection(self._host, self._port, timeout=self._connect_s, context=self._terms)

    def close(self) -> None:
        """Hangs up on the idle ones, and on the others when they are done."""
        self._kept = 0
        _hang_up(self._idle)


def _is_host(name: str | None) -> bool:
    try:
        return bool(name and name.isprintable() and " " not in name and name.encode("idna"))
    except UnicodeError:
        return False


def _terms() -> ssl.SSLContext:
    terms = ssl.create_default_context()
    terms.set_alpn_protocols(["http/1.1"])
    return terms


def _hang_up(idle: deque[Connection]) -> None:
    while idle:
        with suppress(IndexError):
            idle.pop().close()


def _readable(sock: socket.socket) -> bool:
    """Whether something came that nobody asked for: the end, as a rule."""
    if not hasattr(select, "poll"):  # Windows, where select takes any number
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
