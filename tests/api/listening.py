"""A stream of server-sent events, listened to over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import urllib3

from tests.service import Service


@dataclass(frozen=True)
class Told:
    """One event; `id` is None for one that has none."""

    kind: str
    id: str | None
    data: dict[str, Any]


class Stream:
    """Reads events; `last_id` is what a browser would send as Last-Event-ID."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self.response = response
        self.last_id = ""
        self._lines = _lines(response)

    def next(self) -> Told | None:
        """The next event; None when the stream has ended."""
        kind, data, named = "message", "", None
        for line in self._lines:
            name, _, value = line.partition(": ")
            if name == "id":
                named = self.last_id = value
            elif name == "event":
                kind = value
            elif name == "data":
                data = value
            elif not line and data:
                return Told(kind, named, json.loads(data))
            elif not line and named and not data:  # words that only say where the stream is
                named = None
        return None

    def until(self, kind: str) -> list[Told]:
        """All events up to the next one of this kind."""
        heard: list[Told] = []
        while (told := self.next()) is not None:
            heard.append(told)
            if told.kind == kind:
                return heard
        raise AssertionError(f"the stream ended without {kind!r}: {heard}")


@contextmanager
def listening(service: Service, model: str, last_id: str | None = None) -> Iterator[Stream]:
    """A stream that has begun: what happens from here on is heard."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    url = f"{service.url}/v1/models/{model}/events"
    with urllib3.PoolManager(retries=False, timeout=20.0) as http:
        response = http.request("GET", url, headers=headers, preload_content=False)
        assert response.status == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        try:
            stream = Stream(response)
            if last_id is None:  # the first words name the place
                while not stream.last_id and (line := next(stream._lines)) is not None:
                    stream.last_id = line.removeprefix("id: ") if line.startswith("id: ") else ""
            yield stream
        finally:
            response.close()


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[str]:
    rest = b""
    while chunk := response.read1():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in lines)
