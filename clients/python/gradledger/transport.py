"""One request, sent until it is answered or its time is over.

Connection errors, time-outs and answers that say "later" (429, 502, 503, 504) are retried with growing
pauses, honouring `Retry-After`. That is safe for every request of this client: a push carries its name, and
the others do no more when repeated. Bodies go out, and answers come in, without being joined or copied whole.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlencode

import numpy as np
import urllib3
from numpy.typing import NDArray
from urllib3.exceptions import HTTPError, SSLError

from gradledger.connection import JOINED_BYTES, Connection, SecureConnection
from gradledger.errors import (
    CertificateRefused,
    ConnectionFailed,
    GradledgerError,
    MalformedAnswer,
    Problem,
    problem_from,
)
from gradledger.landing import Landing
from gradledger.memory import Memory
from gradledger.patience import Patience
from gradledger.version import __version__

PIECE_BYTES = 256 << 10  # read so much at a time: it is copied while still in the processor's cache
STOP = re.compile(r"(?:^|,)\s*([\w-]+);dur=([0-9]+(?:\.[0-9]+)?)(?=,|$)")  # of Server-Timing, in ms
ONCE = urllib3.Retry.from_int(False, redirect=False)  # per try: patience counts them, not urllib3
UNDECLARED_BYTES = 1 << 30  # no more is read of an answer that does not declare its length


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


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: 2xx or 304. `tries` > 1 says that an earlier try may have been carried out as well."""

    status: int
    headers: Mapping[str, str]
    body: NDArray[np.uint8]  # empty if it landed elsewhere
    tries: int
    asked_ms: float  # from the try's beginning to the answer's head
    read_ms: float  # how long the body took to arrive after that

    def json(self) -> Any:
        try:
            return json.loads(self.body.tobytes())
        except ValueError as error:
            raise MalformedAnswer(f"expected JSON, got {self.body[:80].tobytes()!r}") from error

    @property
    def timing_ms(self) -> dict[str, float]:
        """The last try's time: what the service tells of it, `network` between it and us, and `read`."""
        stops = {name: float(ms) for name, ms in STOP.findall(self.headers.get("Server-Timing", ""))}
        return stops | {"network": max(0.0, self.asked_ms - sum(stops.values())), "read": self.read_ms}


class Transport:
    """A pool of connections to one service. Threads may share it; so may a fork, which gets its own pool."""

    def __init__(self, url: str, *, timeout_s: float, retry_for_s: float, headers: Mapping[str, str]) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._retry_for_s = retry_for_s
        self._headers = {"User-Agent": f"gradledger-python/{__version__}", **headers}
        self._prefix = urllib3.util.parse_url(self.url).path or ""
        self._memory = Memory()
        self._open()

    def _open(self) -> None:
        self._pool = urllib3.connection_from_url(self.url, maxsize=16)
        self._pool.ConnectionCls = SecureConnection if self._pool.scheme == "https" else Connection
        self._pid = os.getpid()

    def close(self) -> None:
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
    ) -> Answer:
        """Answers 2xx and 304; raises the typed error for everything else.

        The tensors of a 200 go to the `landing` if there is one, from the beginning at each try.
        `wait_s` is how long the service was asked to take its time. No try begins later than that and
        `retry_for_s` (by default the transport's) after the first.
        """
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

    def stream(self, path: str, *, headers: Mapping[str, str], quiet_s: float) -> urllib3.BaseHTTPResponse:
        """An answer that goes on, tried once; whoever reads it closes it. `quiet_s` may be silence.

        Raises like `send`; while it is read, urllib3's HTTPError and OSError say that it broke.
        """
        try:
            response = self._request("GET", path, headers, None, quiet_s)
            if response.status == 200:
                return response
            received = _receive(response, None, self._memory)
        except (HTTPError, OSError) as error:
            raise self._broken("GET", path, error) from error
        raise _refusal(response, received)

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
            response = self._request(method, target, headers, body, wait_s)
            headed = time.perf_counter()
            received = _receive(response, landing if response.status == 200 else None, self._memory)
            ended = time.perf_counter()
        except (HTTPError, OSError) as error:
            raise self._broken(method, target, error) from error
        if 200 <= response.status < 300 or response.status == 304:
            asked_ms, read_ms = 1e3 * (headed - began), 1e3 * (ended - headed)
            return Answer(response.status, response.headers, received, tries, asked_ms, read_ms)
        raise _refusal(response, received)

    def _request(
        self, method: str, target: str, headers: Mapping[str, str], body: Body | None, wait_s: float
    ) -> urllib3.BaseHTTPResponse:
        if self._pid != os.getpid():
            self._open()
        return self._pool.urlopen(
            method,
            self._prefix + target,
            body=None if body is None else _chunks(body),
            headers={**self._headers, **headers, **_framing(body)},
            timeout=_timeout(self._timeout_s, self._timeout_s + wait_s),
            retries=ONCE,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )

    def _broken(self, method: str, target: str, error: Exception) -> ConnectionFailed:
        kind = CertificateRefused if isinstance(error, SSLError) else ConnectionFailed
        return kind(f"{method} {self.url}{target}: no answer ({error})")


@lru_cache(64)
def _timeout(connect_s: float, read_s: float) -> urllib3.Timeout:
    return urllib3.Timeout(connect=connect_s, read=read_s)


def _refusal(response: urllib3.BaseHTTPResponse, received: NDArray[np.uint8]) -> Problem:
    request_id = response.headers.get("X-Request-ID") or response.headers.get("Request-Id")
    later_s = _retry_after_s(response.headers.get("Retry-After"))
    return problem_from(response.status, received.tobytes(), request_id, later_s)


def _framing(body: Body | None) -> dict[str, str]:
    # The length is declared, so that urllib3 sends the parts as they are instead of as HTTP chunks.
    return {} if body is None else {"Content-Type": body.media_type, "Content-Length": str(body.length_bytes)}


def _chunks(body: Body) -> Iterable[bytes]:
    if body.length_bytes <= JOINED_BYTES:
        return [b"".join(body.parts)]
    return cast("Iterable[bytes]", body.parts)  # urllib3 hands them to the socket, which takes any buffer


def _receive(
    response: urllib3.BaseHTTPResponse, landing: Landing | None, memory: Memory
) -> NDArray[np.uint8]:
    # An answer read to its end gives its connection back to the pool; a broken one must not.
    try:
        if landing is None:
            received = _whole(response, memory)
        else:
            received = np.empty(0, np.uint8)
            _land(response, landing)
    except BaseException:
        response.close()
        raise
    response.release_conn()
    return received


def _land(response: urllib3.BaseHTTPResponse, landing: Landing) -> None:
    landing.begin()
    if response.length_remaining is None:
        received = _undeclared(response)
        landing.take(received.data, received.size)
        return
    length = response.length_remaining
    for piece in _pieces(response, length):
        landing.take(piece, length)


def _whole(response: urllib3.BaseHTTPResponse, memory: Memory) -> NDArray[np.uint8]:
    if response.length_remaining is None:
        return _undeclared(response)
    if response.length_remaining <= PIECE_BYTES:  # it comes in one piece: nothing has to be put together
        return np.frombuffer(b"".join(_pieces(response, response.length_remaining)), np.uint8)
    received = memory.take(response.length_remaining)
    view, filled = received.data, 0
    for piece in _pieces(response, received.size):
        view[filled : filled + len(piece)] = piece
        filled += len(piece)
    return received


def _pieces(response: urllib3.BaseHTTPResponse, length: int) -> Iterator[bytes]:
    while length:
        piece = response.read(min(PIECE_BYTES, length))  # raises if the answer ends too early
        length -= len(piece)
        yield piece


def _undeclared(response: urllib3.BaseHTTPResponse) -> NDArray[np.uint8]:
    received = bytearray()
    while piece := response.read(PIECE_BYTES):
        received += piece
        if len(received) > UNDECLARED_BYTES:
            raise MalformedAnswer(
                f"an answer without a declared length went on past {UNDECLARED_BYTES} bytes"
            )
    return np.frombuffer(received, np.uint8)


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
