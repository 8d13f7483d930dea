"""One request, sent until it is answered or its time is over.

Connection errors, time-outs and answers that say "later" (408, 429, 502, 503, 504) are retried with growing
pauses, honouring `Retry-After`. That is safe for every request of this client: a push carries its name, and
the others do no more when repeated. Bodies go out from where they lie, and answers are read into their place.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from gradledger.answer import Answer, Stream, receive
from gradledger.connection import Connection
from gradledger.errors import (
    CertificateRefused,
    ClientClosed,
    ConnectionFailed,
    GradledgerError,
    HandshakeFailed,
    Problem,
    problem_from,
)
from gradledger.landing import Landing
from gradledger.memory import Memory
from gradledger.patience import Patience
from gradledger.pool import Pool
from gradledger.version import __version__

BODILESS = ("GET", "DELETE")  # where nobody expects a body


@dataclass(frozen=True, slots=True)
class Body:
    """What to send: flat byte views, in order. It can be sent again."""

    media_type: str
    parts: Sequence[bytes | memoryview]

    @classmethod
    def of_json(cls, value: Any) -> Body:
        return cls("application/json", [json.dumps(value, allow_nan=False).encode()])

    @property
    def length_bytes(self) -> int:
        return sum(len(part) for part in self.parts)


class Transport:
    """A pool of connections to one service. Threads may share it; so may a fork, which gets its own pool."""

    def __init__(self, url: str, *, timeout_s: float, retry_for_s: float, headers: Mapping[str, str]) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._retry_for_s = retry_for_s
        self._headers = {"User-Agent": f"gradledger-python/{__version__}", **headers}
        self._memory = Memory()
        self._closed = False
        self._open()

    def _open(self) -> None:
        self._pool = Pool(self._url, self._timeout_s)
        self._pid = os.getpid()

    def close(self) -> None:
        """What is begun comes to its end; nothing else begins after it."""
        self._closed = True
        self._pool.close()
        self._memory.clear()

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        wait_s: float = 0.0,
        retry_for_s: float | None = None,
        landing: Landing | None = None,
        begun: bool = False,
    ) -> Answer:
        """Answers 2xx and 304; raises the typed error for everything else.

        After the end that is ClientClosed, unless it was `begun` before it.
        The tensors of a 200 go to the `landing` if there is one, from the beginning at each try.
        `wait_s` is how long the service was asked to take its time. No try begins later than that and
        `retry_for_s` (by default the transport's) after the first.
        """
        if not begun:
            self.require_open()
        target = path + ("?" + urlencode(query) if query else "")
        patience = self.patience(wait_s, retry_for_s)
        while True:
            try:
                return self._try(method, target, headers or {}, body, wait_s, patience.tries, landing)
            except GradledgerError as error:
                patience.spend(error)

    def patience(self, wait_s: float = 0.0, retry_for_s: float | None = None) -> Patience:
        """For one thing that is begun now, and that the service may take `wait_s` for."""
        return Patience(wait_s + (self._retry_for_s if retry_for_s is None else retry_for_s))

    def stream(self, path: str, *, headers: Mapping[str, str], quiet_s: float) -> Stream:
        """An answer that goes on, tried once; whoever reads it closes it. `quiet_s` may be silence.

        Raises like `send`; while it is read, HTTPException and OSError say that it broke.
        """
        self.require_open()
        connection = self._connections().take()
        try:
            response = self._ask(connection, "GET", path, headers, None, quiet_s)
            if response.status == 200:
                return Stream(connection, response)
            raise _refusal(response, receive(response, None, self._memory))
        except (HTTPException, OSError) as error:
            connection.close()
            raise self._broken("GET", path, error) from error
        except BaseException:
            connection.close()
            raise

    def _try(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body | None,
        wait_s: float,
        tries: int,
        landing: Landing | None,
    ) -> Answer:
        began = time.perf_counter()
        try:
            with self._connections().connection() as connection:
                response = self._ask(connection, method, target, headers, body, wait_s)
                headed = time.perf_counter()
                received = receive(response, landing if response.status == 200 else None, self._memory)
                ended = time.perf_counter()
        except (HTTPException, OSError) as error:
            raise self._broken(method, target, error) from error
        if 200 <= response.status < 300 or response.status == 304:
            asked_ms, read_ms = 1e3 * (headed - began), 1e3 * (ended - headed)
            return Answer(response.status, response.headers, received, tries, asked_ms, read_ms)
        raise _refusal(response, received)

    def require_open(self) -> None:
        """Raises ClientClosed after the end."""
        if self._closed:
            raise ClientClosed(f"the client of {self._pool.url} is closed")

    def _connections(self) -> Pool:
        if self._pid != os.getpid():
            self._open()
        return self._pool

    def _ask(
        self,
        connection: Connection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body | None,
        wait_s: float,
    ) -> HTTPResponse:
        return connection.ask(
            method,
            self._pool.prefix + target,
            {**self._headers, **headers, **_framing(method, body)},
            () if body is None else body.parts,
            self._timeout_s + wait_s,
        )

    def _broken(self, method: str, target: str, error: Exception) -> ConnectionFailed:
        kind, why = _kind(error), f"{type(error).__name__}: {_line(error)}"
        return kind(f"{method} {self._pool.url}{target}: no answer ({why})")


def _kind(error: Exception) -> type[ConnectionFailed]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateRefused
    cut = (ssl.SSLEOFError, ssl.SSLZeroReturnError)  # in the middle of TLS, which can be mended
    if isinstance(error, ssl.SSLError) and not isinstance(error, cut):
        return HandshakeFailed
    return ConnectionFailed


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _refusal(response: HTTPResponse, received: NDArray[np.uint8]) -> Problem:
    request_id = response.headers.get("X-Request-ID") or response.headers.get("Request-Id")
    later_s = _retry_after_s(response.headers.get("Retry-After"))
    return problem_from(response.status, received.tobytes(), request_id, later_s)


def _framing(method: str, body: Body | None) -> dict[str, str]:
    if body is not None:
        return {"Content-Type": body.media_type, "Content-Length": str(body.length_bytes)}
    return {} if method in BODILESS else {"Content-Length": "0"}


def _retry_after_s(value: str | None) -> float:
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
