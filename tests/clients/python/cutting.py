"""A proxy before a service that cuts connections after so many bytes of the answer."""

from __future__ import annotations

import socket
import threading
from collections import deque
from contextlib import suppress
from types import TracebackType

PIECE_BYTES = 64 << 10


class Cutting:
    """`cuts` says after how many bytes each connection to come is cut; when it is empty, none is."""

    def __init__(self, port: int) -> None:
        self.cuts: deque[int] = deque()
        self.connections = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lines: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut_all(self) -> None:
        """Cuts what is open."""
        for line in self._lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()
        self._lines.clear()

    def __enter__(self) -> Cutting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        left = self.cuts.popleft() if self.cuts else None
        try:
            service = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            client.close()
            return
        self._lines += [client, service]
        threading.Thread(target=_copy, args=(client, service, None), daemon=True).start()
        _copy(service, client, left)


def _copy(source: socket.socket, target: socket.socket, left: int | None) -> None:
    """Until the source ends, or so many bytes have gone; then both are done with."""
    with suppress(OSError):
        while left is None or left > 0:
            piece = source.recv(PIECE_BYTES if left is None else min(PIECE_BYTES, left))
            if not piece:
                break
            target.sendall(piece)
            left = None if left is None else left - len(piece)
    for line in (source, target):
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
