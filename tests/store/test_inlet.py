"""The inlet: values of known size come off the line byte for byte, and anything else is told apart."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import redis
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import ResponseError

from gradledger_server.errors import ModelQuarantined, StoreUnavailable
from gradledger_server.store import RedisStore
from gradledger_server.store.contract import Snapshot
from gradledger_server.store.inlet import Inlet, OtherValue
from tests.store.conftest import grow, record

MIB = 1 << 20
SIZES = (1, 9, 10, 65_536, 3, 100_000, 0, 7)


class Server:
    """The other end of a line: it says what it is told to say, in pieces of any size."""

    def __init__(self, here: socket.socket) -> None:
        self._socket = here

    def say(self, said: bytes, seed: int = 0, *, hang_up: bool = False) -> None:
        threading.Thread(target=self._say, args=(said, random.Random(seed), hang_up)).start()

    def _say(self, said: bytes, dice: random.Random, hang_up: bool) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            while said:
                most = dice.choice((1, 2, 3, 11, 5_000, 200_000))
                self._socket.sendall(said[:most])
                said = said[most:]
            if hang_up:
                self._socket.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def line() -> Iterator[tuple[Inlet, Server]]:
    here, there = socket.socketpair()
    here.settimeout(10)
    with here, there:
        yield Inlet(SimpleNamespace(_sock=here)), Server(there)


def said(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


@pytest.mark.parametrize("seed", range(8))
def test_values_land_in_their_places_however_they_arrive(line: tuple[Inlet, Server], seed: int) -> None:
    inlet, server = line
    values = [random.Random(size).randbytes(size) for size in SIZES]
    server.say(b"".join(map(said, values)) + said(b"of the next question"), seed)
    block = bytearray(sum(SIZES))
    view, start = memoryview(block), 0
    for size in SIZES:
        inlet.receive(view[start : start + size])
        start += size
    inlet.finish()
    assert block == b"".join(values)
    again = bytearray(20)
    inlet.receive(memoryview(again))  # nothing of what follows was taken
    assert again == b"of the next question"


@pytest.mark.parametrize("before", [b"", said(b"ten bytes.")])
@pytest.mark.parametrize("other", [b"$-1\r\n", b"$9\r\n", b"$100\r\n", b"*1\r\n", b":1\r\n", b"+OK\r\n"])
def test_a_value_of_another_kind_or_size_is_not_waited_for(
    line: tuple[Inlet, Server], before: bytes, other: bytes
) -> None:
    inlet, server = line
    server.say(before + other)
    if before:
        inlet.receive(memoryview(bytearray(10)))
    with pytest.raises(OtherValue):
        inlet.receive(memoryview(bytearray(10)))


@pytest.mark.parametrize("before", [b"", said(b"ten bytes.")])
def test_what_the_server_refuses_is_told_in_its_words(line: tuple[Inlet, Server], before: bytes) -> None:
    inlet, server = line
    server.say(before + b"-LOADING the data set\r\n")
    if before:
        inlet.receive(memoryview(bytearray(10)))
    with pytest.raises(ResponseError, match=r"^LOADING the data set$"):
        inlet.receive(memoryview(bytearray(10)))


@pytest.mark.parametrize("length", [0, 3, 9, 15, 20, 21])
def test_a_cut_line_is_not_taken_for_a_value(line: tuple[Inlet, Server], length: int) -> None:
    inlet, server = line
    server.say(said(b"fifteen letters")[:length], hang_up=True)
    with pytest.raises(LostConnection, match="in the middle of a value"):
        inlet.receive(memoryview(bytearray(15)))
        inlet.finish()


def test_what_never_ends_is_not_read_for_ever(line: tuple[Inlet, Server]) -> None:
    inlet, server = line
    server.say(b"$" * 20_000)
    with pytest.raises(OtherValue):
        inlet.receive(memoryview(bytearray(10)))


# -- in use --------------------------------------------------------------------------------------


@pytest.fixture
def chunk(ledger: RedisStore, raw: redis.Redis) -> str:
    """The name of the second of three chunks of a snapshot, which is whole."""
    ledger.create("model", "epoch", record("create"))
    [last] = grow(ledger, "epoch", 1)
    body = random.Random(3).randbytes(3 * MIB)
    assert ledger.save("epoch", Snapshot(last.offset, last.chain, b"facts", [memoryview(body)]))
    loaded = ledger.load("epoch")
    assert loaded is not None and loaded.parts == [body] and loaded.meta == b"facts"
    names: list[bytes] = list(raw.scan_iter("*:chunk:*"))
    return next(name.decode() for name in names if name.endswith(b":1"))


@pytest.mark.parametrize("nbytes", [0, MIB - 1, MIB + 1])
def test_a_chunk_of_another_size_is_none(
    ledger: RedisStore, raw: redis.Redis, chunk: str, nbytes: int
) -> None:
    raw.set(chunk, bytes(nbytes))
    with pytest.raises(
        ModelQuarantined, match="chunk 1 of the snapshot at offset 2 of epoch epoch is missing"
    ):
        ledger.load("epoch")
    assert ledger.names() == {"model": "epoch"}  # no reply went astray


def test_a_chunk_that_the_server_will_not_give(ledger: RedisStore, raw: redis.Redis, chunk: str) -> None:
    raw.unlink(chunk)
    raw.rpush(chunk, b"a list")
    with pytest.raises(StoreUnavailable, match="the server refuses: WRONGTYPE"):
        ledger.load("epoch")
    assert ledger.names() == {"model": "epoch"}
