"""One model of a running service, talked to over HTTP, and the evidence that a refusal left no trace."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from safetensors.numpy import load, save

from tests.service import SAFETENSORS, Answer, Arrays, Service

Json = dict[str, Any]

SGD: Json = {"rule": "sgd", "lr": 1.0}


@dataclass(frozen=True)
class Model:
    """A name on a service; `create` makes the model of that name."""

    service: Service
    name: str

    @property
    def path(self) -> str:
        return f"/v1/models/{self.name}"

    def create(self, parameters: Json, optimizer: Json | None = None, **more: Any) -> Model:
        spec = {"optimizer": optimizer or SGD, "parameters": parameters, **more}
        answer = self.service.request("PUT", self.path, spec)
        assert answer.status == 201, answer
        return self

    def send(self, verb: str, path: str = "", body: Any = None, **headers: str) -> Answer:
        return self.service.request(verb, self.path + path, body, **headers)

    def push(self, gradients: Json, *, headers: dict[str, str] | None = None, **facts: Any) -> Answer:
        """A push as JSON."""
        return self.send("POST", "/gradients", {"gradients": gradients, **facts}, **(headers or {}))

    def push_bytes(self, body: bytes | Arrays, query: str = "", **headers: str) -> Answer:
        """A push as safetensors."""
        body = body if isinstance(body, bytes) else save(body)
        headers = {"Content_Type": SAFETENSORS, **headers}
        return self.send("POST", f"/gradients?{query}", body, **headers)

    def describe(self) -> Json:
        described: Json = self.send("GET").json
        return described

    def pull(self) -> Json:
        """The parameters as nested lists."""
        answer = self.send("GET", "/parameters")
        assert answer.status == 200, answer
        pulled: Json = answer.json["parameters"]
        return pulled

    def state(self) -> Arrays:
        return load(self.service.state(self.name))

    def evidence(self) -> tuple[Json, Json, bytes]:
        """Everything the service says of the model, but for what a snapshot in the background changes."""
        described, ledger = self.describe(), self.send("GET", "/entries").json
        for saved in (described, ledger):
            del saved["saved_offset"]
        del ledger["entries"]
        return described, ledger, self.service.state(self.name)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Asserts that what happens inside leaves no trace in the model."""
        before = self.evidence()
        yield
        assert self.evidence() == before


def refused(answer: Answer, status: int, slug: str) -> Json:
    """The members of a problem, which must be of this status and type and say what a problem must say."""
    assert (answer.status, answer.problem) == (status, slug), answer
    problem: Json = answer.json
    assert problem["status"] == status
    for member in ("type", "title", "detail", "request_id"):
        assert isinstance(problem[member], str), member
        assert problem[member], member
    assert answer.headers["x-request-id"] == problem["request_id"]
    assert len(answer.data) < 8192, "a problem quotes the request briefly, however long it was"
    return problem


def say(
    service: Service, *parts: bytes, close: bool = False, pause_s: float = 0.0
) -> tuple[int, dict[str, str], bytes]:
    """Sends bytes as they are on a connection of its own; the answer's status, headers and body.

    It pauses before each part. With `close` it hangs up after sending and hears nothing: (0, {}, b"").
    """
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        for part in parts:
            time.sleep(pause_s)
            line.sendall(part)
        if close:
            return 0, {}, b""
        with line.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            headers: dict[str, str] = {}
            while (text := answer.readline().strip()) != b"":
                name, _, value = text.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            return status, headers, answer.read(int(headers.get("content-length", "0")))


def whole_answer(service: Service, request: bytes) -> bytes:
    """One answer as it came over the wire."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        line.sendall(request)
        return answers(line, 1)[0]


def answers(line: socket.socket, count: int) -> list[bytes]:
    """So many answers as they come, and nothing behind them."""
    heard = b""
    found: list[bytes] = []
    while len(found) < count:
        end = heard.find(b"\r\n\r\n") + 4
        length = re.search(rb"content-length: (\d+)", heard[:end], re.IGNORECASE)
        nbytes = end + (int(length[1]) if length else 0)
        if end > 3 and len(heard) >= nbytes:
            found.append(heard[:nbytes])
            heard = heard[nbytes:]
            continue
        more = line.recv(1 << 18)
        assert more, f"the line ended behind {len(found)} answers and {heard[:300]!r}"
        heard += more
    assert not heard
    return found


def spoken_refusal(told: tuple[int, dict[str, str], bytes], status: int, slug: str) -> Json:
    """As `refused`, for what `say` heard."""
    return refused(Answer(told[0], told[1], told[2]), status, slug)


def head(verb: str, path: str, **headers: str | int) -> bytes:
    """A request's first lines; header names use underscores."""
    lines = [
        f"{verb} {path} HTTP/1.1",
        "Host: here",
        *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def quoted(name: str) -> str:
    """Every byte as %XX, so that no client or server tidies the path up."""
    return "".join(f"%{byte:02X}" for byte in name.encode())
