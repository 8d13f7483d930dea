"""Tensors of any dtype, shape and bits, for the tests of this part."""

from __future__ import annotations

from math import prod
from typing import Any

from hypothesis import strategies as st
from safetensors import deserialize

from gradledger_server.dtypes import ITEM_BYTES

Shaped = tuple[str, str, tuple[int, ...]]
Bits = tuple[str, tuple[int, ...], bytes]
Filled = tuple[str, str, tuple[int, ...], memoryview]

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def named_tensors(draw: st.DrawFn, dtypes: tuple[str, ...] = tuple(ITEM_BYTES)) -> list[Filled]:
    """(name, dtype, shape, data) of up to five tensors with distinct names."""
    names = draw(st.lists(NAMES, max_size=5, unique=True))
    return [(name, *draw(_tensor(dtypes))) for name in names]


@st.composite
def _tensor(draw: st.DrawFn, dtypes: tuple[str, ...]) -> tuple[str, tuple[int, ...], memoryview]:
    dtype = draw(st.sampled_from(dtypes))
    shape: tuple[int, ...] = draw(SHAPES)
    nbytes = prod(shape) * ITEM_BYTES[dtype]
    return dtype, shape, memoryview(draw(st.binary(min_size=nbytes, max_size=nbytes)))


def library_reads(body: bytes) -> dict[str, Bits]:
    """What the safetensors library makes of a body: (dtype, shape, bytes) by name. Raises SafetensorError."""
    read: Any = deserialize
    return {name: (its["dtype"], tuple(its["shape"]), bytes(its["data"])) for name, its in read(body)}
