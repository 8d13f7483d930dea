"""A table in memory: the rows that were ever touched, in the order of their first touch.

Nothing is held for a row nobody has touched but its place in an index, so memory, snapshots and the cost
of a push follow the rows seen and not those declared. Arrays are promised in full and claimed page by page.
A table always lies in host memory and is computed on there, also beside a GPU: the bits are the same.

Reading changes nothing: a row that was never touched is answered with the first value it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger_server.blocks import Block, Blocks
from gradledger_server.entries import Tensors
from gradledger_server.kernels.device import Device
from gradledger_server.machine.initial import first_values, stream_key
from gradledger_server.machine.reserve import reserved
from gradledger_server.machine.row_gradient import Rows, Touched
from gradledger_server.machine.row_step import RowStep
from gradledger_server.machine.spec import Group
from gradledger_server.machine.step import Update
from gradledger_server.machine.tables import DeclaredTable

Shaped = tuple[str, str, tuple[int, ...]]
Values = NDArray[Any]  # flat, of the table's dtype
Items = NDArray[np.void]  # whole rows
Show = Callable[[Values, list[Values]], Values]  # what is seen of weights and their slots


class Table:
    """`seen` rows are held. In mode lazy each counts its own updates, else `updates` counts the table's."""

    def __init__(self, declared: DeclaredTable, group: Group, device: Device, blocks: Blocks) -> None:
        self.declared = declared
        self._blocks = blocks
        self.configure(group, device)
        self.seen = 0
        self.updates = 0
        rows = declared.rows
        # An item is a whole row: NumPy moves them at twice the speed it has for rows of an array.
        self._row = np.dtype((np.void, declared.row_bytes))
        self._places = reserved(rows, np.dtype(np.int32))  # of each row, plus 1; 0 if it was never touched
        self._rows = reserved(rows, np.dtype(np.int64))  # of each place
        self._counts = reserved(rows if declared.mode == "lazy" else 0, np.dtype(np.int64))
        self._weights, *self._slots = (reserved(rows, self._row) for _ in ("param", *self.step.slots))
        self._key = 0 if declared.initial is None else stream_key(declared.initial, declared.name)
        if declared.mode == "dense" and declared.initial is not None:
            self._claim(np.arange(rows))  # all move together, so all are here, each row at its own place

    def configure(self, group: Group, device: Device) -> None:
        """Takes other hyperparameters of the same rule."""
        self.step = RowStep(group, self.declared.numpy_dtype, device)
        self._starts = list(group.slot_starts.values())

    @property
    def nbytes(self) -> int:
        """Bytes held of weights and slots."""
        return self.seen * self.declared.row_bytes * (1 + len(self._slots))

    def advance(self, gradient: Touched, *, lr: float, update: Update) -> None:
        """Applies a push's rows at this learning rate."""
        if self.declared.mode == "dense":
            self._advance_all(gradient, lr, update)
            return
        assert gradient.rows is not None
        places = self._claim(gradient.rows)
        t: int | NDArray[np.int64]
        if self.declared.mode == "lazy":
            t = self._counts[places] + 1
            self._counts[places] = t
        else:
            t = self.updates = self.updates + 1
        weights, *slots = map(self._numbers, self._all)
        width, values = self.declared.width, gradient.values
        self.step.advance(places, width, weights, values, slots, t=t, lr=lr, update=update)

    def fill(self, values: Touched) -> None:
        """Sets the rows' values; their slots and counts stay."""
        rows = np.arange(self.declared.rows) if values.rows is None else values.rows
        np.put(self._weights, self._claim(rows), values.values.view(self._row))

    def look(self, rows: Rows | None, show: Show | None = None) -> Callable[[], Values]:
        """The present values of rows, touched or not (None: of all), flat; `show` makes another view of them.

        What is held is copied now; the rest, and the first values of the others, are computed when they are
        asked for, and that needs no lock.
        """
        asked = np.arange(self.declared.rows) if rows is None else rows
        places = self._places.take(asked)
        seen = np.flatnonzero(places)
        held, *slots = (
            self._fetched(each, places[seen] - 1) for each in (self._all if show else self._all[:1])
        )

        def read() -> Values:
            shown = show(self._numbers(held), [*map(self._numbers, slots)]).view(self._row) if show else held
            return self._numbers(self._completed(asked, places == 0, seen, shown))

        return read

    def _fetched(self, held: Items, places: NDArray[Any]) -> Items:
        """Rows copied into memory used before."""
        fetched: Items = self._blocks.take(places.size * self.declared.row_bytes).view(self._row)
        held.take(places, out=fetched, mode="clip")
        return fetched

    def image(self, blocks: Blocks) -> Iterator[tuple[Shaped, Block]]:
        """Everything held, copied, as named tensors and their bytes."""
        name, count = self.declared.name, self.seen
        shape = (count, *self.declared.shape[1:])
        for slot, held in zip(("param", *self.step.slots), self._all, strict=True):
            yield (f"{slot}/{name}", self.declared.dtype, shape), _copy(held[:count], blocks)
        yield (f"rows/{name}", "I64", (count,)), _copy(self._rows[:count], blocks)
        if self.declared.mode == "lazy":
            yield (f"t/{name}", "I64", (count,)), _copy(self._counts[:count], blocks)
        else:
            yield (f"t/{name}", "I64", ()), np.array([self.updates], np.int64).view(np.uint8)

    def restore(self, tensors: Tensors) -> None:
        """Takes what `image` gave, bit for bit. Raises KeyError naming a tensor that is not there."""
        name = self.declared.name
        rows = np.frombuffer(tensors[f"rows/{name}"], np.int64)
        self.seen, count = rows.size, rows.size
        self._rows[:count] = rows
        self._places[rows] = np.arange(1, count + 1)
        for slot, held in zip(("param", *self.step.slots), self._all, strict=True):
            held[:count] = np.frombuffer(tensors[f"{slot}/{name}"], self._row)
        counts = np.frombuffer(tensors[f"t/{name}"], np.int64)
        if self.declared.mode == "lazy":
            self._counts[:count] = counts
        else:
            self.updates = int(counts[0])

    def _advance_all(self, gradient: Touched, lr: float, update: Update) -> None:
        self.updates += 1
        values = gradient.values
        if gradient.rows is not None:
            values = np.zeros(self.declared.rows * self.declared.width, self.declared.numpy_dtype)
            np.put(values.view(self._row), gradient.rows, gradient.values.view(self._row))
        weights, *slots = map(self._numbers, self._all)
        self.step.advance_all(weights, values, slots, t=self.updates, lr=lr, update=update)

    @property
    def _all(self) -> tuple[Items, ...]:
        return (self._weights, *self._slots)

    def _numbers(self, rows: Items) -> Values:
        """Rows as the flat numbers they are."""
        return rows.view(self.declared.numpy_dtype)

    def _claim(self, rows: Rows) -> NDArray[np.int32]:
        """The places of rows, each named once; those never touched get theirs, and their first values."""
        places = self._places.take(rows) - 1
        new = np.flatnonzero(places < 0)
        if new.size:
            fresh, here = rows[new], slice(self.seen, self.seen + new.size)
            places[new] = np.arange(here.start, here.stop)
            self._places[fresh] = places[new] + 1
            self._rows[here] = fresh
            if self.declared.initial is not None and self.declared.initial["name"] != "zeros":
                self._weights[here] = self._first(fresh)
            for slot, start in zip(self._slots, self._starts, strict=True):
                if start:
                    self._numbers(slot[here])[:] = start
            self.seen = here.stop
        return places

    def _first(self, rows: Rows) -> Items:
        if self.declared.initial is None:  # all its rows came with an upload, so none is asked for
            return np.zeros(rows.size, self._row)
        width, dtype = self.declared.width, self.declared.numpy_dtype
        return first_values(self.declared.initial, self._key, rows, width, dtype).view(self._row)[:, 0]

    def _completed(
        self, asked: Rows, unseen: NDArray[np.bool_], seen: NDArray[np.intp], held: Items
    ) -> Items:
        if seen.size == asked.size:
            return held
        values = np.empty(asked.size, self._row)
        values[seen] = held
        values[unseen] = self._first(asked[unseen])
        return values


def _copy(held: Values, blocks: Blocks) -> Block:
    copied = blocks.take(held.nbytes)
    np.copyto(copied.view(held.dtype).reshape(held.shape), held)
    return copied
