"""Many models of the same kind, begun quickly: one after the other they would take a minute."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from benchmarks.connection import Parts, request_head
from benchmarks.crowd import Crowd
from benchmarks.subject import HEADERS, Tensors, body, spec
from tests.service import Service

CONNECTIONS = 16
JSON = "Content-Type: application/json\r\n"


def begin_many(service: Service, models: Sequence[str], tensors: Tensors) -> None:
    """Adam models that have values, the same in each."""
    paths = [f"/v1/models/{model}" for model in models]
    _put(service, paths, JSON, json.dumps(spec(tensors)).encode())
    _put(service, [f"{path}/parameters" for path in paths], HEADERS, body(tensors, 8))


def _put(service: Service, paths: Sequence[str], headers: str, content: bytes | memoryview) -> None:
    waiting = iter(paths)

    def request() -> Parts:
        return [request_head("PUT", next(waiting), headers, len(content)), content]

    requests: list[Callable[[], Parts]] = [request] * CONNECTIONS
    with Crowd(service.port, requests) as crowd:
        crowd.run(len(paths))
