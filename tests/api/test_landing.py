"""Bodies that land in the app's own memory, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from gradledger_server.api.whole import LANDING
from gradledger_server.server import PROTOCOL

SEEN: list[Any] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers the body. /plain receives it as any app does; /refuse does not read it; /fail fails midway."""
    length = int(dict(scope["headers"]).get(b"content-length", b"0"))
    status, body = 200, bytearray(length)
    landing = scope["extensions"][LANDING]
    if scope["path"] == "/plain":
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
    elif scope["path"] == "/refuse":
        status, body = 413, bytearray(b"no")
    elif scope["path"] == "/timeout":
        try:
            await asyncio.wait_for(landing(memoryview(body)), 0.1)
        except TimeoutError:
            SEEN.append("gave up")
            raise RuntimeError from None
    else:
        try:
            await landing(memoryview(body))
        except BaseException as error:
            SEEN.append(type(error).__name__)
            raise
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(body)})


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, loop=request.param, http=PROTOCOL, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    server.config.load()
    thread.start()
    yield listener.getsockname()[1]
    server.lifespan.state["leaving"] = asyncio.Event()
    server.should_exit = True
    thread.join()


def answer(connected: socket.socket) -> tuple[int, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connected.recv(65536)
        assert piece, data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connected.recv(1 << 20)
    return int(head[9:12]), body[:length]


def post(path: str, body: bytes, headers: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def big(seed: int, n: int = 3_000_001) -> bytes:
    return bytes((seed + i * 7) % 251 for i in range(1000)) * (n // 1000)


@pytest.mark.parametrize("size", [0, 1, 1000, 65_000, 66_000, 300_000, 3_000_000])
def test_bodies_of_every_size_on_one_connection(port: int, size: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as c:
        for seed, path in enumerate(["/", "/", "/plain", "/"]):
            body = big(seed)[:size]
            c.sendall(post(path, body))
            assert answer(c) == (200, body)


def test_a_body_in_drops(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as c:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = big(5)[:50_000]
        request = post("/", body)
        for start in range(0, len(request), 997):
            c.sendall(request[start : start + 997])
            time.sleep(0.0005)
        assert answer(c) == (200, body)


def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    bodies = [big(1)[:200_000], b"x", big(2)[:500_000], big(3)[:10]]
    with socket.create_connection(("127.0.0.1", port)) as c:
        sender = threading.Thread(target=c.sendall, args=(b"".join(post("/", b) for b in bodies),))
        sender.start()
        c.settimeout(10)
        stream = c.makefile("rb")
        for body in bodies:
            assert stream.readline().startswith(b"HTTP/1.1 200")
            while stream.readline() != b"\r\n":
                pass
            assert stream.read(len(body)) == body
        sender.join()


def test_expect_100_continue(port: int) -> None:
    body = big(1)
    with socket.create_connection(("127.0.0.1", port)) as c:
        request = post("/", body, "Expect: 100-continue\r\n")
        c.sendall(request[: -len(body)])
        assert c.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        c.sendall(body)
        assert answer(c) == (200, body)


def test_a_client_that_hangs_up_in_the_middle(port: int) -> None:
    SEEN.clear()
    with socket.create_connection(("127.0.0.1", port)) as c:
        c.sendall(post("/", big(1))[:1_000_000])
        time.sleep(0.1)
    deadline = time.monotonic() + 5
    while not SEEN and time.monotonic() < deadline:
        time.sleep(0.01)
    assert SEEN == ["ClientDisconnect"]


def test_giving_up_in_the_middle_closes_the_connection(port: int) -> None:
    SEEN.clear()
    with socket.create_connection(("127.0.0.1", port)) as c:
        c.sendall(post("/timeout", big(1))[:1_000_000])
        c.settimeout(5)
        with pytest.raises(ConnectionResetError):
            while c.recv(65536):
                pass
            raise ConnectionResetError
    deadline = time.monotonic() + 5
    while not SEEN and time.monotonic() < deadline:
        time.sleep(0.01)
    assert SEEN == ["gave up"]


def test_a_refusal_before_the_body_leaves_the_connection_usable(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as c:
        c.sendall(post("/refuse", big(1)[:200_000]))
        assert answer(c) == (413, b"no")
        c.sendall(post("/", b"abc"))
        assert answer(c) == (200, b"abc")


def test_many_connections_share_the_room(port: int) -> None:
    failures: list[Any] = []

    def work(seed: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as c:
            for i in range(20):
                body = big(seed * 31 + i)[: (seed * 7919 + i * 104_729) % 700_000]
                c.sendall(post("/", body))
                if answer(c) != (200, body):
                    failures.append((seed, i))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_answer_without_a_body_does_not_wait_for_one(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as c:
        c.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert c.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
