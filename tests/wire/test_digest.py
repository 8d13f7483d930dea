"""The digest: known values, any kind of memory, and no lock held."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from gradledger_server.wire.digest import digest


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "99aa06d3014798d86001c324468d497f"),  # published with XXH3
        (b"a", "a96faf705af16834e6c632b61e964e1f"),
    ],
)
def test_known_values(payload: bytes, expected: str) -> None:
    assert digest(payload) == expected


def test_any_memory_gives_the_same() -> None:
    array = np.arange(100_000, dtype=np.uint8)
    assert digest(array.tobytes()) == digest(array.data) == digest(memoryview(array.tobytes()))


def test_one_flipped_bit_is_another_body() -> None:
    body = bytearray(1 << 20)
    before = digest(memoryview(body))
    body[777_777] ^= 1
    assert digest(memoryview(body)) != before


def test_other_threads_run_while_it_hashes() -> None:
    body = np.ones(64 << 20, np.uint8).data
    hashing = threading.Event()
    spans: list[tuple[float, float]] = []

    def hash_it() -> None:
        hashing.set()
        for _ in range(12):
            start = time.perf_counter()
            digest(body)
            spans.append((start, time.perf_counter()))

    other = threading.Thread(target=hash_it)
    ticks: list[float] = []
    other.start()
    hashing.wait()
    while other.is_alive():
        ticks.append(time.perf_counter())
    assert any(start < tick < stop for start, stop in spans for tick in ticks)
