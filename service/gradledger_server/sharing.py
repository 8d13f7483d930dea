"""One listening socket and several processes: who holds the fewest connections takes the next.

The kernel wakes all of them for each connection. Whoever comes first could take it, and that is mostly the
same one: 60 of 64 that came a moment apart. So each process says on a board how many it holds, and one that
holds more than another leaves the connection to that one, for a moment.
"""

from __future__ import annotations

import asyncio
import mmap
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import uvicorn

REST_S = 0.005  # the others may be busy, or about to die: then it is taken all the same
SHORTAGE_S = 1.0  # until descriptors or memory may be there again
ABSENT = -1

_SLOT_BYTES = 8


class Board:
    """The connections held at each place, in a file that all processes have mapped."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._held = memoryview(self._memory).cast("q")

    @classmethod
    def make(cls, path: Path, places: int) -> Board:
        """A new one, with nobody there."""
        path.write_bytes(bytes(places * _SLOT_BYTES))
        board = cls(path)
        for place in range(places):
            board.say(place, ABSENT)
        return board

    def say(self, place: int, held: int) -> None:
        """So many are held there; ABSENT if nobody listens."""
        self._held[place] = held

    def fewest_but(self, place: int) -> int | None:
        """The fewest connections of any other place; None if nobody else listens."""
        others = [held for at, held in enumerate(self._held) if at != place and held != ABSENT]
        return min(others, default=None)


class Connections(set[Any]):
    """Those that a process holds; `changed` is called when there are more or fewer."""

    changed: Callable[[], None] | None = None

    def add(self, connection: Any) -> None:
        """One more."""
        super().add(connection)
        self._tell()

    def discard(self, connection: Any) -> None:
        """One less."""
        super().discard(connection)
        self._tell()

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed()


class SharingServer(uvicorn.Server):
    """uvicorn's server at one of the places."""

    def __init__(self, config: uvicorn.Config, board: Board, place: int) -> None:
        super().__init__(config)
        self._board, self._place = board, place
        self._connections = self.server_state.connections = Connections()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the app, and listens on the sockets."""
        await super().startup([])
        doors = [
            SharedDoor(each, self._protocol, self._connections, self._board, self._place)
            for each in sockets or ()
        ]
        self.servers = cast("list[asyncio.base_events.Server]", doors)

    def _protocol(self) -> asyncio.BaseProtocol:
        # As uvicorn's own startup makes it.
        protocol: Any = self.config.http_protocol_class
        made: asyncio.BaseProtocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


class SharedDoor:
    """The socket that all share, as uvicorn knows servers."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        held: Connections,
        board: Board,
        place: int,
    ) -> None:
        listener.setblocking(False)
        self._listener, self._protocol, self._held = listener, protocol, held
        self._board, self._place = board, place
        self._loop = asyncio.get_running_loop()
        self._entering: set[asyncio.Task[Any]] = set()
        self._resting: asyncio.TimerHandle | None = None
        held.changed = self._tell
        self._listen()

    @property
    def sockets(self) -> Sequence[socket.socket]:
        return (self._listener,)

    def close(self) -> None:
        """Takes no more connections."""
        self._loop.remove_reader(self._listener)
        if self._resting is not None:
            self._resting.cancel()
        self._held.changed = None
        self._board.say(self._place, ABSENT)

    async def wait_closed(self) -> None:
        """What was taken is uvicorn's to wait for."""

    def _listen(self) -> None:
        self._resting = None
        self._tell()
        self._loop.add_reader(self._listener, self._knocked)

    def _tell(self) -> None:
        self._board.say(self._place, self._count())

    def _count(self) -> int:
        return len(self._held) + len(self._entering)

    def _knocked(self) -> None:
        """Takes one: where more are waiting the others may be here by the next turn of the loop."""
        fewest = self._board.fewest_but(self._place)
        if fewest is not None and fewest < self._count():
            self._rest(REST_S)
        else:
            self._take()

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._resting = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._listen()
        self._take()

    def _take(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # somebody else has it, or nobody
        except OSError:
            self._rest(SHORTAGE_S)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        entering = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
        self._entering.add(entering)
        entering.add_done_callback(self._entered)
        self._tell()

    def _entered(self, task: asyncio.Task[Any]) -> None:
        self._entering.discard(task)
        if self._held.changed is not None:  # unless nobody is let in any more
            self._tell()
        if not task.cancelled():
            task.exception()  # it was gone before it was there
