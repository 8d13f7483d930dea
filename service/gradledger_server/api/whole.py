"""Small requests of the data plane, read in one piece: no parser, no scope, no stream.

A client says the same head over and over; only the target changes. So a block of header lines is parsed once,
by the parser that reads every other request, and known by its bytes from then on. What is in any way
unusual is left to that parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import httptools
from starlette.datastructures import Headers, QueryParams, State
from starlette.requests import Request

from gradledger_server.replica import SMALL_BYTES

LANDING = "gradledger.landing"  # the extension of a request's scope that receives a large body in place
HEAD_BYTES = 4 << 10  # of a usual head, at most

_LINE = re.compile(
    rb"(GET|POST) /v1/models/([A-Za-z0-9._-]{1,128})/(gradients|parameters)(?:\?([!\x22$-~]*))? HTTP/1\.1"
)
T = TypeVar("T")

_KINDS = {(b"GET", b"parameters"): ("GET", "parameters"), (b"POST", b"gradients"): ("POST", "gradients")}
_UNUSUAL = ("transfer-encoding", "expect", "upgrade", "te", "trailer", "proxy-connection")


class KnownHeaders(Headers):
    """Headers that are asked more than once: found by name, not by looking through them."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        super().__init__(raw=raw)
        self._by_name: dict[str, list[str]] = {}
        self.said: dict[Any, Any] = {}  # what was made of them
        for name, value in raw:
            self._by_name.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))

    def __getitem__(self, key: str) -> str:
        return self._by_name[key][0]

    def __contains__(self, key: Any) -> bool:
        return key in self._by_name

    def get(self, key: str, default: Any = None) -> Any:
        """The first line's value. Names are asked for in lower case."""
        found = self._by_name.get(key)
        return default if found is None else found[0]

    def getlist(self, key: str) -> list[str]:
        """Every line's value."""
        return self._by_name.get(key, [])


def once(read: Callable[..., T]) -> Callable[..., T]:
    """What `read` makes of a request's headers alone; of headers that come again, worked out once."""

    @wraps(read)
    def known(request: Request, *arguments: Any) -> T:
        headers = request.headers
        if not isinstance(headers, KnownHeaders):
            return read(request, *arguments)
        said, key = headers.said, (read, *arguments)
        if key not in said:
            said[key] = read(request, *arguments)
        found: T = said[key]
        return found

    return known


class Head:
    """A request up to its body: `nbytes` with it."""

    __slots__ = ("headers", "kind", "method", "model", "nbytes", "query", "start")

    def __init__(self, line: re.Match[bytes], headers: KnownHeaders, start: int, length: int) -> None:
        method, model, kind, query = line.groups(b"")
        self.method, self.kind = _KINDS[method, kind]
        self.model, self.query = model.decode(), query.decode()
        self.headers, self.start, self.nbytes = headers, start, start + length


class Whole(Request):
    """A request with its body, as the routes' functions know requests."""

    def __init__(self, head: Head, body: memoryview, request_id: str) -> None:
        self.head, self.whole, self.request_id = head, body, request_id
        self.hung_up = False
        self._query: QueryParams | None = None

    @property
    def headers(self) -> Headers:
        return self.head.headers

    @property
    def query_params(self) -> QueryParams:
        if self._query is None:
            self._query = QueryParams(self.head.query)
        return self._query

    @property
    def state(self) -> State:
        return State({"request_id": self.request_id})

    async def is_disconnected(self) -> bool:
        return self.hung_up


def head_of(data: bytes) -> Head | None:
    """The head that the data begin with; None if it is not all there, or anything about it is unusual."""
    end = data.find(b"\r\n\r\n", 0, HEAD_BYTES)
    first = data.find(b"\r\n")
    if not 0 < first < end:
        return None
    line = _LINE.fullmatch(data, 0, first)
    if line is None or (line[1], line[3]) not in _KINDS:
        return None
    known = _headers(data[first + 2 : end])
    if known is None or (known[1] and line[1] == b"GET"):
        return None
    return Head(line, known[0], end + 4, known[1])


@lru_cache(maxsize=1024)
def _headers(block: bytes) -> tuple[KnownHeaders, int] | None:
    """The header lines and the body's length; None where they need more than that."""
    listener = _Listener()
    if b"\n" in block.replace(b"\r\n", b""):  # where a line ends, two readers might not agree
        return None
    try:
        httptools.HttpRequestParser(listener).feed_data(b"GET / HTTP/1.1\r\n" + block + b"\r\n\r\n")
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    headers = KnownHeaders(listener.lines)
    if listener.heads != 1 or any(name in headers for name in _UNUSUAL):
        return None
    if any(said.lower() != "keep-alive" for said in headers.getlist("connection")):
        return None
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 8 and int(length) <= SMALL_BYTES):
        return None
    return headers, int(length)


class _Listener:
    def __init__(self) -> None:
        self.lines: list[tuple[bytes, bytes]] = []
        self.heads = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.heads += 1
