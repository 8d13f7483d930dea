"""A gradient for some rows of a table: `emb` [k, …] beside `emb#rows` I64 [k].

A row named several times gets the sum of its gradients before any rule sees it (the square of a sum, not the
sum of squares): g1 + g2, then + g3 …, in the order of appearance, in the table's dtype. Norms are those of
the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradledger_server.blocks import Blocks
from gradledger_server.dtypes import NUMPY_DTYPE
from gradledger_server.entries import Placement, Tensors
from gradledger_server.errors import NonFinite, WrongRows, WrongShape
from gradledger_server.machine import quantized
from gradledger_server.machine.placements import beyond, require_dtype, require_shape
from gradledger_server.machine.tables import ROWS_OF_PUSH, DeclaredTable, Tables

Rows = NDArray[np.int64]

_PLACE_BITS = (ROWS_OF_PUSH - 1).bit_length()
FEW = 32  # rows: so many are summed one by one, more of them in step


class Touched(NamedTuple):
    """The gradient, or the new values, of a table's `rows` (ascending, each once; None: of all rows).

    `values` are flat, row-major, in the table's dtype.
    """

    table: DeclaredTable
    rows: Rows | None
    values: NDArray[Any]


def check(tables: Tables, tensors: Tensors, dtypes: Sequence[str], *, upload: bool) -> None:
    """Raises WrongRows, WrongShape or WrongDtype unless what the body holds of tables fits them.

    An upload may bring a whole table, and names no row twice; a push brings whole ones in mode dense only.
    """
    for name, table in tables.items():
        values, ids = tensors.table.get(name), tensors.table.get(table.ids_name)
        if values is None and ids is None:
            continue
        if values is None:
            raise WrongRows(f"{table.ids_name!r} names rows, but {name!r} is not in the body", tensor=name)
        require_dtype(name, values, dtypes)
        if ids is None:
            _require_whole(table, values, upload=upload)
        else:
            _require_some(table, tensors, upload=upload)


def gather(tables: Tables, tensors: Tensors, blocks: Blocks) -> list[Touched]:
    """The checked rows of each table in the body; views of it where nothing needs to be sorted or summed."""
    gradient = []
    for name, table in tables.items():
        sent = tensors.table.get(name)
        if sent is None:
            continue
        values = quantized.numbers(tensors, name, table.numpy_dtype)
        rows: Rows | None = None
        if table.ids_name in tensors.table:
            rows, values = summed(_ids(table, tensors), values.reshape(-1, table.width), blocks)
        gradient.append(Touched(table, rows, values.reshape(-1)))
    return gradient


def summed(ids: Rows, values: NDArray[Any], blocks: Blocks) -> tuple[Rows, NDArray[Any]]:
    """Each row once, ascending, with its gradients in `values` [k, width] summed in order of appearance."""
    if (ids[1:] > ids[:-1]).all():
        return ids, values
    rows, order = _sorted(ids)
    first = np.empty(rows.size, np.bool_)
    first[0] = True
    np.not_equal(rows[1:], rows[:-1], out=first[1:])
    if first.all():
        return rows, _fetched(values, order, blocks)
    starts = np.flatnonzero(first)
    total = _fetched(values, order[starts], blocks)
    with np.errstate(all="ignore"):  # what overflows is refused once it is measured
        _add_repeated(total, values, order, starts)
    return rows[starts], total


def _sorted(ids: Rows) -> tuple[Rows, NDArray[np.int64]]:
    """The ids ascending, and the place where each was; equal ones in order of appearance.

    Both fit one number of 64 bits, and NumPy sorts numbers with the processor's widest registers.
    """
    keys = ids << _PLACE_BITS
    keys |= np.arange(ids.size)
    keys.sort()
    return keys >> _PLACE_BITS, keys & (1 << _PLACE_BITS) - 1


def _fetched(values: NDArray[Any], order: NDArray[np.intp], blocks: Blocks) -> NDArray[Any]:
    """The rows of `values` in this order, in memory that was used before: fresh pages cost more than rows."""
    row = np.dtype((np.void, values.strides[0]))  # NumPy moves items faster than rows of an array
    fetched = blocks.take(order.size * row.itemsize)
    values.reshape(-1).view(row).take(order, out=fetched.view(row), mode="clip")
    return fetched.view(values.dtype).reshape(-1, values.shape[1])


def _add_repeated(
    total: NDArray[Any], values: NDArray[Any], order: NDArray[np.intp], starts: NDArray[np.intp]
) -> None:
    """Adds to each row's first gradient its others."""
    counts = np.diff(starts, append=order.size)
    nth, again = 1, np.flatnonzero(counts > 1)
    while again.size > FEW:
        total[again] += values[order[starts[again] + nth]]
        nth += 1
        again = again[counts[again] > nth]
    for at in again:
        rest = values[order[starts[at] + nth : starts[at] + counts[at]]]
        total[at] = np.add.accumulate(np.concatenate((total[at : at + 1], rest)))[-1]


def refuse_non_finite(touched: Touched) -> None:
    """Raises NonFinite naming the first element at fault, if there is one."""
    finite = np.isfinite(touched.values)
    if finite.all():
        return
    table = touched.table
    first = int(np.argmin(finite))
    at, within = divmod(first, table.width)
    row = at if touched.rows is None else int(touched.rows[at])
    index = [row, *(int(i) for i in np.unravel_index(within, table.shape[1:]))]
    count = int((~finite).sum())
    raise NonFinite(
        f"table {table.name!r} gets {count} NaN or infinite number{'s' * (count > 1)}, the first at {index}"
        f"{beyond(touched.values[first])}",
        tensor=table.name,
        index=index,
    )


def _ids(table: DeclaredTable, tensors: Tensors) -> Rows:
    return np.frombuffer(tensors[table.ids_name], NUMPY_DTYPE["I64"])


def _require_whole(table: DeclaredTable, values: Placement, *, upload: bool) -> None:
    if not upload and table.mode != "dense":
        raise WrongRows(
            f"a gradient for {table.name!r} must say which rows it is for: {table.ids_name!r} is missing",
            tensor=table.name,
            hint=f"Send {table.ids_name} as I64 [k] beside {table.name} [k, …]; a table in mode {table.mode} "
            "takes no dense gradient, which would touch every row and cost as much.",
        )
    require_shape(table.name, values, table.shape)


def _require_some(table: DeclaredTable, tensors: Tensors, *, upload: bool) -> None:
    values, ids = tensors.table[table.name], tensors.table[table.ids_name]
    require_dtype(table.ids_name, ids, ("I64",))
    _require_shapes(table, values, ids)
    rows = _ids(table, tensors)
    require_rows(table, rows)
    if upload:
        _require_settable(table, rows)


def _require_shapes(table: DeclaredTable, values: Placement, ids: Placement) -> None:
    if len(ids.shape) != 1:
        raise WrongShape(
            f"{table.ids_name!r} has shape {list(ids.shape)}; expected one dimension",
            tensor=table.ids_name,
            got=list(ids.shape),
        )
    why = f"a row for each of the {ids.shape[0]} in {table.ids_name!r}"
    require_shape(table.name, values, (ids.shape[0], *table.shape[1:]), why)
    if ids.shape[0] > ROWS_OF_PUSH:
        raise WrongRows(
            f"{table.ids_name!r} names {ids.shape[0]} rows; at most {ROWS_OF_PUSH} fit one body",
            tensor=table.name,
            hint="Send several smaller bodies.",
        )


def require_rows(table: DeclaredTable, ids: Rows) -> None:
    """Raises WrongRows unless the table has all of them."""
    # Read as unsigned, a negative number is a large one: one pass finds both ends.
    if not ids.size or ids.view(np.uint64).max() < table.rows:
        return
    first = int(np.argmax((ids < 0) | (ids >= table.rows)))
    raise WrongRows(
        f"{table.ids_name}[{first}] is {int(ids[first])}; {table.name!r} has rows 0 to {table.rows - 1}",
        tensor=table.name,
        index=[first],
        got=int(ids[first]),
    )


def _require_settable(table: DeclaredTable, ids: Rows) -> None:
    if table.initial is None:
        raise WrongRows(
            f"{table.name!r} has no init, so its values are uploaded as a whole, not by row",
            tensor=table.name,
        )
    if np.unique(ids).size != ids.size:
        raise WrongRows(f"{table.ids_name!r} names a row twice: which value counts?", tensor=table.name)
