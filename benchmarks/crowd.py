"""Many connections at once, from one thread: the load generator.

An epoll loop over keep-alive connections, each with one request in the air. Requests are bytes made
beforehand, but for the names of pushes; answers are read into one memory and dropped, their heads looked at
for length and status alone.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from benchmarks.connection import HEAD_BYTES, PATIENCE_S, WELCOME, Parts, connect

READ_BYTES = 1 << 20
WELCOMED = tuple(start.encode() for start in WELCOME)


class Crowd:
    """One connection for each of `requests`, which gives its next request. Use it as a context."""

    def __init__(self, port: int, requests: Sequence[Callable[[], Parts]]) -> None:
        self._port, self._requests = port, requests
        self._memory = memoryview(bytearray(READ_BYTES))
        self._wall_s = self._busy_s = self._used_at = 0.0
        self._connect()

    def run(self, count: int) -> float:
        """The seconds until `count` requests were answered, sent by whoever is free.

        After a pause all connect anew. Raises RuntimeError if an answer is neither 2xx nor 304.
        """
        if time.perf_counter() - self._used_at > PATIENCE_S:
            self.close()
            self._connect()
        started, busy = time.perf_counter(), time.thread_time()
        begun = min(count, len(self._lines))
        for line in list(self._lines.values())[:begun]:
            self._begin(line)
        answered = 0
        while answered < count:
            for fileno, events in self._poll.poll():
                line = self._lines[fileno]
                if events & select.EPOLLOUT:
                    self._send_on(line)
                if events & ~select.EPOLLOUT and line.receive(self._memory):
                    answered += 1
                    if begun < count:
                        begun += 1
                        self._begin(line)
        self._used_at = time.perf_counter()
        self._wall_s += self._used_at - started
        self._busy_s += time.thread_time() - busy
        return self._used_at - started

    @property
    def load(self) -> float:
        """The part of the time so far for which the generator itself kept a core busy."""
        return self._busy_s / self._wall_s

    def close(self) -> None:
        """Hangs up."""
        for line in self._lines.values():
            line.close()
        self._poll.close()

    def _connect(self) -> None:
        self._poll = select.epoll()
        lines = [_Line(self._port, request) for request in self._requests]
        self._lines = {line.fileno: line for line in lines}
        for fileno in self._lines:
            self._poll.register(fileno, select.EPOLLIN)
        self._used_at = time.perf_counter()

    def _begin(self, line: _Line) -> None:
        if not line.begin():
            self._poll.modify(line.fileno, select.EPOLLIN | select.EPOLLOUT)

    def _send_on(self, line: _Line) -> None:
        if line.send():
            self._poll.modify(line.fileno, select.EPOLLIN)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class _Line:
    """One connection: what of its request is not sent yet, and how much of the answer has come."""

    def __init__(self, port: int, request: Callable[[], Parts]) -> None:
        self._socket = connect(port)
        self._socket.setblocking(False)
        self._request = request
        self._unsent: list[memoryview] = []
        self._head = b""
        self._received = 0  # of the answer
        self._whole: int | None = None  # bytes of the answer; None until its head is there
        self.fileno, self.close = self._socket.fileno(), self._socket.close

    def begin(self) -> bool:
        """Sends the next request, as far as the kernel takes it; whether that is all of it."""
        self._unsent = [memoryview(part) for part in self._request()]
        self._head, self._received, self._whole = b"", 0, None
        return self.send()

    def send(self) -> bool:
        """Sends on; whether the request is out."""
        while self._unsent:
            try:
                sent = self._socket.sendmsg(self._unsent)
            except BlockingIOError:
                return False
            while self._unsent and sent >= len(self._unsent[0]):
                sent -= len(self._unsent.pop(0))
            if sent:
                self._unsent[0] = self._unsent[0][sent:]
        return True

    def receive(self, memory: memoryview) -> bool:
        """Reads what is there; whether the answer is complete."""
        received = self._socket.recv_into(memory)
        if not received:
            raise RuntimeError("the peer hung up in the middle of an answer")
        self._received += received
        if self._whole is None:
            self._head += memory[: min(received, HEAD_BYTES)]
            self._whole = _length(self._head)
        return self._received == self._whole


def _length(head: bytes) -> int | None:
    """How long the answer that begins like this is, head and body; None if that is not to be seen yet."""
    end = head.find(b"\r\n\r\n")
    if end < 0:
        return None
    lines = head[:end].lower()
    if not lines.startswith(WELCOMED):
        raise RuntimeError(f"expected 2xx or 304, got {head[:800]!r}")
    _, named, rest = lines.partition(b"\r\ncontent-length:")
    return end + 4 + (int(rest.partition(b"\r\n")[0]) if named else 0)
