"""The safetensors codec: what it reads, that it copies nothing, and what it says of hostile bodies."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save

from gradledger_server.dtypes import ITEM_BYTES, NUMPY_DTYPE
from gradledger_server.entries import Placement
from gradledger_server.errors import InvalidName, MalformedBody, WrongShape
from gradledger_server.wire import safetensors
from gradledger_server.wire.safetensors import Limits, decode, encode, header, table_of
from tests.attacks.bodies import ATTACKS, GOOD, ONE, Attack, body, tensor
from tests.wire.conftest import Filled, Shaped, library_reads, named_tensors

MIB = 1 << 20
HOSTILE_HEADER_BYTES = 4 * MIB


def joined(shaped: list[Shaped], data: bytes) -> memoryview:
    return memoryview(header(shaped) + data)


@given(named_tensors())
def test_what_is_encoded_is_decoded(tensors: list[Filled]) -> None:
    read = decode(memoryview(b"".join(encode(tensors))))
    assert read.table == table_of([(name, dtype, shape) for name, dtype, shape, _ in tensors])
    assert list(read.table) == [name for name, *_ in tensors]
    for name, dtype, shape, data in tensors:
        assert (read.table[name].dtype, read.table[name].shape) == (dtype, shape)
        assert read[name] == data


@given(named_tensors())
def test_the_library_reads_what_we_write(
    tensors: list[Filled],
) -> None:
    theirs = library_reads(b"".join(encode(tensors)))
    assert theirs == {name: (dtype, shape, bytes(data)) for name, dtype, shape, data in tensors}


def test_we_read_what_the_library_writes() -> None:
    arrays: dict[str, NDArray[Any]] = {
        "layers[0].w": np.arange(6, dtype=np.float32).reshape(2, 3),
        'größe \\ "β" 😀': np.array(-1.5),
        "empty": np.zeros((0, 5), np.float16),
        "t": np.array([2**62], np.int64),
    }
    read = decode(memoryview(save(arrays, {"format": "np", "note": 'a "quote"'})))
    assert read.table.keys() == arrays.keys()
    for name, array in arrays.items():
        place = read.table[name]
        assert np.array_equal(np.frombuffer(read[name], NUMPY_DTYPE[place.dtype]).reshape(place.shape), array)


def test_nothing_is_copied() -> None:
    block = np.frombuffer(bytearray(b"".join(encode([("w", "F32", (2,), np.ones(2, "<f4"))]))), np.uint8)
    read = decode(block.data)
    for view in (read.payload, read.data, read["w"]):
        assert np.shares_memory(np.frombuffer(view, np.uint8), block)
    block[-1] = 7
    assert read["w"][-1] == 7


def test_views_are_as_writable_as_the_body() -> None:
    assert decode(memoryview(GOOD))["w"].readonly
    assert not decode(memoryview(bytearray(GOOD)))["w"].readonly


def test_other_memory_formats_are_bytes_all_the_same() -> None:
    padded = body({"w": tensor(0, 8, [2])}, ONE + ONE)
    padded = body(padded[8:-8] + b" " * (-len(padded) % 8), ONE + ONE)
    doubles: Any = memoryview(padded).cast("d")
    assert decode(doubles)["w"] == ONE + ONE


def test_equal_headers_share_one_table() -> None:
    first, other = (joined([("shared", "F32", (1,))], data) for data in (ONE, b"abcd"))
    assert decode(first).table is decode(other).table
    assert bytes(decode(other)["shared"]) == b"abcd"


def test_a_remembered_header_still_meets_its_data_and_limits() -> None:
    shaped: list[Shaped] = [(f"w{i}", "U8", (1,)) for i in range(3)]
    decode(joined(shaped, b"abc"))
    with pytest.raises(MalformedBody, match="which has 2 bytes"):
        decode(joined(shaped, b"ab"))
    with pytest.raises(MalformedBody, match="1 bytes follow"):
        decode(joined(shaped, b"abcd"))
    with pytest.raises(MalformedBody, match="number 3"):
        decode(joined(shaped, b"abc"), Limits(header_bytes=MIB, tensors=2))


def test_the_memory_for_headers_is_bounded() -> None:
    used_throughout = joined([("used", "F32", (1,))], ONE)
    table = decode(used_throughout).table
    for count in range(40):
        decode(memoryview(body(b"{}" + b" " * (MIB + count))))
        assert decode(used_throughout).table is table
    recent = safetensors._recent
    assert sum(map(len, recent._tables)) == recent._nbytes <= recent.KEEP_BYTES
    decode(memoryview(body(b"{}" + b" " * (3 * MIB))))
    assert max(map(len, recent._tables)) < 3 * MIB


@given(named_tensors(), st.sampled_from([8, 64, 4096]))
def test_data_is_aligned(tensors: list[Filled], align: int) -> None:
    shaped = [(name, dtype, shape) for name, dtype, shape, _ in tensors]
    assert len(header(shaped, align)) % align == 0
    assert len(header(shaped)) % safetensors.ALIGN_BYTES == 0


def test_members_in_any_order_and_spacing() -> None:
    text = """{"v":\t{ "data_offsets" : [ 4 , 8 ] , "dtype" : "F32" ,\r\n"shape" : [ ] } ,
        "__metadata__" : { "a" : "b" , "c" : "\\u00e9" } , "\\u0077" : {"shape":[1,1],"data_offsets":[0,4],
        "dtype":"F32"} }   """
    read = decode(memoryview(body(text, ONE + b"abcd")))
    assert list(read.table.items()) == [
        ("w", Placement("F32", (1, 1), 0, 4)),
        ("v", Placement("F32", (), 4, 8)),
    ]


def test_empty_tensors_stand_anywhere() -> None:
    places = {"a": tensor(0, 0, [0]), "b": tensor(0, 4), "c": tensor(4, 4, [3, 0]), "d": tensor(4, 8)}
    read = decode(memoryview(body(places, ONE + ONE)))
    assert [name for name, place in read.table.items() if place.stop > place.start] == ["b", "d"]
    assert decode(memoryview(body("{}"))).table == {}


@pytest.mark.parametrize("dtype", list(ITEM_BYTES))
def test_every_dtype(dtype: str) -> None:
    data = bytes(2 * ITEM_BYTES[dtype])
    read = decode(joined([("w", dtype, (2,))], data))
    assert read["w"].nbytes == len(data)
    assert library_reads(bytes(read.payload))["w"] == (dtype, (2,), data)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attacks_are_refused_in_words(attack: Attack) -> None:
    with pytest.raises(MalformedBody) as refusal:
        decode(memoryview(attack.body))
    assert attack.expect in refusal.value.detail
    assert refusal.value.advice
    assert len(refusal.value.detail) < 1000


def test_a_good_body_cut_anywhere_is_refused() -> None:
    whole = b"".join(encode([("a", "F32", (2,), np.ones(2, "<f4")), ("b", "U8", (), np.zeros((), "u1"))]))
    assert decode(memoryview(whole)).table.keys() == {"a", "b"}
    for end in range(len(whole)):
        with pytest.raises(MalformedBody):
            decode(memoryview(whole)[:end])


def filled(head: str, unit: str, tail: str = "") -> bytes:
    """A body whose header is `unit` over and over, up to the longest header that is read."""
    count = (HOSTILE_HEADER_BYTES - len((head + tail).encode())) // len(unit.encode())
    return body(head + unit * count + tail, ONE)


def crowded() -> bytes:
    """A body with as many tensors as fit into the longest header, each right in itself."""
    places = json.dumps({f"{i:x}": tensor(i, i + 1, [1], "U8") for i in range(70_000)}).encode()
    return body(places[:HOSTILE_HEADER_BYTES], ONE)


HOSTILE = {
    "empty lists": lambda: filled('{"w":[', "[],", "[]]}"),
    "numbers": lambda: filled('{"w":{"shape":[', "1,", "1]}}"),
    "digits": lambda: filled('{"w":{"shape":[', "9", "]}}"),
    "escapes": lambda: filled('{"', "\\n", '":1}'),
    "one name": lambda: filled('{"', "😀", '":1}'),
    "spaces": lambda: filled("{", " ", "1"),
    "metadata": lambda: filled('{"__metadata__":{', '"a":"b",', '"c":"d"}}'),
    "fields": lambda: filled('{"w":{', '"dtype":"F32",', "}}"),
    "braces": lambda: filled("", "{"),
    "tensors": crowded,
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=list(HOSTILE))
def test_refusing_the_longest_header_takes_little_memory(hostile: Callable[[], bytes]) -> None:
    attack = memoryview(hostile())
    assert HOSTILE_HEADER_BYTES - 20 < len(attack) < HOSTILE_HEADER_BYTES + 20
    tracemalloc.start()
    try:
        with pytest.raises(MalformedBody, match="expected"):
            decode(attack)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(attack)


@pytest.mark.parametrize("name", ["", "__metadata__", "a\nb", "x" * 2049, "\ud800"])
def test_forbidden_names_are_not_written(name: str) -> None:
    with pytest.raises(InvalidName):
        header([(name, "F32", (1,))])


def test_what_we_write_must_be_possible() -> None:
    with pytest.raises(InvalidName, match="twice"):
        header([("w", "F32", (1,)), ("w", "F32", (1,))])
    with pytest.raises(WrongShape, match="too large"):
        header([("w", "F32", (2**62, 0))])
    with pytest.raises(WrongShape, match="brings 4 bytes; expected 8"):
        encode([("w", "F32", (2,), memoryview(ONE))])
