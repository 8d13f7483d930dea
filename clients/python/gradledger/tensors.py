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
_NUMPY: dict[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _NUMPY.items()}


def dtype_name(dtype: DTypeLike) -> str:
    """The safetensors name of a NumPy dtype ("F32") or of ml_dtypes' bfloat16 ("BF16"); TypeError if none."""
    dtype = np.dtype(dtype)
    if dtype.name == "bfloat16":
        return "BF16"
    name = _NAMES.get(dtype.newbyteorder("<"))
    if name is None:
        raise TypeError(f"an array of dtype {dtype} cannot be sent; cast it to float32 first")
    return name


def encode(arrays: Mapping[str, ArrayLike | BFloat16], order: Iterable[str] = ()) -> list[bytes | memoryview]:
    """A safetensors body in parts: the header, then a view of each array's own memory.

    Arrays named in `order` come first, in that order: the service takes a body laid out like its own in one
    piece. An array is copied only if it is not contiguous or not little-endian.
    """
    known = dict.fromkeys(name for name in order if name in arrays)
    table: dict[str, Any] = {}
    parts: list[bytes | memoryview] = []
    start = 0
    for name in known | dict.fromkeys(arrays):
        kind, array = _bits(arrays[name])
        stored = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        table[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [start, start + stored.nbytes]}
        parts.append(stored.reshape(-1).view(np.uint8).data)
        start += stored.nbytes
    return [_header(table), *parts]


def decode(body: NDArray[np.uint8]) -> Params:
    """The arrays of a safetensors body, as views of `body`, in the order of their bytes.

    BF16 becomes ml_dtypes' bfloat16 if that package is installed, otherwise float32 of the same value (a
    copy). Raises MalformedAnswer if the tensors do not fill the body exactly.
    """
    size = int.from_bytes(body[:8].tobytes(), "little")
    if body.size < 8 or size > body.size - 8:
        raise MalformedAnswer(f"a safetensors body of {body.size} bytes cannot have a header of {size} bytes")
    try:
        table = json.loads(body[8 : 8 + size].tobytes())
        table.pop("__metadata__", None)
        places = sorted(table.items(), key=lambda item: (item[1]["data_offsets"], item[0]))
        data, end, params = body[8 + size :], 0, {}
        for name, place in places:
            start, stop = place["data_offsets"]
            if start != end:
                raise ValueError(f"tensor {name!r} begins at byte {start}, not {end}")
            params[name] = _view(data[start:stop], place["dtype"], place["shape"])
            end = stop
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedAnswer(f"the safetensors body cannot be read: {error!r}") from error
    if end != data.size:
        raise MalformedAnswer(f"the tensors fill {end} bytes of {data.size}")
    return params


def _bits(value: ArrayLike | BFloat16) -> tuple[str, NDArray[Any]]:
    if isinstance(value, BFloat16):
        return "BF16", value.bits
    array = np.asarray(value)
    return dtype_name(array.dtype), array


def _header(table: Mapping[str, Any]) -> bytes:
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(8, "little") + text


def _view(data: NDArray[np.uint8], name: str, shape: Sequence[int]) -> NDArray[Any]:
    dtype = np.dtype("<u2" if name == "BF16" else _NUMPY[name])
    if data.size != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{data.size} bytes are not a tensor of shape {shape} and dtype {name}")
    array = data.view(dtype).reshape(shape)
    return _bfloat16(array) if name == "BF16" else array


def _bfloat16(bits: NDArray[np.uint16]) -> NDArray[Any]:
    if find_spec("ml_dtypes") is not None:
        return bits.view(import_module("ml_dtypes").bfloat16)
    return BFloat16(bits).widen()
