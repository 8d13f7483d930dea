"""A TCP relay before a service, which counts what passes: requests and answers as they are on the wire.

Heads, heartbeats, retries and whatever else a client says are counted with the tensors.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

PIECE_BYTES = 256 << 10


class Relay:
    """Listens on a port of its own, in a thread of its own; clients use `url` in place of the service's.

    `sent_bytes` went to the service, `received_bytes` came from it.
    """

    def __init__(self, service_url: str) -> None:
        self._target = urlsplit(service_url)
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._relay()), name="relay", daemon=True)
        self._end: Callable[[], object] = lambda: None
        self.url = ""
        self.sent_bytes = 0
        self.received_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._thread.join()

    def passes(self, upwards: bool) -> bool:  # noqa: ARG002  # for those who cut connections
        """Whether the next piece, to the service or from it, gets through; if not, its connection breaks."""
        return True

    async def _relay(self) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self._end = partial(loop.call_soon_threadsafe, ended.set)
        listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        self._begun.set()
        await ended.wait()
        listening.close()  # what is still connected ends with the loop

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_service, to_service = await asyncio.open_connection(self._target.hostname, self._target.port)
            try:
                pumps = (self._pump(reader, to_service, True), self._pump(from_service, writer, False))
                tasks = [asyncio.ensure_future(pump) for pump in pumps]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                to_service.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # the service is not there, or the relay ends: the client sees its connection break
        finally:
            writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, upwards: bool) -> None:
        with suppress(OSError):
            while (piece := await source.read(PIECE_BYTES)) and self.passes(upwards):
                if upwards:
                    self.sent_bytes += len(piece)
                else:
                    self.received_bytes += len(piece)
                sink.write(piece)
                await sink.drain()
