"""Who begins a request and does not go on is hung up on; who is slow, and who waits for us, is not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from gradledger import Client
from tests.api.talk import Model, dumps, head, say, spoken_refusal
from tests.service import SAFETENSORS, Service

STALL_S = 1.0
SIZES = {"parsed": 200, "landing in one block": 100_000, "large": 3_000_000}  # elements of F64


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Whose patience is short."""
    directory: Path = tmp_path_factory.mktemp("pace")
    with Service(directory, "--durability", "memory", GRADLEDGER_STALL_S=str(STALL_S)) as running:
        yield running


def push_of(model: Model, elements: int) -> tuple[bytes, bytes]:
    """The head and the body of a push."""
    body = save({"b": np.ones(elements)})
    path = model.path + "/gradients?worker=w0&sequence=1"
    return head("POST", path, Content_Type=SAFETENSORS, Content_Length=len(body)), body


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_half_a_body_is_given_up_and_its_repeat_counts(
    service: Service, new: Model, kind: str, share: float
) -> None:
    elements = SIZES[kind]
    new.create({"b": {"shape": [elements], "dtype": "F64"}})
    assert (
        new.send("PUT", "/parameters", save({"b": np.zeros(elements)}), Content_Type=SAFETENSORS).status
        == 200
    )
    first, body = push_of(new, elements)
    with new.untouched():
        told = say(service, first + body[: int(share * len(body))])
        problem = spoken_refusal(told, 408, "request-timeout")
        assert "8192 bytes/s for 1 s" in problem["detail"]
        assert problem["title"] == "The request was started but not finished in time"
        assert told[1]["connection"] == "close"
    assert say(service, first + body)[0] == 200


@pytest.mark.parametrize("begun", [b"G", b"POST /v1/models/m/gradients HTTP/1.1\r\nHost: a\r\n"])
def test_half_a_head_is_given_up(service: Service, begun: bytes) -> None:
    """Also one that grows byte by byte."""
    spoken_refusal(say(service, begun), 408, "request-timeout")
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        for byte in b"GET /livez HTTP/1.1\r\nX: " + b"y" * 100:
            try:
                line.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.1)
    assert time.monotonic() - began < 8 * STALL_S


def test_who_never_says_anything_is_hung_up_on_without_a_word(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        assert line.recv(100) == b""


def test_who_is_answered_before_the_end_and_stops_is_hung_up_on(service: Service, model: Model) -> None:
    """It gets the answer it has, and no second one."""
    line = head("POST", model.path + "/gradients", Content_Type=SAFETENSORS, Content_Length=1 << 40)
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as client:
        client.sendall(line)
        heard = b""
        while piece := client.recv(1 << 16):
            heard += piece
    assert heard.startswith(b"HTTP/1.1 413 ")
    assert heard.count(b"HTTP/1.1") == 1


def test_who_is_slow_and_goes_on_is_served(service: Service, model: Model) -> None:
    body = dumps({"gradients": {"b": [1.0, 2.0, 3.0]}}) + b" " * 40_000
    first = head("POST", model.path + "/gradients", Content_Type="application/json", Content_Length=len(body))
    pieces = [body[start : start + 2000] for start in range(0, len(body), 2000)]
    began = time.monotonic()
    assert say(service, first, *pieces, pause_s=0.15)[0] == 200
    assert time.monotonic() - began > 2 * STALL_S


def test_who_waits_for_news_or_for_its_next_question_owes_nothing(service: Service, model: Model) -> None:
    etag = model.send("GET", "/parameters").headers["etag"]
    waited = model.send("GET", "/parameters", If_None_Match=etag, Prefer="wait=3")
    assert waited.status == 304
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        line.sendall(head("GET", "/livez"))
        time.sleep(2.5 * STALL_S)
        line.sendall(head("GET", "/livez"))
        heard = line.recv(1 << 16)
        time.sleep(0.2)
        heard += line.recv(1 << 16)
    assert heard.count(b"HTTP/1.1 200 OK") == 2


def test_half_a_request_behind_one_that_is_at_work_is_waited_for(service: Service, model: Model) -> None:
    """Its client may owe the rest, but nothing is said to it in the middle of the answer it waits for."""
    etag = model.send("GET", "/parameters").headers["etag"]
    waits = head("GET", model.path + "/parameters", If_None_Match=etag, Prefer="wait=3")
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        line.sendall(waits + b"GET /li")
        time.sleep(0.1)
        line.sendall(b"v")
        heard = b""
        while piece := line.recv(1 << 16):
            heard += piece
    assert heard.startswith(b"HTTP/1.1 304 ")
    assert heard.count(b"HTTP/1.1 408 ") == 1, "and then it owes"


def test_the_others_do_not_notice(service: Service, new: Model) -> None:
    """A hundred half uploads, and pushes beside them."""
    new.create({"b": {"values": [0.0], "dtype": "F64"}})
    first, body = push_of(new, 1)
    begun = threading.Barrier(101)

    def half() -> None:
        with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
            line.sendall(first + body[:-1])
            begun.wait()
            assert line.recv(12) == b"HTTP/1.1 408"

    halves = [threading.Thread(target=half) for _ in range(100)]
    for each in halves:
        each.start()
    begun.wait()
    with Client(service.url, retry_for_s=0) as client:
        model = client.model(new.name)
        for _ in range(100):
            model.push({"b": np.ones(1)})
    for each in halves:
        each.join()
    assert new.describe()["step"] == 100
