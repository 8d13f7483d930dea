"""Safetensors, the one binary form of tensors: request body, log payload, snapshot and answer.

    byte 0      8 bytes: N, the length of the header, an unsigned little-endian integer
    byte 8      N bytes: the header, one JSON object in UTF-8, padded at its end with spaces
    byte 8 + N  the data: the tensors' bytes, row-major, little-endian

    {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
     "b": {"dtype": "F32", "shape": [3],    "data_offsets": [24, 36]},
     "__metadata__": {"format": "pt"}}

A member describes the tensor of its name. `dtype` is one of BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0 U16 I16 F16
BF16 U32 I32 F32 U64 I64 F64 C64. `shape` lists whole numbers, [] for a scalar. `data_offsets` are the
tensor's first byte and the one behind its last, counted from the start of the data. `__metadata__` maps
strings to strings; it is checked and ignored. Members come in any order; the order of the data is the wire
order.

What reads as two things to two readers, or costs more to read than it cost to send, is refused:

- a header longer than the body or than `Limits` says, one that does not begin with "{", or is not UTF-8;
- a name twice, an empty name, one with control characters, one of more than 2048 characters;
- any other field than the three, one of them twice, one missing; a number that is not a plain whole one;
- more tensors than `Limits` says, more than 32 dimensions, extents that multiply past 2^63, even beside a 0;
- offsets that are not the tensor's size apart; data with a hole, an overlap, a tail, or an end too soon.

We write headers whose padding puts the data on a 64-byte boundary, so that a body received at an aligned
address can be computed on where it lies.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradledger_server.dtypes import ITEM_BYTES
from gradledger_server.entries import Tensors
from gradledger_server.errors import MalformedBody, WrongShape
from gradledger_server.wire.header import Shaped, Table, parse, render, table_of

__all__ = ["FOREIGN", "MEDIA_TYPE", "OWN", "Limits", "Shaped", "decode", "encode", "header", "table_of"]

MEDIA_TYPE = "application/vnd.safetensors"  # nobody has registered one
ALIGN_BYTES = 64
LENGTH_BYTES = 8

Part = memoryview | np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much header to read."""

    header_bytes: int
    tensors: int


FOREIGN = Limits(header_bytes=4 << 20, tensors=20_000)  # of a request
OWN = Limits(
    header_bytes=64 << 20, tensors=400_000
)  # of our log and snapshots, where a weight brings its slots


def decode(body: memoryview, limits: Limits = FOREIGN) -> Tensors:
    """The tensors of a body, as views of it; equal headers share one `table`. Raises MalformedBody."""
    body = body if body.format == "B" and body.ndim == 1 else body.cast("B")
    text = _header_text(body, limits)
    table = _recent.get(text)
    if table is None or len(table) > limits.tensors:
        table = _recent.keep(text, parse(text, limits.tensors))
    data = body[LENGTH_BYTES + len(text) :]
    _require_exact(table, data.nbytes)
    return Tensors(table, body, data)


def header_bytes(body: memoryview) -> int:
    """How much of a body its header claims to be, at most all of it; nothing is checked."""
    return min(int.from_bytes(body[:LENGTH_BYTES], "little"), body.nbytes)


def header(tensors: Iterable[Shaped], align: int = ALIGN_BYTES) -> bytes:
    """Everything before the data of `tensors`, in this order; a multiple of `align` bytes.

    Raises InvalidName for a name the format forbids and WrongShape for a tensor beyond any memory.
    """
    text = render(tensors)
    padding = -(LENGTH_BYTES + len(text)) % align
    return (len(text) + padding).to_bytes(LENGTH_BYTES, "little") + text + b" " * padding


def encode(tensors: Sequence[tuple[str, str, tuple[int, ...], Part]]) -> list[memoryview]:
    """A body's parts, not joined: the header, then the bytes of each (name, dtype, shape, contiguous data).

    Raises WrongShape if data is not as long as its dtype and shape say, and what `header` raises.
    """
    shaped = [(name, dtype, shape) for name, dtype, shape, _ in tensors]
    parts = [memoryview(header(shaped))]
    for (name, place), (*_, data) in zip(table_of(shaped).items(), tensors, strict=True):
        view = data if isinstance(data, memoryview) else data.data
        if view.nbytes != place.stop - place.start:
            raise WrongShape(
                f"tensor {name!r} brings {view.nbytes} bytes; expected {place.stop - place.start} "
                f"for {place.dtype} (of {ITEM_BYTES[place.dtype]} bytes) of shape {list(place.shape)}",
                tensor=name,
            )
        if view.nbytes:
            parts.append(view.cast("B"))
    return parts


def _header_text(body: memoryview, limits: Limits) -> bytes:
    if len(body) < LENGTH_BYTES:
        raise MalformedBody(
            f"the body has {len(body)} bytes; expected the header's length in {LENGTH_BYTES}, and a header",
            hint="If the body is JSON, say so: Content-Type: application/json.",
        )
    length = int.from_bytes(body[:LENGTH_BYTES], "little")
    most = min(limits.header_bytes, len(body) - LENGTH_BYTES)
    if not 2 <= length <= most:
        raise MalformedBody(
            f"the safetensors header's length is {length}; expected 2 to {most}: "
            f"{len(body) - LENGTH_BYTES} bytes follow, and a header has at most {limits.header_bytes}",
            hint="If the body is JSON, say so: Content-Type: application/json. Otherwise it was cut short.",
        )
    return bytes(body[LENGTH_BYTES : LENGTH_BYTES + length])


def _require_exact(table: Table, nbytes: int) -> None:
    end = table[next(reversed(table))].stop if table else 0
    if end > nbytes:
        name = next(name for name, place in table.items() if place.stop > nbytes)
        raise MalformedBody(
            f"tensor {name!r} ends at byte {table[name].stop} of the data, which has {nbytes} bytes; "
            f"expected {end}",
            hint="The body was cut short, or its header is another body's.",
            tensor=name,
        )
    if end < nbytes:
        raise MalformedBody(
            f"{nbytes - end} bytes follow the last tensor; expected the data to end at byte {end}",
            hint="Send nothing behind the tensors.",
        )


class _Recent:
    """The tables of the headers read last; a table takes up to ten times the memory of its header."""

    KEEP_BYTES = 8 << 20

    def __init__(self) -> None:
        self._tables: OrderedDict[bytes, Table] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    def get(self, text: bytes) -> Table | None:
        with self._lock:
            table = self._tables.get(text)
            if table is not None:
                self._tables.move_to_end(text)
            return table

    def keep(self, text: bytes, table: Table) -> Table:
        """The table from now on known for `text`: another thread's, if it was faster."""
        if len(text) > self.KEEP_BYTES // 4:
            return table
        with self._lock:
            if text not in self._tables:
                self._tables[text] = table
                self._nbytes += len(text)
            while self._nbytes > self.KEEP_BYTES:
                oldest, _ = self._tables.popitem(last=False)
                self._nbytes -= len(oldest)
            return self._tables[text]


_recent = _Recent()
