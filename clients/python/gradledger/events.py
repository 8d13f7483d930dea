"""What happens to a model, as it happens: the service's server-sent events, heard to the end.

    with model.events() as events:
        for event in events:
            print(event.kind, event.facts)

A connection that breaks is opened again behind the last event heard, so none is lost and none is told twice.
What the service holds no more, it says itself: the event `reset` tells where the model stands, and what came
before is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from gradledger.answer import PIECE_BYTES, Stream
from gradledger.errors import ConnectionFailed, GradledgerError, MalformedAnswer
from gradledger.patience import Patience
from gradledger.transport import Transport

QUIET_S = 15.0  # the service says so often that nothing is new
EVENT_BYTES = 16 << 20  # no event may be longer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: `kind` is "step", "round", "join", …; `facts` what the service says of it.

    `id` is its place in the model's log, to go on behind. A `snapshot` has none, and may be told again after
    a broken connection; nor has `delete`, the last event.
    """

    kind: str
    facts: Mapping[str, Any]
    id: str | None


class Events:
    """Made by `Model.events`: an iterator, and a context manager that closes the connection.

    `last_id` is the place behind which it goes on. One thread at a time may use it.
    """

    def __init__(self, transport: Transport, path: str, after: str | int | None) -> None:
        self._transport, self._path = transport, f"{path}/events"
        self.last_id = None if after is None else str(after)
        self._stream: Stream | None = None
        self._blocks: Iterator[_Block] = iter(())
        self._patience: Patience | None = None  # begins to run out when something breaks
        self._over = False
        self._persist(self._connect)
        while self.last_id is None:  # the first words name the place: from here on nothing is missed
            if self._persist(self._hear) is not None:
                self.close()
                raise MalformedAnswer("the stream of events did not say where it begins")

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        """The next event, whenever it comes. Raises ModelNotFound if the model went while nobody listened,
        and ConnectionFailed when there was no service for as long as the client retries."""
        while not self._over:
            if (event := self._persist(self._hear)) is not None:
                self._over = event.kind == "delete"
                return event
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Hangs up; there are no more events."""
        self._over = True
        self._hang_up()

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _persist(self, attempt: Callable[[], T]) -> T:
        while True:
            try:
                return attempt()
            except GradledgerError as error:
                self._hang_up()
                self._patience = self._patience or self._transport.patience()
                self._patience.spend(error)
            except BaseException:
                self._hang_up()
                raise

    def _connect(self) -> None:
        headers = {"Accept": "text/event-stream"}
        if self.last_id is not None:
            headers["Last-Event-ID"] = self.last_id
        self._stream = self._transport.stream(self._path, headers=headers, quiet_s=QUIET_S)
        self._blocks = _blocks(self._stream)

    def _hear(self) -> Event | None:
        """The next event; None for words that are none."""
        if self._stream is None:
            self._connect()
        try:
            block = next(self._blocks, None)
        except (HTTPException, OSError) as error:
            raise ConnectionFailed(f"the stream of events broke ({error})") from error
        if block is None:
            raise ConnectionFailed("the stream of events ended, and the model did not")
        self._patience = None
        event = block.event()
        self.last_id = block.id or self.last_id
        return event

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._blocks = None, iter(())


class _Block(NamedTuple):
    """Lines up to an empty one."""

    kind: str
    data: str
    id: str | None

    def event(self) -> Event | None:
        if not self.data:
            return None
        try:
            facts = json.loads(self.data)
        except ValueError as error:
            raise MalformedAnswer(f"expected an event in JSON, got {self.data[:80]!r}") from error
        if not isinstance(facts, dict):
            raise MalformedAnswer(f"expected an event as a JSON object, got {self.data[:80]!r}")
        return Event(self.kind, facts, self.id)


def _blocks(stream: Stream) -> Iterator[_Block]:
    """The blocks of an event stream (WHATWG HTML, 9.2); one that is cut off is none."""
    fields: dict[str, str] = {}
    data: list[str] = []
    size_bytes = 0
    for line in _lines(stream):
        size_bytes += len(line)
        _bound(size_bytes)
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            yield _Block(fields.get("event", "message"), "\n".join(data), fields.get("id"))
            fields, data, size_bytes = {}, [], 0
        elif name == "data":
            data.append(value)
        else:
            fields[name] = value


def _lines(stream: Stream) -> Iterator[str]:
    begun = bytearray()
    while piece := stream.read(PIECE_BYTES):
        for number, part in enumerate(piece.split(b"\n")):
            if number:  # the part before ended its line
                yield _text(begun)
                begun.clear()
            begun += part
            _bound(len(begun))


def _bound(size_bytes: int) -> None:
    if size_bytes > EVENT_BYTES:
        raise MalformedAnswer(f"an event is longer than {EVENT_BYTES} bytes: is this a stream of events?")


def _text(line: bytearray) -> str:
    try:
        return line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        raise MalformedAnswer(f"an event is not UTF-8: {bytes(line[:80])!r}") from error
