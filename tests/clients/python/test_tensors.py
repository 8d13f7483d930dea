"""The client's safetensors codec beside the reference implementation, and against malformed bodies."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from gradledger import tensors
from gradledger.errors import MalformedAnswer


def arrays() -> dict[str, Any]:
    return {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.array([1.5, -2.0], np.float16),
        "scalar": np.array(3.25),
        "nothing": np.zeros((0, 7), np.float32),
        "count": np.array([1, 2], np.int64),
    }


def body_of(parts: list[bytes | memoryview]) -> Any:
    return np.frombuffer(b"".join(parts), np.uint8)


def test_the_reference_reads_what_it_writes_and_the_other_way_round() -> None:
    written = safetensors.numpy.load(b"".join(tensors.encode(arrays())))
    read = tensors.decode(np.frombuffer(safetensors.numpy.save(arrays()), np.uint8))
    for name, array in arrays().items():
        for other in (written[name], read[name]):
            assert (other.dtype, other.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(other, array)


def test_numbers_are_sent_from_where_they_are_and_read_where_they_arrived() -> None:
    array = np.ones(1000, np.float32)
    header, data = tensors.encode({"w": array})
    assert np.shares_memory(np.frombuffer(data, np.uint8), array)
    assert len(header) % 64 == 0
    body = body_of([header, data])
    assert np.shares_memory(tensors.decode(body)["w"], body)


@pytest.mark.parametrize(
    "array", [np.ones((4, 3), np.float32).T, np.ones(9, np.float32)[::2], np.ones(3, ">f4")]
)
def test_strided_and_big_endian_arrays_arrive_as_they_look(array: Any) -> None:
    back = tensors.decode(body_of(tensors.encode({"w": array})))["w"]
    np.testing.assert_array_equal(back, array)


def test_the_services_order_comes_first() -> None:
    parts = tensors.encode(arrays(), order=("half", "absent", "w"))
    assert list(tensors.decode(body_of(parts)))[:2] == ["half", "w"]


def test_bfloat16_needs_ml_dtypes_only_to_stay_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.array([1.0, -2.5, 3e38], ml_dtypes.bfloat16)
    body = body_of(tensors.encode({"w": array}))
    assert tensors.decode(body)["w"].dtype == ml_dtypes.bfloat16
    monkeypatch.setattr(tensors, "find_spec", lambda _: None)
    widened = tensors.decode(body)["w"]
    assert widened.dtype == np.float32
    np.testing.assert_array_equal(widened, array.astype(np.float32))


def test_an_array_without_numbers_is_refused_before_it_is_sent() -> None:
    with pytest.raises(TypeError, match="cast it to float32"):
        tensors.encode({"w": np.array(["a"])})


def f32(start: int, stop: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [1] if shape is None else shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "table",
    [
        {"w": f32(0, 4), "v": f32(2, 6)},  # overlap
        {"w": f32(0, 4), "v": f32(8, 12)},  # hole
        {"w": f32(0, 4)},  # bytes left over
        {"w": f32(0, 400, [100])},  # past the end
        {"w": f32(0, 12, [2])},  # shape and bytes disagree
        {"w": f32(0, 12, [3], "F4")},  # no such dtype
        {"w": {"dtype": "F32"}},
        {"w": 7},
        [],
    ],
)
def test_tensors_must_fill_the_body_exactly(table: Any) -> None:
    text = json.dumps(table).encode()
    body = len(text).to_bytes(8, "little") + text + bytes(12)
    with pytest.raises(MalformedAnswer):
        tensors.decode(np.frombuffer(body, np.uint8))


@pytest.mark.parametrize("body", [b"", b"1234567", b"\xff" * 8, (4).to_bytes(8, "little") + b"{}  "[:3]])
def test_a_header_must_fit_its_body(body: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        tensors.decode(np.frombuffer(body, np.uint8))
