"""A keep-alive HTTP connection that costs the measuring side as little as Python allows."""

from __future__ import annotations

import socket
import time

HEAD_BYTES = 16 << 10  # of an answer, at most
SMALL_BYTES = 64 << 10  # such a body goes out in one packet with its head
PATIENCE_S = 2.0  # a server hangs up on who was silent for longer than a few seconds: uvicorn after 5
WELCOME = ("http/1.1 2", "http/1.1 304")  # how an answer to a request that was understood begins

Parts = list[bytes | memoryview]  # of a request, as they go out


class Connection:
    """One socket, and memory for answers that is used again and again.

    Whoever had to wait for other cases' turns connects anew.
    """

    def __init__(self, port: int, answer_bytes: int) -> None:
        self._port, self._socket, self._used_at = port, connect(port), time.perf_counter()
        self._memory = memoryview(bytearray(HEAD_BYTES + answer_bytes))

    def request(self, method: str, target: str, headers: str, body: bytes | memoryview) -> memoryview:
        """The answer's body, valid until the next request. `headers` are whole lines.

        Raises RuntimeError if the status is neither 2xx nor 304.
        """
        if time.perf_counter() - self._used_at > PATIENCE_S:
            self.close()
            self._socket = connect(self._port)
        head = request_head(method, target, headers, len(body))
        if len(body) <= SMALL_BYTES:
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head, socket.MSG_MORE)
            self._socket.sendall(body)
        answer = self._answer()
        self._used_at = time.perf_counter()
        return answer

    def _answer(self) -> memoryview:
        memory, filled, end = self._memory, 0, -1
        while end < 0:
            filled += self._receive(memory[filled:])
            end = bytes(memory[: min(filled, HEAD_BYTES)]).find(b"\r\n\r\n")
        self.head = bytes(memory[:end]).decode("latin-1").lower()
        start = end + 4
        stop = start + self._length()
        while filled < stop:
            filled += self._receive(memory[filled:stop])
        if not self.head.startswith(WELCOME):
            raise RuntimeError(f"expected 2xx or 304, got {self.head!r} {bytes(memory[start:stop][:500])!r}")
        return memory[start:stop]

    def _length(self) -> int:
        _, found, rest = self.head.partition("\r\ncontent-length:")
        return int(rest.partition("\r\n")[0]) if found else 0

    def _receive(self, room: memoryview) -> int:
        received = self._socket.recv_into(room)
        if not received:
            raise RuntimeError("the peer hung up in the middle of an answer")
        return received

    def close(self) -> None:
        self._socket.close()


def request_head(method: str, target: str, headers: str, nbytes: int) -> bytes:
    """A request up to its body of `nbytes`. `headers` are whole lines."""
    return (
        f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {nbytes}\r\n\r\n"
    ).encode()


def connect(port: int) -> socket.socket:
    """A connection to this machine, tuned as the service's side is."""
    connected = socket.create_connection(("127.0.0.1", port))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected
