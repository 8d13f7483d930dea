"""Commands on the wire and values in chunks: the bytes are right, and large ones are not copied."""

from __future__ import annotations

import hiredis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradledger_server.store.packing import Command, as_bytes, cut, pack


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 40))
def test_cut_keeps_every_byte_and_fills_every_chunk_but_the_last(parts: list[bytes], size: int) -> None:
    chunks = [b"".join(chunk) for chunk in cut(map(memoryview, parts), size)]
    assert b"".join(chunks) == b"".join(parts)
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= size for chunk in chunks[-1:])


@pytest.mark.parametrize(
    "command",
    [
        ("PING",),
        ("SET", "schlüssel", b"\x00\r\n", "EX", 12),
        ("SET", "k", memoryview(bytes(100_000))),
        ("SET", "k", (memoryview(b"ab"), memoryview(bytes(50_000)), memoryview(b"")), "EX", 1),
        ("SET", "k", b""),
    ],
)
def test_a_packed_command_reads_as_what_it_was(command: Command) -> None:
    reader = hiredis.Reader()
    for buffer in pack([command, ("PING",)]):
        reader.feed(bytes(buffer))
    expected = [
        b"".join(a)
        if isinstance(a, tuple)
        else bytes(a)
        if isinstance(a, bytes | memoryview)
        else str(a).encode()
        for a in command
    ]
    assert reader.gets() == expected
    assert reader.gets() == [b"PING"]


def test_a_large_value_is_sent_from_where_it_lies() -> None:
    value = bytearray(1 << 20)
    views = [buffer for buffer in pack([("SET", "k", memoryview(value))]) if isinstance(buffer, memoryview)]
    assert [view.obj for view in views] == [value]


def test_arrays_of_any_shape_and_type_are_their_bytes() -> None:
    for array in (np.arange(6, dtype=np.float32).reshape(2, 3), np.empty((0, 3)), np.array(1.5)):
        assert bytes(as_bytes(array.data)) == array.tobytes()
