"""Named arrays to safetensors bytes and back, without copying the numbers.

    8 bytes      header length n, little-endian
    n bytes      JSON {name: {"dtype", "shape", "data_offsets": [start, stop]}}, padded with spaces
    the rest     each tensor's numbers, row-major, little-endian, one after the other

The padding makes the numbers start at a multiple of 64 bytes, so that views of them are aligned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gradledger.compression import BFloat16
from gradledger.errors import MalformedAnswer

MEDIA_TYPE = "application/vnd.safetensors"  # not registered with IANA; nothing better is

Params = dict[str, Any]  # arrays by name; of a table the rows that were touched, as `Rows`

_ALIGNMENT_BYTES = 64
_REMEMBERED = 16  # headers: a model's are the same at every push
_NUMPY: dict[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _NUMPY.items()}


def dtype_name(dtype: DTypeLike) -> str:
    """The safetensors name of a NumPy dtype ("F32") or of ml_dtypes' bfloat16 ("BF16"); TypeError if none."""
    dtype = np.dtype(dtype)
    name = _NAMES.get(dtype) or _NAMES.get(dtype.newbyteorder("<"))
    if name is None and dtype.name == "bfloat16":
        return "BF16"
    if name is None:
        raise TypeError(f"an array of dtype {dtype} cannot be sent; cast it to float32 first")
    return name


def encode(arrays: Mapping[str, ArrayLike | BFloat16], order: Iterable[str] = ()) -> list[bytes | memoryview]:
    """A safetensors body in parts: the header, then a view of each array's own memory.

    Arrays named in `order` come first, in that order: the service takes a body laid out like its own in one
    piece. An array is copied only if it is not contiguous or not little-endian.
    """
    known = dict.fromkeys(name for name in order if name in arrays)
    signature: list[tuple[str, str, tuple[int, ...], int]] = []
    parts: list[bytes | memoryview] = []
    for name in known | dict.fromkeys(arrays):
        kind, array = _bits(arrays[name])
        stored = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        signature.append((name, kind, array.shape, stored.nbytes))
        parts.append(stored.reshape(-1).view(np.uint8).data)
    return [_header(tuple(signature)), *parts]


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor's place in a body: its bytes from `start` to `stop` of the data, and what they mean."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """NumPy's dtype of the bytes; of BF16 its bits."""
        return np.dtype("<u2" if self.dtype == "BF16" else _NUMPY[self.dtype])

    def view(self, data: NDArray[np.uint8]) -> NDArray[Any]:
        """The tensor that its bytes are; widened to float32, it is a copy."""
        array = data.view(self.stored_dtype).reshape(self.shape)
        return _bfloat16(array) if self.dtype == "BF16" else array


def decode(body: NDArray[np.uint8]) -> Params:
    """The arrays of a safetensors body, as views of `body`, in the order of their bytes.

    BF16 becomes ml_dtypes' bfloat16 if that package is installed, otherwise float32 of the same value (a
    copy). Raises MalformedAnswer if the tensors do not fill the body exactly.
    """
    start = data_start(body[:8].tobytes(), body.size)
    data = body[start:]
    found = places(body[8:start].tobytes(), data.size)
    return {place.name: place.view(data[place.start : place.stop]) for place in found}


def data_start(head: bytes | bytearray, length: int) -> int:
    """Where the numbers begin in a body of `length` bytes that begins with `head`.

    Raises MalformedAnswer if that is no header, or ends past the body.
    """
    size = int.from_bytes(head[:8], "little")
    if len(head) < 8 or size > length - 8:
        raise MalformedAnswer(f"a safetensors body of {length} bytes cannot have a header of {size} bytes")
    return 8 + size


@lru_cache(_REMEMBERED)
def places(header: bytes, nbytes: int) -> tuple[Place, ...]:
    """Where each tensor lies in the `nbytes` behind the header, in the order of the bytes.

    Raises MalformedAnswer if they do not fill them exactly.
    """
    try:
        table = json.loads(header)
        table.pop("__metadata__", None)
        ordered = sorted(table.items(), key=lambda item: (item[1]["data_offsets"], item[0]))
        found = tuple(_place(name, **described) for name, described in ordered)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedAnswer(f"the safetensors body cannot be read: {error!r}") from error
    end = 0
    for place in found:
        if place.start != end:
            raise MalformedAnswer(f"tensor {place.name!r} begins at byte {place.start}, not {end}")
        end = place.stop
    if end != nbytes:
        raise MalformedAnswer(f"the tensors fill {end} bytes of {nbytes}")
    return found


def _bits(value: ArrayLike | BFloat16) -> tuple[str, NDArray[Any]]:
    if isinstance(value, BFloat16):
        return "BF16", value.bits
    array = np.asarray(value)
    return dtype_name(array.dtype), array


def _place(name: str, dtype: str, shape: Sequence[int], data_offsets: Sequence[int]) -> Place:
    start, stop = data_offsets
    place = Place(name, dtype, tuple(shape), start, stop)
    if stop - start != math.prod(place.shape) * place.stored_dtype.itemsize:
        raise ValueError(f"{stop - start} bytes are not a tensor of shape {shape} and dtype {dtype}")
    return place


@lru_cache(_REMEMBERED)
def _header(signature: tuple[tuple[str, str, tuple[int, ...], int], ...]) -> bytes:
    table: dict[str, Any] = {}
    start = 0
    for name, dtype, shape, nbytes in signature:
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + nbytes]}
        start += nbytes
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(8, "little") + text


def _bfloat16(bits: NDArray[np.uint16]) -> NDArray[Any]:
    if find_spec("ml_dtypes") is not None:
        return bits.view(import_module("ml_dtypes").bfloat16)
    return BFloat16(bits).widen()
