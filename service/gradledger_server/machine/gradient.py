"""A gradient laid over the arenas: runs of adjacent tensors, each one flat array.

Bytes that arrived in arena order and in the parameter's dtype become a view; anything else is gathered
and widened into a scratch block, run by run. Rows of tables come behind the runs (row_gradient.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gradledger_server.blocks import Blocks
from gradledger_server.dtypes import ITEM_BYTES, SCALE_SUFFIX
from gradledger_server.entries import Tensors
from gradledger_server.errors import MalformedBody, NonFinite, UnknownTensor
from gradledger_server.machine import quantized, row_gradient
from gradledger_server.machine.layout import Layout
from gradledger_server.machine.placements import beyond, require_dtype, require_shape
from gradledger_server.machine.reading import VALUE_DTYPES, Plan, Run, reading
from gradledger_server.machine.row_gradient import Touched

GRADIENT_DTYPES = (*VALUE_DTYPES, quantized.DTYPE)


class Reducer(Protocol):
    """What measuring needs of a device."""

    def sum_of_squares(self, array: Any) -> float: ...

    def at_home(self, array: Any) -> NDArray[Any]: ...


class Stretch(NamedTuple):
    """The gradient of one run: a flat array in the arena's dtype."""

    run: Run
    values: NDArray[Any]  # or an array of the device, once it is a mean of several


Gradient = Sequence[Stretch | Touched]


def check(layout: Layout, tensors: Tensors, *, upload: bool = False) -> None:
    """Raises UnknownTensor, WrongShape, WrongDtype, WrongScale or WrongRows unless all fits.

    Nothing is broadcast. With `upload` the tensors are values and not a gradient: a table may then come as a
    whole, and nothing as I8. What is not finite is for `norm` to find.
    """
    if not upload and reading(layout, tensors.table).fits:
        return
    if not tensors.table:
        raise MalformedBody("the body holds no tensor", hint="Send at least one tensor of the model.")
    dtypes = VALUE_DTYPES if upload else GRADIENT_DTYPES
    for name, place in tensors.table.items():
        known = layout.by_name.get(name)
        if known is None:
            _require_beside(layout, tensors, name)
            continue
        require_shape(name, place, known.tensor.shape)
        require_dtype(name, place, dtypes)
    row_gradient.check(layout.tables, tensors, dtypes, upload=upload)
    sent, ours = tensors.table.items(), layout.wire_dtypes
    if whole := [name for name, place in sent if place.dtype == quantized.DTYPE and name in ours]:
        quantized.check(tensors, whole)


def gather(layout: Layout, tensors: Tensors, blocks: Blocks) -> list[Stretch | Touched]:
    """The checked tensors as stretches, in arena order, then tables' rows. Views where the bytes allow it."""
    gradient: list[Stretch | Touched] = []
    for plan in reading(layout, tensors.table).plans:
        values = _view(plan, tensors)
        if values is None:
            values = _copied(layout, plan.run, tensors, blocks)
        gradient.append(Stretch(plan.run, values))
    return [*gradient, *row_gradient.gather(layout.tables, tensors, blocks)] if layout.tables else gradient


def _require_beside(layout: Layout, tensors: Tensors, name: str) -> None:
    """What is no dense tensor must be of a table, which is looked at later, or the scales of something."""
    if name in layout.wire_dtypes:
        return
    scaled = name.removesuffix(SCALE_SUFFIX)
    if scaled == name or not (scaled in layout.by_name or scaled in layout.tables):
        raise UnknownTensor.among(name, layout.wire_dtypes)
    quantized.require_scaled(tensors, name)


def stretches(gradient: Gradient) -> list[Stretch]:
    """The gradient without the rows of tables."""
    return [part for part in gradient if isinstance(part, Stretch)]


def norm(layout: Layout, gradient: Gradient, reducer: Reducer) -> float:
    """The Euclidean norm over all of it; raises NonFinite naming the first tensor at fault."""
    total = _total(gradient, reducer)
    if math.isfinite(total):
        return math.sqrt(total)
    for part in gradient:
        if isinstance(part, Stretch):
            _refuse_non_finite(layout, part)
        else:
            row_gradient.refuse_non_finite(part)
    return _scaled_norm(gradient, reducer)


def length(gradient: Gradient, reducer: Reducer) -> float:
    """The same norm of what nobody can refuse any more, wherever it lies; infinite if a number is."""
    total = _total(gradient, reducer)
    if math.isfinite(total):
        return math.sqrt(total)
    there = [part._replace(values=reducer.at_home(part.values)) for part in gradient]
    finite = all(np.isfinite(part.values).all() for part in there)
    return _scaled_norm(there, reducer) if finite else math.inf


def _total(gradient: Gradient, reducer: Reducer) -> float:
    if len(gradient) == 1:
        return reducer.sum_of_squares(gradient[0].values)
    return sum(reducer.sum_of_squares(part.values) for part in gradient)


def cut(layout: Layout, run: Run, facts: NDArray[Any]) -> Iterator[Run]:
    """The run in parts whose tensors share one fact; `facts` has one for each tensor in wire order."""
    if run.last - run.first == 1:
        yield run
        return
    edges = (run.first + 1 + np.flatnonzero(np.diff(facts[run.first : run.last]))).tolist()
    first = run.first
    for last in (*edges, run.last):
        start = run.start if first == run.first else layout.places[first].start
        stop = run.stop if last == run.last else layout.places[last - 1].stop
        yield Run(run.arena, start, stop, first, last)
        first = last


def _scaled_norm(gradient: Gradient, reducer: Reducer) -> float:
    """Of finite numbers whose squares overflow float64: scaled first, as BLAS' nrm2 does."""
    largest = max(float(np.abs(stretch.values).max(initial=0.0)) for stretch in gradient)
    scaled = (np.divide(stretch.values, largest, dtype=np.float64) for stretch in gradient)
    return largest * math.sqrt(sum(map(reducer.sum_of_squares, scaled)))


def _refuse_non_finite(layout: Layout, stretch: Stretch) -> None:
    finite = np.isfinite(stretch.values)
    if finite.all():
        return
    first = int(np.argmin(finite)) + stretch.run.start
    places = layout.places[stretch.run.first : stretch.run.last]
    place = next(p for p in places if p.start <= first < p.stop)
    within = finite[place.start - stretch.run.start : place.stop - stretch.run.start]
    index = [int(i) for i in np.unravel_index(first - place.start, place.tensor.shape)]
    count = int((~within).sum())
    raise NonFinite(
        f"tensor {place.tensor.name!r} holds {count} NaN or infinite number{'s' * (count > 1)}, the first at "
        f"{index}{beyond(stretch.values[first - stretch.run.start])}",
        tensor=place.tensor.name,
        index=index,
    )


def _view(plan: Plan, tensors: Tensors) -> NDArray[Any] | None:
    """The run as it stands in the body; None if it must be copied (other order, dtype or alignment)."""
    if plan.at is None:
        return None
    values: NDArray[Any] = np.ndarray((plan.size,), plan.dtype, tensors.data, plan.at)
    return values if values.flags.aligned else None


def _copied(layout: Layout, run: Run, tensors: Tensors, blocks: Blocks) -> NDArray[Any]:
    arena = layout.arenas[run.arena]
    values = blocks.take((run.stop - run.start) * ITEM_BYTES[arena.dtype]).view(arena.numpy_dtype)
    for place in layout.places[run.first : run.last]:
        out = values[place.start - run.start : place.stop - run.start]
        quantized.numbers(tensors, place.tensor.name, arena.numpy_dtype, out)
    return values
