"""Bodies that are not as long as declared, or not declared at all: spoken on a bare connection."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import save

from tests.api.talk import SGD, Model, dumps, head, refused, say, spoken_refusal
from tests.service import SAFETENSORS, Service

BODY = save({"b": np.ones(3)})
GIB = 1 << 30


def push_head(model: Model, **headers: str | int) -> bytes:
    return head("POST", model.path + "/gradients?worker=w0&sequence=1", Content_Type=SAFETENSORS, **headers)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_push_said_by_hand(service: Service, model: Model) -> None:
    status, headers, body = say(service, push_head(model, Content_Length=len(BODY)), BODY)
    assert (status, headers["content-type"]) == (200, SAFETENSORS)
    assert len(body) == int(headers["content-length"])


def test_a_body_in_two_pieces_is_whole(service: Service, model: Model) -> None:
    assert say(service, push_head(model, Content_Length=len(BODY)), BODY[:50], BODY[50:])[0] == 200


@pytest.mark.parametrize("sent", [0, 1, len(BODY) - 1])
def test_a_body_cut_off_by_the_client_is_no_push(service: Service, model: Model, sent: int) -> None:
    with model.untouched():
        say(service, push_head(model, Content_Length=len(BODY)), BODY[:sent], close=True)
        time.sleep(0.05)
    assert service.request("GET", "/livez").status == 200


def test_a_client_that_leaves_before_the_answer_has_pushed(service: Service, model: Model) -> None:
    """Its retry gets the receipt: nothing was lost, nothing counts twice."""
    say(service, push_head(model, Content_Length=len(BODY)), BODY, close=True)
    eventually(lambda: model.describe()["step"] == 1)
    assert model.push_bytes(BODY, "worker=w0&sequence=1").receipt["replayed"] is True


def test_a_body_longer_than_declared_is_cut_to_what_was_declared(service: Service, model: Model) -> None:
    with model.untouched():
        told = say(service, push_head(model, Content_Length=len(BODY) - 8), BODY)
        spoken_refusal(told, 400, "malformed-body")


def test_what_follows_a_body_is_another_request(service: Service, model: Model) -> None:
    """And if it is none, a problem is all it gets."""
    line = push_head(model, Content_Length=len(BODY)) + BODY
    assert say(service, line + BODY)[0] == 200
    assert model.describe()["step"] == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost here\r\n\r\n",
        head("POST", "/v1", Content_Length="ten"),
        head("POST", "/v1", Content_Length="-1"),
        head("POST", "/v1", Content_Length="1", Transfer_Encoding="chunked"),
        head("POST", "/v1", Content_Length="9" * 30),
        b"GET /v1/\xffmodels HTTP/1.1\r\nHost: here\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_a_problem(service: Service, nonsense: bytes) -> None:
    status, headers, body = say(service, nonsense)
    assert (status, headers["content-type"], headers["connection"]) == (
        400,
        "application/problem+json",
        "close",
    )
    assert b'"/problems/malformed-request"' in body


@pytest.mark.parametrize("line", [b"X-%d: 1\r\n", b"%d"])
def test_a_head_without_an_end_is_refused(service: Service, line: bytes) -> None:
    """Whether it is many headers or a single one."""
    piece = b"".join(line % number for number in range(10_000, 20_000))[:40_000]
    told = say(service, b"GET /livez HTTP/1.1\r\nX: ", piece, piece, b"more", pause_s=0.1)
    assert "65536 bytes" in spoken_refusal(told, 400, "malformed-request")["detail"]


def test_a_long_body_is_no_long_head(service: Service, new: Model) -> None:
    new.create({"w": {"shape": [100_000]}})
    body = save({"w": np.ones(100_000, np.float32)})
    line = head("PUT", new.path + "/parameters", Content_Type=SAFETENSORS, Content_Length=len(body))
    pieces = [body[at : at + 40_000] for at in range(0, len(body), 40_000)]
    assert say(service, line, *pieces)[0] == 200
    assert say(service, line + body + head("GET", "/livez"))[0] == 200


@pytest.mark.parametrize(
    ("verb", "path", "form"),
    [
        ("POST", "/gradients", SAFETENSORS),
        ("PUT", "/parameters", SAFETENSORS),
        ("POST", "/gradients", "application/json"),
        ("PUT", "/parameters", "application/json"),
        ("PUT", "", "application/json"),
        ("PATCH", "", "application/json"),
    ],
)
def test_a_length_must_be_declared(service: Service, model: Model, verb: str, path: str, form: str) -> None:
    with model.untouched():
        bare = head(verb, model.path + path, Content_Type=form)
        spoken_refusal(say(service, bare), 411, "length-required")
        chunked = head(verb, model.path + path, Content_Type=form, Transfer_Encoding="chunked")
        spoken_refusal(say(service, chunked + b"2\r\n{}\r\n0\r\n\r\n"), 411, "length-required")


@pytest.mark.parametrize("declared", [10 * GIB, 10**18 - 1, 64 << 20])
@pytest.mark.parametrize("path", ["/gradients", "/parameters"])
@pytest.mark.parametrize("form", [SAFETENSORS, "application/json"])
def test_more_than_the_model_can_need_is_refused_unread(
    service: Service, model: Model, declared: int, path: str, form: str
) -> None:
    verb = "POST" if path == "/gradients" else "PUT"
    with model.untouched():
        line = head(verb, model.path + path, Content_Type=form, Content_Length=declared)
        told = say(service, line)
        problem = spoken_refusal(told, 413, "body-too-large")
        assert problem["got"] == declared > problem["limit"]
        advice = "Send each of the model's tensors once" if form == SAFETENSORS else "JSON is for small ones"
        assert problem["hint"].startswith(advice)
        assert told[1]["connection"] == "close"


def test_a_length_of_more_digits_than_any_disk(service: Service, model: Model) -> None:
    told = say(service, push_head(model, Content_Length=10**18))
    assert spoken_refusal(told, 400, "malformed-request")


def test_a_spec_is_bounded_too(service: Service, new: Model) -> None:
    line = head("PUT", new.path, Content_Type="application/json", Content_Length=1 * GIB)
    spoken_refusal(say(service, line), 413, "body-too-large")


def test_a_client_that_asks_first_is_told_before_it_sends(service: Service, model: Model) -> None:
    asking: dict[str, str | int] = {"Expect": "100-continue", "Content_Length": 10 * GIB}
    spoken_refusal(say(service, push_head(model, **asking)), 413, "body-too-large")
    asking["Content_Length"] = len(BODY)
    assert say(service, push_head(model, **asking))[0] == 100


def test_an_unread_body_does_not_poison_the_connection(service: Service, model: Model) -> None:
    """A refusal that did not read the body skips it: the next request on the connection is understood."""
    large = b"x" * 300_000
    missing = head(
        "POST", "/v1/models/missing/gradients", Content_Type=SAFETENSORS, Content_Length=len(large)
    )
    spoken_refusal(say(service, missing + large + head("GET", "/livez")), 404, "model-not-found")
    refused(model.push_bytes(large, Content_Type="text/plain"), 415, "unsupported-media-type")
    assert service.request("GET", "/livez").status == 200


@pytest.mark.parametrize("host", ["[", "a b", "x:y:z", "[::1", "\xff", ""])
def test_a_strange_host_changes_nothing(service: Service, host: str) -> None:
    for path in ("/nothing", "/v1/models/", "/docs/"):
        line = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")
        spoken_refusal(say(service, line), 404, "not-found")


def test_a_slow_client_keeps_nobody_waiting(service: Service, model: Model) -> None:
    """Half a body arrives and then nothing: others push on meanwhile."""
    import socket

    with socket.create_connection(("127.0.0.1", service.port)) as slow:
        slow.sendall(push_head(model, Content_Length=len(BODY)) + BODY[:40])
        spec = {"optimizer": SGD, "parameters": {"w": [0.0]}}
        sized = head(
            "PUT", model.path + ".slow", Content_Type="application/json", Content_Length=len(dumps(spec))
        )
        assert say(service, sized, dumps(spec))[0] == 201
        assert model.push({"b": [1.0, 1.0, 1.0]}).json["step"] == 1
        slow.sendall(BODY[40:])
        eventually(lambda: model.describe()["step"] == 2)


def test_trailers_without_end_are_not_collected(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connected:
        connected.sendall(head("GET", "/livez", Transfer_Encoding="chunked") + b"0\r\n")
        received = b""
        with contextlib.suppress(ConnectionError):  # the service has hung up on us
            for _ in range(2000):
                connected.sendall(b"a: " + b"x" * 8000 + b"\r\n")
        with contextlib.suppress(ConnectionError):
            while piece := connected.recv(65536):
                received += piece
    assert not received or b"connection: close" in received.lower()
    assert service.request("GET", "/livez").status == 200
