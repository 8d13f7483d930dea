"""Large bodies pass through the client without being joined or copied whole."""

from __future__ import annotations

import mmap
import socket
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from gradledger import Client, Model, tensors
from gradledger.memory import LARGE_BYTES, Memory
from tests.service import Service

SIZE = 32 << 20
SLACK = 4 << 20
HEAD = (
    b'HTTP/1.1 200 OK\r\nETag: "e.1"\r\nReceipt: {"fate": "applied", "step": 1}\r\nContent-Length: %d\r\n\r\n'
)


def test_pushing_allocates_no_copy_of_the_gradients() -> None:
    half = np.ones(SIZE // 8, np.float32)
    small = b"".join(tensors.encode({"v": np.ones(1, np.float32)}))
    with answering(lambda: small) as model:
        assert peak_bytes(lambda: model.push({"v": half, "w": half})) < SLACK


def test_pulling_allocates_what_arrives_once() -> None:
    header, data = tensors.encode({"w": np.ones(SIZE // 4, np.float32)})
    large = mmap.mmap(-1, len(header) + len(data))  # outside of what is traced
    large.write(header)
    large.write(data)
    with answering(lambda: large) as model:
        assert SIZE <= peak_bytes(model.pull) < SIZE + SLACK


def test_reading_into_given_arrays_allocates_nothing_of_their_size() -> None:
    header, data = tensors.encode({"w": np.ones(SIZE // 4, np.float32)})
    large = mmap.mmap(-1, len(header) + len(data))
    large.write(header)
    large.write(data)
    out = {"w": np.zeros(SIZE // 4, np.float32)}
    with answering(lambda: large) as model:
        assert peak_bytes(lambda: model.push({"w": np.ones(1, np.float32)}, out=out)) < SLACK
    assert (out["w"] == 1).all()
    with answering(lambda: large) as model:
        assert peak_bytes(lambda: model.pull(out=out)) < SLACK


def address(block: NDArray[np.uint8]) -> int:
    return int(block.ctypes.data)


def test_memory_is_used_again_when_the_last_view_of_it_is_gone() -> None:
    memory = Memory()
    block = memory.take(LARGE_BYTES)
    first = address(block)
    block[:] = 7
    view = block.view(np.float32)[1:].reshape(-1, 3)
    block.flags.writeable = False
    del block
    other = memory.take(LARGE_BYTES)
    assert address(other) != first and not np.shares_memory(other, view)
    other[:] = 0
    assert (view.view(np.uint8) == 7).all()
    del view
    again = memory.take(LARGE_BYTES)
    assert address(again) == first and again.flags.writeable
    assert (again == 7).all()  # the memory itself, not another at its address


def test_a_tensor_of_another_library_keeps_its_memory() -> None:
    memory = Memory()
    block = memory.take(LARGE_BYTES)
    first, held = address(block), block.data
    del block
    assert address(memory.take(LARGE_BYTES)) != first
    held.release()
    assert address(memory.take(LARGE_BYTES)) == first


def test_one_block_is_kept_and_only_for_its_size() -> None:
    memory = Memory()
    blocks = [memory.take(LARGE_BYTES) for _ in range(3)]
    kept = weakref.ref(blocks[-1])
    assert len(memory._idle) == 0
    while blocks:
        blocks.pop()
        assert len(memory._idle) == 1
    assert kept() is None
    larger = memory.take(LARGE_BYTES + 1)
    assert larger.size == LARGE_BYTES + 1 and len(memory._idle) == 0
    del larger
    memory.clear()
    assert len(memory._idle) == 0


def test_parameters_of_earlier_steps_stay_what_they_were(service: Service) -> None:
    ones = {"w": np.ones(LARGE_BYTES // 4, np.float32)}
    with Client(service.url) as client:
        model = client.create("client-memory", ones, {"rule": "sgd", "lr": 0.5})
        steps = [model.push(ones)[0]["w"] for _ in range(3)]
        places = {address(step) for step in steps}
        assert [float(step[-1]) for step in steps] == [0.5, 0.0, -0.5]
        del steps
        assert {address(model.push(ones)[0]["w"]) for _ in range(6)} & places  # not new memory each time
        model.delete()


def peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    kept = call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return peak


@contextmanager
def answering(body: Callable[[], bytes | mmap.mmap]) -> Iterator[Model]:
    """A model on a server that forgets what it is sent and answers one request with `body`."""

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as stream:
            left = 0
            while (line := stream.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                left = int(value) if name.lower() == b"content-length" else left
            while left:
                left -= len(stream.read(min(left, 1 << 16)))
            connection.sendall(HEAD % len(body()))
            connection.sendall(body())

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        with Client(f"http://127.0.0.1:{server.getsockname()[1]}", retry_for_s=0) as client:
            yield client.model("demo")
        thread.join()
