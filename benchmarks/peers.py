"""The other ends of the limits, each a process of its own: bare TCP peers and a bare HTTP echo.

    python peers.py tcp <nbytes>     receives so many bytes and sends as many back, over and over
    python peers.py send <nbytes>    sends so many bytes for any request, over any number of connections
    python peers.py http             uvicorn, as the service runs it, with an app that echoes the body

Each prints its port, and ends when its standard input does: it cannot outlive whoever started it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]

REQUEST_BYTES = 4096  # a whole request comes at once: it is one small packet on this machine


def main(kind: str, *arguments: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=end_with_input, daemon=True).start()
    if kind == "tcp":
        return_bytes(listener, int(arguments[0]))
    elif kind == "send":
        send_bytes(listener, int(arguments[0]))
    else:
        serve_echo(listener)


def return_bytes(listener: socket.socket, nbytes: int) -> None:
    """One connection: `nbytes` in, `nbytes` out, until the peer hangs up. The memory is always the same."""
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    memory = memoryview(bytearray(nbytes))
    while True:
        filled = 0
        while filled < nbytes:
            received = connection.recv_into(memory[filled:])
            if not received:
                return
            filled += received
        connection.sendall(memory)


def send_bytes(listener: socket.socket, nbytes: int) -> None:
    """An HTTP answer, always the same memory, to whatever comes in; a thread for each connection."""
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {nbytes}\r\n\r\n".encode() + bytes(nbytes)

    def answering(connection: socket.socket) -> None:
        with connection:
            while connection.recv(REQUEST_BYTES):
                connection.sendall(answer)

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answering, args=(connection,), daemon=True).start()


def serve_echo(listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        echo, loop="uvloop", http="httptools", lifespan="off", log_config=None, access_log=False
    )
    uvicorn.Server(config).run(sockets=[listener])


async def echo(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """The least an ASGI app can do with a request."""
    assert scope["type"] == "http"
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
