"""The gradients of a round as one: laid over the arenas like any other, whoever brought which tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradledger_server.machine.gradient import Gradient, Stretch, cut, stretches
from gradledger_server.machine.reading import Run
from gradledger_server.machine.row_gradient import Touched, summed
from gradledger_server.machine.sync.merge import merge

if TYPE_CHECKING:
    from gradledger_server.machine.model import Model


def merged(
    model: Model, gradients: Sequence[Gradient], weights: Sequence[float]
) -> tuple[Gradient, list[int]]:
    """One gradient of several, and which of them are in it, by index.

    A tensor's gradient is merged over the pushes that brought it.
    """
    dense = [stretches(gradient) for gradient in gradients]
    rows = _rows(model, gradients, weights)
    if all([part.run for part in parts] == [part.run for part in dense[0]] for parts in dense):
        runs = [part.run for part in dense[0]]
        made, chosen = _merged(model, runs, [[part.values for part in parts] for parts in dense], weights)
        return [*made, *rows], chosen
    apart = [_by_tensor(model, parts) for parts in dense]
    made = []
    for index in sorted({index for parts in apart for index in parts}):
        bringing = [i for i, parts in enumerate(apart) if index in parts]
        given = [[apart[i][index].values] for i in bringing]
        one, _ = _merged(model, [apart[bringing[0]][index].run], given, [weights[i] for i in bringing])
        made += one
    return [*made, *rows], list(range(len(gradients)))


def _merged(
    model: Model, runs: Sequence[Run], given: Sequence[Sequence[np.ndarray]], weights: Sequence[float]
) -> tuple[list[Stretch], list[int]]:
    arenas = [list(arrays) for arrays in zip(*given, strict=True)]
    outs = [model.blocks.take(arrays[0].nbytes).view(arrays[0].dtype) for arrays in arenas]
    how = model.rounds.policy.aggregate
    chosen = merge(how, arenas, weights, outs, model.host.sum_of_squares)
    return [Stretch(run, out) for run, out in zip(runs, outs, strict=True)], chosen


def _by_tensor(model: Model, parts: Sequence[Stretch]) -> dict[int, Stretch]:
    """The stretches cut at every tensor, by the tensor's index in wire order."""
    apart = {}
    for part in parts:
        for run in cut(model.layout, part.run, np.arange(len(model.layout.places))):
            values = part.values[run.start - part.run.start : run.stop - part.run.start]
            apart[run.first] = Stretch(run, values)
    return apart


def _rows(model: Model, gradients: Sequence[Gradient], weights: Sequence[float]) -> list[Touched]:
    """Tables' rows: weighted, added up row by row, and divided by the weight of all pushes for a mean."""
    made = []
    for name, table in model.layout.tables.items():
        pairs = [(p, w) for g, w in zip(gradients, weights, strict=True) for p in g if _is_of(p, name)]
        if not pairs:
            continue
        total = sum(weights) if model.rounds.policy.aggregate.name == "mean" else 1.0
        kind = table.numpy_dtype.type
        ids = np.concatenate([_ids(part) for part, _ in pairs])
        values = np.concatenate([part.values * kind(weight) for part, weight in pairs])
        rows, added = summed(ids, values.reshape(-1, table.width), model.blocks)
        made.append(Touched(table, rows, (added / kind(total)).reshape(-1)))
    return made


def _is_of(part: Stretch | Touched, table: str) -> bool:
    return isinstance(part, Touched) and part.table.name == table


def _ids(part: Stretch | Touched) -> np.ndarray:
    assert isinstance(part, Touched)
    return np.arange(part.table.rows) if part.rows is None else part.rows
