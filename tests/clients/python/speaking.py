"""A server that does with each connection what a test says, byte by byte."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Story = Callable[[socket.socket], None]

RECEIVE_BYTES = 512 << 10  # several of the loopback's packets, or each would be waited for
JOIN_S = 5.0


@contextmanager
def speaking(story: Story, terms: ssl.SSLContext | None = None) -> Iterator[int]:
    """Its port; each connection is closed when its story ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        server = threading.Thread(target=_serve, args=(listener, story, terms), daemon=True)
        server.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            server.join(JOIN_S)


def _serve(listener: socket.socket, story: Story, terms: ssl.SSLContext | None) -> None:
    with suppress(OSError):  # the listener was shut down
        while True:
            accepted, _ = listener.accept()
            with suppress(OSError), accepted if terms is None else _secured(accepted, terms) as connection:
                story(connection)


def _secured(accepted: socket.socket, terms: ssl.SSLContext) -> socket.socket:
    try:
        return terms.wrap_socket(accepted, server_side=True)
    except OSError:  # the client does not like what it sees
        accepted.close()
        raise


def head(connection: socket.socket) -> bytes:
    """A request's head, and what came with it of its body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(connection)
    return received


def body(connection: socket.socket, nbytes: int) -> None:
    """Reads so much of a body."""
    while nbytes:
        nbytes -= len(_some(connection, nbytes))


def answer(connection: socket.socket, body: bytes, status: str = "200 OK", *more: str) -> None:
    """One answer, whole."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *more]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def _some(connection: socket.socket, most: int = 1 << 20) -> bytes:
    if not (piece := connection.recv(min(most, 1 << 20))):
        raise ConnectionResetError
    return piece
