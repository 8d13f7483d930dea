"""Connections of one port, shared out among processes; here each is a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gradledger_server import sharing
from gradledger_server.sharing import ABSENT, Board, Connections, SharedDoor

PLACES = 3


class Held(asyncio.Protocol):
    """A connection, held."""

    def __init__(self, all_of_them: Connections) -> None:
        self._all = all_of_them

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._all.discard(self)


class Place:
    """A loop that listens with others."""

    def __init__(self, listener: socket.socket, board: Board, place: int) -> None:
        self._loop, self.held = asyncio.new_event_loop(), Connections()
        self._asked = listener, lambda: Held(self.held), self.held, board, place
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Place:
        self._thread.start()
        self.door = self.run(lambda: SharedDoor(*self._asked))
        return self

    def run(self, work: Callable[[], Any]) -> Any:
        async def ran() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(ran(), self._loop).result(5)

    def __exit__(self, *_: object) -> None:
        self.run(self.door.close)
        self.run(lambda: [each.transport.abort() for each in list(self.held)])
        time.sleep(0.01)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board.make(tmp_path / "board", PLACES)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@contextmanager
def listening(listener: socket.socket, board: Board, places: int) -> Iterator[list[Place]]:
    with ExitStack() as opened:
        yield [opened.enter_context(Place(listener, board, place)) for place in range(places)]


def connect(opened: ExitStack, listener: socket.socket, count: int, gap_s: float) -> list[socket.socket]:
    made = []
    for _ in range(count):
        made.append(opened.enter_context(socket.create_connection(listener.getsockname(), timeout=5)))
        time.sleep(gap_s)
    return made


def held(places: list[Place], total: int) -> list[int]:
    """How many each holds, once it is so many together."""
    deadline = time.monotonic() + 5
    while sum(len(place.held) for place in places) != total:
        assert time.monotonic() < deadline, [len(place.held) for place in places]
        time.sleep(0.005)
    return [len(place.held) for place in places]


@pytest.mark.parametrize(("gap_s", "apart"), [(0.01, 2), (0.0, 10)])
def test_everybody_holds_as_many_as_the_others(
    listener: socket.socket, board: Board, gap_s: float, apart: int
) -> None:
    with listening(listener, board, PLACES) as places, ExitStack() as opened:
        connect(opened, listener, 30, gap_s)
        shares = held(places, 30)
        assert max(shares) - min(shares) <= apart
        deadline = time.monotonic() + 2
        while list(board._held) != shares:
            assert time.monotonic() < deadline, "the board says what is held, and no more"
            time.sleep(0.005)


def test_who_lost_some_is_given_the_next(listener: socket.socket, board: Board) -> None:
    with listening(listener, board, PLACES) as places, ExitStack() as opened:
        connect(opened, listener, 24, 0.01)
        before = held(places, 24)
        left = places[1]
        left.run(lambda: [each.transport.abort() for each in list(left.held)])
        lost = before[1]
        held(places, 24 - lost)
        assert board.fewest_but(0) == 0, "the others know"
        connect(opened, listener, lost, 0.01)
        after = held(places, 24)
        assert after[1] >= lost - 2, (before, after)


@pytest.mark.parametrize("says", [ABSENT, 0])
def test_nobody_waits_long_for_one_that_is_not_there(
    listener: socket.socket, board: Board, says: int
) -> None:
    """Be it that nobody has noticed."""
    with listening(listener, board, 2) as places, ExitStack() as opened:
        board.say(2, says)
        began = time.monotonic()
        connect(opened, listener, 20, 0.0)
        held(places, 20)
        assert time.monotonic() - began < 20 * 4 * sharing.REST_S


def test_whoever_has_closed_takes_no_more(listener: socket.socket, board: Board) -> None:
    with listening(listener, board, 2) as places, ExitStack() as opened:
        first = places[0]
        first.run(first.door.close)
        assert board.fewest_but(1) is None
        connect(opened, listener, 5, 0.0)
        assert held(places, 5) == [0, 5]


def test_it_goes_on_after_a_shortage(
    listener: socket.socket, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of descriptors, say: the connection waits, and is taken when there are some again."""
    monkeypatch.setattr(sharing, "SHORTAGE_S", 0.05)
    short = [OSError(24, "too many open files")] * 2

    class Short(socket.socket):
        def accept(self) -> Any:
            if short:
                raise short.pop()
            return super().accept()

    scarce, began = Short(fileno=listener.detach()), time.monotonic()
    with scarce, listening(scarce, board, 1) as places, ExitStack() as opened:
        connect(opened, scarce, 3, 0.0)
        assert held(places, 3) == [3]
    assert short == [] and time.monotonic() - began >= 2 * 0.05, "it was not tried again and again"
