"""The load generator counts answers, not packets, and believes no answer that is an error."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import takewhile

import pytest

from benchmarks.connection import Connection, Parts, request_head
from benchmarks.crowd import Crowd

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"


@contextmanager
def answering(pieces: list[bytes], seen: list[bytes], accepted: list[int] | None = None) -> Iterator[int]:
    """The port of a server that answers each request in these pieces, and notes bodies and connections."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if accepted is not None:
                accepted.append(connection.fileno())
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as lines:
            while head := b"".join(takewhile(lambda line: line != b"\r\n", iter(lines.readline, b""))):
                length = int(head.partition(b"Content-Length: ")[2].split()[0])
                seen.append(lines.read(length))
                for piece in pieces:
                    connection.sendall(piece)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def sending(body: bytes) -> Callable[[], Parts]:
    return lambda: [request_head("POST", "/", "", len(body)), body]


@pytest.mark.parametrize("pieces", [[GOOD], [GOOD[:5], GOOD[5:38], GOOD[38:41], GOOD[41:]]])
def test_every_request_is_sent_and_answered_once(pieces: list[bytes]) -> None:
    seen: list[bytes] = []
    bodies = [bytes([i]) * 10 for i in range(3)]
    with answering(pieces, seen) as port, Crowd(port, [sending(body) for body in bodies]) as crowd:
        assert crowd.run(11) > 0
        assert crowd.run(2) > 0  # fewer than there are connections
        assert 0 < crowd.load <= 1.5
    assert len(seen) == 13
    assert {*seen} == {*bodies}


def test_after_a_pause_it_connects_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers hang up on idle connections, and other cases' turns may be long."""
    accepted: list[int] = []
    with (
        answering([GOOD], [], accepted) as port,
        Crowd(port, [sending(b"x")] * 2) as crowd,
        closing(Connection(port, 10)) as connection,
    ):
        for patience_s, connected in ((60.0, 3), (60.0, 3), (0.0, 6)):
            for module in ("crowd", "connection"):
                monkeypatch.setattr(f"benchmarks.{module}.PATIENCE_S", patience_s)
            crowd.run(2)
            assert bytes(connection.request("POST", "/", "", b"x")) == b"0123456789"
            assert len(accepted) == connected


def test_a_body_larger_than_the_socket_takes_goes_out_whole() -> None:
    seen: list[bytes] = []
    body = bytes(range(256)) * (64 << 10)
    with answering([GOOD], seen) as port, Crowd(port, [sending(body)] * 2) as crowd:
        crowd.run(4)
    assert all(came == body for came in seen) and len(seen) == 4


def test_a_refusal_is_no_figure() -> None:
    refusal = b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n"
    with (
        answering([refusal], []) as port,
        Crowd(port, [sending(b"x")]) as crowd,
        pytest.raises(RuntimeError, match="409 Conflict"),
    ):
        crowd.run(1)
