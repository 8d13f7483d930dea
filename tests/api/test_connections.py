"""A connection as a whole: requests behind requests, offers of another protocol, clients that say no more."""

from __future__ import annotations

import socket
import time
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import save

from tests.api.talk import Model, answers, dumps, head, say
from tests.service import SAFETENSORS, Service

GRADIENT = save({"b": np.ones(3)})
OFFER: dict[str, Any] = {
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2_Settings": "AAEAAEAAAAIAAAABAAMAAABk",
}
MIB = 1 << 20


def connected(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=10)


def pushed(model: Model, sequence: int, body: bytes = GRADIENT, **headers: Any) -> tuple[bytes, bytes]:
    """A push's head and body."""
    path = f"{model.path}/gradients?worker=w&sequence={sequence}"
    return head("POST", path, Content_Type=SAFETENSORS, Content_Length=len(body), **headers), body


@pytest.mark.parametrize("cut", ["whole", "body apart", "head apart"])
def test_an_offer_of_another_protocol_is_not_taken_up(service: Service, model: Model, cut: str) -> None:
    """As Java's client makes one with its first request: the answer is HTTP/1.1, and so is what follows."""
    first, body = pushed(model, 1, **OFFER)
    parts = {
        "whole": [first + body],
        "body apart": [first, body],
        "head apart": [first[:30], first[30:] + body],
    }
    spec = dumps({"optimizer": {"rule": "sgd"}, "parameters": {"w": [1.0]}})
    with connected(service) as line:
        for part in parts[cut]:
            line.sendall(part)
            time.sleep(0.02)
        assert answers(line, 1)[0].startswith(b"HTTP/1.1 200 OK")
        for request in (
            head("GET", f"{model.path}/parameters", **OFFER),
            head(
                "PUT",
                f"{model.path}-java",
                Content_Length=len(spec),
                Content_Type="application/json",
                **OFFER,
            )
            + spec,
            b"".join(pushed(model, 2)),
        ):
            line.sendall(request)
            assert answers(line, 1)[0].startswith(b"HTTP/1.1 20"), request
    assert model.describe()["step"] == 2
    assert service.request("DELETE", f"{model.path}-java").status == 204


def test_a_large_body_behind_such_an_offer_lands(service: Service, new: Model) -> None:
    new.create({"b": {"shape": [400_000], "dtype": "F64"}})
    body = save({"b": np.ones(400_000)})
    line = head("PUT", f"{new.path}/parameters", Content_Type=SAFETENSORS, Content_Length=len(body), **OFFER)
    assert say(service, line, body[:100_000], body[100_000:], pause_s=0.02)[0] == 200
    np.testing.assert_array_equal(new.state()["param/b"], np.ones(400_000))


def test_a_header_cut_where_it_looks_like_a_request_is_none(service: Service, model: Model) -> None:
    """What is behind another request in one packet begins the next one, whatever its rest looks like."""
    trap = b"".join(pushed(model, 1))
    with model.untouched(), connected(service) as line:
        line.sendall(head("GET", "/livez") + b"GET /v1 HTTP/1.1\r\nHost: here\r\nX-Note: ")
        answers(line, 1)
        line.sendall(trap)
        assert b'"name":"gradledger"' in answers(line, 1)[0].replace(b" ", b"")


def test_who_asks_and_asks_and_does_not_listen_is_not_read(service: Service, new: Model) -> None:
    """Else what it has asked would be kept in memory without bound."""
    new.create({"b": {"values": [0.0] * 1000, "dtype": "F64"}})
    assert service.process is not None
    process = psutil.Process(service.process.pid)
    before, sent, count = process.memory_info().rss, 0, 0
    body = save({"b": np.ones(1000)})
    with connected(service) as line:
        line.settimeout(1.0)
        try:
            while sent < 64 * MIB:
                count += 1
                request = b"".join(pushed(new, count, body))
                sent += line.send(request)
        except TimeoutError:
            pass
        assert sent < 32 * MIB, "the sockets on the way hold less"
        assert process.memory_info().rss - before < 64 * MIB


def test_requests_sent_ahead_are_answered_one_after_the_other(service: Service, new: Model) -> None:
    """As many as the sockets hold, and small ones that come by the thousand in one packet."""
    new.create({"b": {"values": [0.0], "dtype": "F64"}})
    body = save({"b": np.ones(1)})
    asked = [head("GET", "/livez") + b"".join(pushed(new, sequence, body)) for sequence in range(1, 501)]
    with connected(service) as line:
        line.sendall(b"".join(asked))
        told = answers(line, 1000)
    assert all(answer.startswith(b"HTTP/1.1 200 OK") for answer in told)
    assert [b'"sequence":%d,' % (index + 1) in answer for index, answer in enumerate(told[1::2])].count(
        True
    ) == 500
    assert new.describe()["step"] == 500


@pytest.mark.parametrize("cut", [0, 30], ids=["shortcut", "parser"])
def test_who_says_no_more_hears_what_became_of_its_push(service: Service, model: Model, cut: int) -> None:
    request = b"".join(pushed(model, 1))
    with connected(service) as line:
        line.sendall(request[:cut])
        time.sleep(0.02)
        line.sendall(request[cut:])
        line.shutdown(socket.SHUT_WR)
        assert answers(line, 1)[0].startswith(b"HTTP/1.1 200 OK")
        assert line.recv(1) == b""
    assert model.describe()["step"] == 1
