"""Small requests that arrive whole take a shortcut past the parser: nobody can tell from the answers."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from gradledger_server.api.whole import head_of
from tests.api.talk import SGD, Model, dumps, head, say
from tests.service import SAFETENSORS, Service

GRADIENT = save({"b": np.ones(3)})
JSON = "application/json"


def pushed(model: Model, body: bytes, query: str, **headers: str | int) -> bytes:
    headers = {"Content_Type": SAFETENSORS, "Content_Length": len(body), **headers}
    return head("POST", f"{model.path}/gradients{query}", **headers) + body


def asked(model: Model, query: str = "", **headers: str | int) -> bytes:
    return head("GET", f"{model.path}/parameters{query}", **headers)


SAID: dict[str, Callable[[Model], bytes]] = {
    "a push": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1"),
    "a push with everything": lambda m: pushed(
        m,
        GRADIENT,
        "?worker=w:1.x_-&sequence=1&base=0",
        Accept=SAFETENSORS,
        X_Request_ID="mine",
        Prefer="wait=1",
    ),
    "a push in another order": lambda m: pushed(m, GRADIENT, "?sequence=1&weight=0.5&worker=w"),
    "a push that nobody names": lambda m: pushed(m, GRADIENT, ""),
    "a push with a key": lambda m: pushed(m, GRADIENT, "", Idempotency_Key='"k"'),
    "a key that is none": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1", Idempotency_Key="\xff"),
    "a push by JSON": lambda m: pushed(m, dumps({"gradients": {"b": [1, 2, 3]}}), "", Content_Type=JSON),
    "its receipt alone": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1", Prefer="return=minimal"),
    "an answer by JSON": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1", Accept=JSON),
    "a condition that fails": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1", If_Match='"x.1"'),
    "a gap": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=3"),
    "half a name": lambda m: pushed(m, GRADIENT, "?worker=w"),
    "a name twice": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1&worker=v"),
    "an unknown fact": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1&wight=2"),
    "a number too large": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=99999999999999999999"),
    "a base to come": lambda m: pushed(m, GRADIENT, "?worker=w&sequence=1&base=7"),
    "no form": lambda m: pushed(m, GRADIENT, "", Content_Type="text/plain"),
    "no acceptable form": lambda m: pushed(m, GRADIENT, "", Accept="image/png"),
    "a wait that is none": lambda m: pushed(m, GRADIENT, "", Prefer="wait=soon"),
    "a body that is none": lambda m: pushed(m, GRADIENT[:40], "?worker=w&sequence=1"),
    "no body": lambda m: pushed(m, b"", "?worker=w&sequence=1"),
    "infinity": lambda m: pushed(m, save({"b": np.full(3, np.inf)}), "?worker=w&sequence=1"),
    "an unknown tensor": lambda m: pushed(m, save({"c": np.ones(3)}), "?worker=w&sequence=1"),
    "a model that is not there": lambda m: head("GET", m.path + "-/parameters"),
    "a pull": asked,
    "a pull by safetensors": lambda m: asked(m, Accept=SAFETENSORS),
    "a pull of a view that is none": lambda m: asked(m, "?view=eva"),
    "a pull of a misspelt view": lambda m: asked(m, "?wiew=ema"),
    "a pull of two views": lambda m: asked(m, "?view=train&view=ema"),
    "a pull that says what goes without saying": lambda m: asked(m, Connection="Keep-Alive"),
    "a pull with a length": lambda m: asked(m, Content_Length=0),
    "two lines of one header": lambda m: asked(m, Accept="text/html").replace(
        b"\r\n\r\n", b"\r\nAccept: */*\r\n\r\n"
    ),
}
PASSING = {"date", "server-timing", "x-request-id", "etag", "receipt"}


def told_of(members: dict[str, object], model: Model) -> object:
    """A problem's members without the model's name and epoch."""
    return json.loads(re.sub(r"[0-9a-f]{16}", "", json.dumps(members).replace(model.name, "")))


def seen(model: Model, told: tuple[int, dict[str, str], bytes]) -> object:
    """An answer without what tells two equal models apart."""
    status, headers, body = told
    lasting = {name: value for name, value in headers.items() if name not in PASSING}
    receipt = json.loads(headers["receipt"]) | {"epoch": ""} if "receipt" in headers else None
    if headers.get("content-type") == "application/problem+json":
        members = json.loads(body)
        assert members.pop("request_id") == headers["x-request-id"]
        del lasting["content-length"]
        return status, lasting, told_of(members, model)
    if headers.get("content-type") == JSON:
        members = json.loads(body)
        members.get("receipt", {}).pop("epoch", None)
        return status, lasting, members
    return status, lasting, receipt, body


@pytest.mark.parametrize("saying", SAID)
def test_both_ways_lead_to_the_same_answer(service: Service, new: Model, saying: str) -> None:
    """A head that comes in two pieces goes through the parser."""
    answers = []
    for name in ("whole", "pieces"):
        values = {"b": {"values": [1.0, 2.0, 3.0], "dtype": "F64"}}
        model = Model(service, f"{new.name}.{name}").create(values, SGD)
        request = SAID[saying](model)
        parts = [request] if name == "whole" else [request[:30], request[30:]]
        assert (head_of(parts[0]) is not None) == (name == "whole")
        answers.append(seen(model, say(service, *parts, pause_s=0.02)))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "line",
    [
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
        "Connection: close",
        "Content-Length: 70, 70",
        "Content-Length: 1000000",
        "Content-Length: +70",
        "Upgrade: websocket",
        "Connection: keep-alive, upgrade",
        "Connection: upgrade\r\nUpgrade: h2c",
        "Connection: keep-alive\r\nConnection: close",
        "Proxy-Connection: close",
        "Host: here\n\nGET /v1/models/m/parameters HTTP/1.1\r\nHost: here",
        "Host: here\nX: y",
        "Content-Length: 0\r\nContent-Length: 0",
        "Not a header",
        "Broken : name",
        "X-Nul: \0",
    ],
)
def test_what_is_unusual_is_left_to_the_parser(line: str) -> None:
    usual = b"GET /v1/models/m/parameters HTTP/1.1\r\nHost: here\r\n\r\n"
    assert head_of(usual) is not None
    assert head_of(usual.replace(b"Host: here", line.encode())) is None


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v1/models/m/parameters HTTP/1.0",
        b"GET /v1/models/m/parameters?a b HTTP/1.1",
        b"GET /v1/models/m/parameters?a#b HTTP/1.1",
        b"GET /v1/models/%6D/parameters HTTP/1.1",
        b"GET /v1/models/m/parameters/w HTTP/1.1",
        b"GET /v1/models/m/gradients HTTP/1.1",
        b"PUT /v1/models/m/parameters HTTP/1.1",
        b"get /v1/models/m/parameters HTTP/1.1",
        b"GET  /v1/models/m/parameters HTTP/1.1",
        b"GET http://here/v1/models/m/parameters HTTP/1.1",
    ],
)
def test_so_is_any_other_target(line: bytes) -> None:
    assert head_of(line + b"\r\nHost: here\r\n\r\n") is None


def test_requests_sent_at_once_are_answered_in_their_order(service: Service, model: Model) -> None:
    """Behind the one being served they wait, however they were cut."""
    said = b"".join(
        pushed(model, GRADIENT, f"?worker=w&sequence={i}", Prefer="return=minimal") for i in range(1, 7)
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        first = len(said) // 6
        line.sendall(said[:first])  # whole, so it takes the shortcut
        line.sendall(said[first : 2 * first + 50])
        time.sleep(0.05)
        line.sendall(said[2 * first + 50 :])
        heard = b""
        while heard.count(b'"replayed":false') < 6:
            received = line.recv(1 << 16)
            assert received, heard
            heard += received
    places = [heard.index(b'"sequence":%d' % i) for i in range(1, 7)]
    assert places == sorted(places)
    assert model.describe()["step"] == 6


def test_a_body_behind_its_head_is_waited_for(service: Service, model: Model) -> None:
    request = pushed(model, GRADIENT, "?worker=w&sequence=1")
    cuts = [request.index(b"\r\n\r\n") + 4, len(request) - 5]
    told = say(service, request[: cuts[0]], request[cuts[0] : cuts[1]], request[cuts[1] :], pause_s=0.02)
    assert told[0] == 200
    assert model.describe()["step"] == 1


def test_a_client_that_hangs_up_while_it_waits_disturbs_nobody(service: Service, model: Model) -> None:
    etag = model.send("GET", "/parameters").headers["etag"]
    say(service, asked(model, If_None_Match=etag, Prefer="wait=20"), close=True)
    say(service, pushed(model, GRADIENT, "?worker=w&sequence=1")[:-5], close=True)
    assert model.push({"b": [1, 1, 1]}).status == 200
    assert model.describe()["step"] == 1


def test_a_large_answer_to_a_slow_reader_is_whole(service: Service, new: Model) -> None:
    values = np.arange(4 << 20, dtype=np.float32)
    new.create({"w": {"shape": [values.size], "dtype": "F32"}})
    assert new.send("PUT", "/parameters", save({"w": values}), Content_Type=SAFETENSORS).status == 200
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        line.sendall(asked(new, Accept=SAFETENSORS))
        time.sleep(0.3)
        heard = b""
        while not heard.endswith(values[-4:].tobytes()) and (received := line.recv(1 << 20)):
            heard += received
    assert heard.endswith(values.tobytes())


def test_a_push_whose_body_is_on_its_way_is_answered_when_the_service_ends(tmp_path: Path) -> None:
    with Service(tmp_path) as ending:
        model = Model(ending, "m").create({"w": {"shape": [50_000]}}, SGD)
        values = save({"w": np.zeros(50_000, np.float32)})
        assert model.send("PUT", "/parameters", values, Content_Type=SAFETENSORS).status == 200
        request = pushed(model, values, "?worker=w&sequence=1", Prefer="return=minimal")
        half = len(request) // 2
        with socket.create_connection(("127.0.0.1", ending.port), timeout=10) as line:
            line.sendall(request[:half])
            time.sleep(0.2)
            stopping = threading.Thread(target=lambda: ending.signal(signal.SIGTERM))
            stopping.start()
            time.sleep(0.1)
            line.sendall(request[half:])
            heard = line.recv(1 << 16)
            stopping.join(20)
        assert heard.startswith(b"HTTP/1.1 200"), heard


def test_who_waits_is_answered_when_the_service_ends(tmp_path: Path) -> None:
    with Service(tmp_path) as ending:
        model = Model(ending, "m").create({"b": {"values": [1.0, 2.0, 3.0], "dtype": "F64"}}, SGD)
        etag = model.send("GET", "/parameters").headers["etag"]
        heard: list[int] = []
        request = asked(model, If_None_Match=etag, Prefer="wait=30")
        waiting = threading.Thread(target=lambda: heard.append(say(ending, request)[0]))
        waiting.start()
        time.sleep(0.3)
        assert ending.signal(signal.SIGTERM) == 0
        waiting.join(10)
    assert heard == [304]
