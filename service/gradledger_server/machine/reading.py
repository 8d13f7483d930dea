"""How the body behind a header lies over a layout: worked out once, since a client keeps to its header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gradledger_server.dtypes import SCALE_SUFFIX
from gradledger_server.entries import Placement
from gradledger_server.machine.layout import Layout, Place

VALUE_DTYPES = ("F16", "BF16", "F32", "F64")
KEPT = 4  # of a layout; each keeps its header's table alive, which is as large as the model's own


class Run(NamedTuple):
    """Adjacent tensors of one arena: elements `start:stop`, tensors `first:last` in wire order."""

    arena: int
    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, its size and dtype, and the first byte of the data that is the run as it stands, if there is."""

    run: Run
    size: int
    dtype: np.dtype[Any]
    at: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What there is to know of every body with this header: does it fit, and which runs it makes."""

    table: Mapping[str, Placement]
    fits: bool
    plans: tuple[Plan, ...]


def reading(layout: Layout, table: Mapping[str, Placement]) -> Reading:
    """The one of this table: equal headers share one, so its identity will do.

    A header with names that are not the model's is refused in the end, and nothing of it is kept.
    """
    known = layout.readings.get(id(table))
    if known is not None and known.table is table:
        return known
    made = Reading(table, _fits(layout, table), _plans(layout, table))
    if all(name.removesuffix(SCALE_SUFFIX) in layout.wire_dtypes for name in table):
        if len(layout.readings) >= KEPT:
            layout.readings.clear()
        layout.readings[id(table)] = made
    return made


def _fits(layout: Layout, table: Mapping[str, Placement]) -> bool:
    """Whether any body with this header fits: all of it dense tensors that say all there is to check."""
    return bool(table) and all(
        (known := layout.by_name.get(name)) is not None
        and place.shape == known.tensor.shape
        and place.dtype in VALUE_DTYPES
        for name, place in table.items()
    )


def _plans(layout: Layout, table: Mapping[str, Placement]) -> tuple[Plan, ...]:
    dense = (layout.by_name[name] for name in table if name in layout.by_name)
    places = sorted(dense, key=lambda place: place.index)
    plans: list[Plan] = []
    first = 0
    for index in range(1, len(places) + 1):
        if index == len(places) or not _adjacent(places[index - 1], places[index]):
            plans.append(_plan(layout, places[first:index], table))
            first = index
    return tuple(plans)


def _adjacent(before: Place, after: Place) -> bool:
    return before.arena == after.arena and before.index + 1 == after.index


def _plan(layout: Layout, places: Sequence[Place], table: Mapping[str, Placement]) -> Plan:
    head, tail = places[0], places[-1]
    run = Run(head.arena, head.start, tail.stop, head.index, tail.index + 1)
    arena = layout.arenas[head.arena]
    sent = [table[place.tensor.name] for place in places]
    as_it_stands = all(s.dtype == arena.dtype for s in sent)
    as_it_stands = as_it_stands and all(a.stop == b.start for a, b in pairwise(sent))
    return Plan(run, run.stop - run.start, arena.numpy_dtype, sent[0].start if as_it_stands else None)
