"""A small real HTTP service with the push rules of the API, and faults that can be ordered in advance.

A fault meets the next request that names a gradient, or whichever request it was ordered for:

    lose-request   the connection closes before anything is carried out
    lose-answer    it is carried out, and the connection closes without an answer
    cut-answer     it is carried out, and half of the answer's body arrives
    stall          it is carried out, and the answer comes later than the client waits
    busy           503 with Retry-After, nothing carried out
    too-many       429 without a hint, nothing carried out
    proxy          502 with an HTML page, nothing carried out

`streams` are what requests for events are answered with, one after the other, each to its end.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import safetensors.numpy

STALL_S = 1.0
LR = 0.5
MEDIA_TYPE = "application/vnd.safetensors"


def digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@dataclass
class Ledger:
    """One model under plain gradient descent, and who pushed what."""

    spec: Any
    epoch: str
    params: dict[str, Any] | None = None
    step: int = 0
    pushed: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return f'"{self.epoch}.{self.step}"'

    def push(self, query: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        worker, sequence, digest = query["worker"], int(query["sequence"]), digest_of(body)
        kept = self.pushed.setdefault(worker, [])
        if sequence <= len(kept):
            known, receipt = kept[sequence - 1]
            if known != digest:
                return 422, {"type": "/problems/sequence-reused", "detail": "another body"}
            return 200, receipt | {"replayed": True}
        if sequence != len(kept) + 1:
            return 409, {"type": "/problems/sequence-gap", "detail": "a gap", "expected": len(kept) + 1}
        grads = safetensors.numpy.load(body)
        if not all(np.isfinite(each).all() for each in grads.values()):
            return 422, {"type": "/problems/non-finite", "detail": "NaN in w", "request_id": "r-7"}
        assert self.params is not None
        self.params = {name: (w - LR * grads[name]).astype(w.dtype) for name, w in self.params.items()}
        self.step += 1
        base = int(query["base"]) if "base" in query else None
        receipt = {
            "fate": "applied", "step": self.step, "offset": self.step + 1, "epoch": self.epoch, "lr": LR,
            "base": base, "staleness": None if base is None else self.step - 1 - base, "worker": worker,
            "sequence": sequence, "durability": "memory", "replayed": False, "colour": "green",
        }  # fmt: skip
        kept.append((digest, receipt))
        return 200, receipt


class Service(ThreadingHTTPServer):
    """`seen` lists every request that arrived: (method, path, query, digest of its body)."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.models: dict[str, Ledger] = {}
        self.faults: deque[str] = deque()
        self.faults_meet = "gradients"
        self.streams: deque[bytes] = deque()
        self.resumed: list[str | None] = []  # the Last-Event-ID of each request for events
        self.seen: list[tuple[str, str, dict[str, str], str]] = []
        self.lock = threading.Lock()
        self.epochs = 0
        self.connections = 0

    def get_request(self) -> tuple[Any, Any]:
        self.connections += 1
        return super().get_request()

    def pushes(self) -> list[tuple[str, str, dict[str, str], str]]:
        return [each for each in self.seen if each[1].endswith("/gradients")]


class Request(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        assert "Transfer-Encoding" not in self.headers
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        server, fault = self.server, ""
        with server.lock:
            server.seen.append((self.command, parts.path, query, digest_of(body)))
            if server.faults and server.faults_meet in f"{self.command} {parts.path}":
                fault = server.faults.popleft()
        if fault == "lose-request":
            self.close_connection = True
        elif fault in ("busy", "too-many", "proxy"):
            self.refuse(fault)
        else:
            with server.lock:
                status, headers, answer = self.carry_out(parts.path.split("/")[3:], query, body)
            if fault == "lose-answer":
                self.close_connection = True
                return
            if fault == "stall":
                time.sleep(STALL_S)
            self.reply(status, headers, answer, cut=fault == "cut-answer")

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

    def refuse(self, fault: str) -> None:
        if fault == "proxy":
            self.reply(502, {"Content-Type": "text/html"}, b"<h1>Bad gateway</h1>")
        elif fault == "too-many":
            self.reply(429, {}, b"")
        else:
            problem = {"type": "/problems/store-unavailable", "detail": "Valkey is away"}
            self.reply(503, {"Retry-After": "0.3"}, json.dumps(problem).encode())

    def reply(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut

    def carry_out(
        self, path: list[str], query: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        name, noun = path[0] if path else "", path[1] if path[1:] else ""
        models, route = self.server.models, f"{self.command} {noun}".strip()
        if not name:
            return self.json(200, {"models": [{"model": each} for each in models]})
        if route == "PUT":
            return self.create(name, json.loads(body))
        if name not in models:
            return self.json(404, {"type": "/problems/model-not-found", "detail": f"no model {name!r}"})
        ledger = models[name]
        if route == "GET":
            return self.json(200, {"step": ledger.step, **ledger.spec})
        if route == "PATCH":
            ledger.spec = {**ledger.spec, **json.loads(body)}
            return self.json(200, ledger.spec)
        if route == "DELETE":
            del models[name]
            return 204, {}, b""
        if route == "GET workers":
            workers = [{"worker": each, "sequence": len(kept)} for each, kept in ledger.pushed.items()]
            return self.json(200, {"workers": workers})
        if route == "GET events" and self.server.streams:
            self.server.resumed.append(self.headers.get("Last-Event-ID"))
            return 200, {"Content-Type": "text/event-stream"}, self.server.streams.popleft()
        if route == "PUT parameters":
            return self.upload(ledger, body)
        if ledger.params is None:
            return self.json(409, {"type": "/problems/parameters-missing", "detail": "no values yet"})
        if route == "POST gradients":
            return self.push(ledger, query, body)
        if self.headers.get("If-None-Match") == ledger.etag:
            return 304, {"ETag": ledger.etag}, b""
        return self.tensors(ledger)

    def create(self, name: str, spec: Any) -> tuple[int, dict[str, str], bytes]:
        known = self.server.models.get(name)
        if known is None:
            self.server.epochs += 1
            self.server.models[name] = Ledger(spec, f"e{self.server.epochs}")
            return self.json(201, spec)
        if known.spec == spec:
            return self.json(200, spec)
        return self.json(409, {"type": "/problems/model-exists", "detail": f"{name!r} has another spec"})

    def upload(self, ledger: Ledger, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if ledger.params is not None and self.headers.get("If-None-Match") == "*":
            return self.json(412, {"type": "/problems/precondition-failed", "detail": "there are values"})
        ledger.step += ledger.params is not None
        ledger.params = safetensors.numpy.load(body)
        return self.json(200, {"step": ledger.step})

    def push(self, ledger: Ledger, query: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        status, answer = ledger.push(query, body)
        if status != 200:
            return self.json(status, answer)
        if self.headers.get("Prefer") == "return=minimal":
            return self.json(200, {"receipt": answer, "step": ledger.step})
        return self.tensors(ledger, {"Receipt": json.dumps(answer)})

    def tensors(
        self, ledger: Ledger, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        assert ledger.params is not None
        body = safetensors.numpy.save(ledger.params)
        return 200, {"ETag": ledger.etag, "Content-Type": MEDIA_TYPE, **(headers or {})}, body

    def json(self, status: int, value: Any) -> tuple[int, dict[str, str], bytes]:
        kind = "application/json" if status < 400 else "application/problem+json"
        return status, {"Content-Type": kind}, json.dumps(value).encode()

    def log_message(self, *ignored: Any) -> None:
        pass
