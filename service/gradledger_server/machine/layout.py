"""Where each tensor lies: flat arenas, one per dtype and parameter group, back to back in wire order.

Because the wire order is the arena order, a gradient that arrives in it is one view and one kernel call for
a whole arena, and the parameters go out as one contiguous block behind a header computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from gradledger_server.dtypes import ITEM_BYTES, NUMPY_DTYPE
from gradledger_server.machine.tables import ROWS_OF_PUSH, DeclaredTable

if TYPE_CHECKING:
    from gradledger_server.machine.reading import Reading


@dataclass(frozen=True, slots=True)
class Declared:
    """A tensor as the spec declares it."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # "F32" or "F64"
    group: int  # index into the spec's groups


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor's place: elements `start:stop` of its arena, and its index in wire order."""

    tensor: Declared
    index: int
    arena: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Arena:
    """A run of tensors sharing dtype and group: `size` elements, from byte `offset` of the block."""

    dtype: str
    group: int
    size: int
    offset: int
    first: int  # index of its first tensor
    last: int  # one past its last

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        return NUMPY_DTYPE[self.dtype]

    @property
    def nbytes(self) -> int:
        return self.size * ITEM_BYTES[self.dtype]


class Layout:
    """The places of all tensors. Wider dtypes come first, so every arena starts aligned to its items.

    `tables` lie elsewhere, each in memory of its own (machine/table.py), and are here by name.
    """

    def __init__(self, tensors: Sequence[Declared], tables: Sequence[DeclaredTable] = ()) -> None:
        ordered = sorted(tensors, key=lambda t: (-ITEM_BYTES[t.dtype], t.dtype, t.group, t.name))
        self.places: list[Place] = []
        self.arenas: list[Arena] = []
        offset = 0
        for dtype, group, first, last in _runs(ordered):
            start = 0
            for index in range(first, last):
                stop = start + prod(ordered[index].shape)
                self.places.append(Place(ordered[index], index, len(self.arenas), start, stop))
                start = stop
            self.arenas.append(Arena(dtype, group, start, offset, first, last))
            offset += self.arenas[-1].nbytes
        self.nbytes = offset
        self.elements = sum(arena.size for arena in self.arenas)
        # With rows named several times a body may even be larger than its table.
        self.most_sent = self.elements + sum(
            max(table.rows, ROWS_OF_PUSH) * (table.width + 1) for table in tables
        )
        self.by_name: Mapping[str, Place] = {place.tensor.name: place for place in self.places}
        self.tables: Mapping[str, DeclaredTable] = {table.name: table for table in tables}
        self.readings: dict[int, Reading] = {}  # of the headers sent lately, by their table's identity

    @cached_property
    def signature(self) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
        """(name, dtype, shape) in wire order: what a safetensors header says."""
        return tuple((p.tensor.name, p.tensor.dtype, p.tensor.shape) for p in self.places)

    @cached_property
    def wire_dtypes(self) -> Mapping[str, str]:
        """Every name a body for this model may hold, with its dtype: tensors, then tables and their rows."""
        dtypes = {name: dtype for name, dtype, _ in self.signature}
        for name, table in self.tables.items():
            dtypes |= {name: table.dtype, table.ids_name: "I64"}
        return dtypes

    def byte_range(self, name: str) -> tuple[int, int]:
        """Where the tensor's bytes lie in the block of all parameters."""
        place = self.by_name[name]
        arena = self.arenas[place.arena]
        item = ITEM_BYTES[arena.dtype]
        return arena.offset + place.start * item, arena.offset + place.stop * item


def _runs(ordered: Sequence[Declared]) -> Iterator[tuple[str, int, int, int]]:
    first = 0
    for index in range(1, len(ordered) + 1):
        here = ordered[first]
        if index == len(ordered) or (ordered[index].dtype, ordered[index].group) != (here.dtype, here.group):
            yield here.dtype, here.group, first, index
            first = index
