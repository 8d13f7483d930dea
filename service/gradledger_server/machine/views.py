"""The parameters as readers ask to see them: the ones that train, or a view made of them when asked for."""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import numpy as np

from gradledger_server.blocks import Block
from gradledger_server.errors import ViewNotFound
from gradledger_server.kernels.device import Array
from gradledger_server.machine.gradient import cut
from gradledger_server.machine.layout import Arena
from gradledger_server.machine.model import Model
from gradledger_server.machine.reading import Run
from gradledger_server.machine.row_gradient import Rows
from gradledger_server.machine.spec import Spec
from gradledger_server.machine.table import Table, Values
from gradledger_server.optim import chain, views
from gradledger_server.optim.views import TRAIN

__all__ = ["TRAIN", "block", "names", "rows", "tag"]


def names(spec: Spec) -> tuple[str, ...]:
    """The views a model has: `train`, then those of its groups."""
    used = dict.fromkeys(arena.group for arena in spec.layout.arenas)
    used |= dict.fromkeys(table.group for table in spec.layout.tables.values())
    groups = (spec.groups[index] for index in used)
    return tuple(dict.fromkeys((TRAIN, *(v for g in groups for v in views.names(g.optimizer, g.transforms)))))


def tag(spec: Spec, view: str) -> str:
    """What tells versions of this view from those of others: its name, and the hyperparameters in it if any.

    Raises ViewNotFound, with the views there are, unless the model has this one.
    """
    if view == TRAIN:
        return view
    _require(spec, view)
    settings = [views.settings(view, group.optimizer) for group in spec.groups]
    return f"{view}-{crc32(repr(settings).encode()):08x}" if any(settings) else view


def _require(spec: Spec, view: str) -> None:
    if view not in (there := names(spec)):
        raise ViewNotFound(
            f"the model has no view {view[:64]!r}; it has {', '.join(there)}",
            view=view[:64],
            views=list(there),
        )


def block(model: Model, view: str) -> Block:
    """All tensors as the view shows them now, in wire order. Raises ViewNotFound.

    Tensors whose group has no such view, and those not updated yet, are shown as they train.
    """
    _require(model.spec, view)
    if view == TRAIN:
        return model.weights.publish()
    seen = model.blocks.take(model.layout.nbytes)
    for index, arena in enumerate(model.layout.arenas):
        host = seen[arena.offset : arena.offset + arena.nbytes].view(arena.numpy_dtype)
        model.device.to_host(_arena(model, view, index, arena), host)
    seen.flags.writeable = False
    return seen


def rows(model: Model, table: Table, asked: Rows | None, view: str) -> Callable[[], Values]:
    """Some rows of a table as the view shows them now, all if `asked` is None. Raises ViewNotFound.

    As `Table.look` does, it copies now and computes when it is called.
    """
    _require(model.spec, view)
    group = model.spec.groups[table.declared.group]
    program = views.program(view, group.optimizer, group.transforms)
    if program is None:
        return table.look(asked)
    kernel = model.host.kernel(program, table.declared.numpy_dtype)
    numbers = chain.numbers(group.optimizer, group.transforms)
    # No view of a rule depends on t, which rows may have each their own.
    scalars = program.evaluate(chain.moment(numbers, t=1, s=model.step, lr=numbers["lr"]))

    def show(weights: Values, slots: list[Values]) -> Values:
        seen = np.empty_like(weights)
        kernel(seen, weights, weights, slots, scalars)
        return seen

    return table.look(asked, show)


def _arena(model: Model, view: str, index: int, arena: Arena) -> Array:
    group, weights = model.spec.groups[arena.group], model.weights.arenas[index]
    program = views.program(view, group.optimizer, group.transforms)
    if program is None:
        return weights
    kernel, seen = (
        model.device.kernel(program, arena.numpy_dtype),
        model.device.empty(arena.size, arena.numpy_dtype),
    )
    numbers = chain.numbers(group.optimizer, group.transforms)
    for run in cut(model.layout, Run(index, 0, arena.size, arena.first, arena.last), model.updates):
        here, t = slice(run.start, run.stop), int(model.updates[run.first])
        if t == 0:
            seen[here] = weights[here]
            continue
        scalars = program.evaluate(chain.moment(numbers, t=t, s=model.step, lr=numbers["lr"]))
        # A view reads averages only, which lie as the weights do; what lies otherwise is not read.
        slots = [(slot if slot.size == arena.size else weights)[here] for slot in model.slots[index]]
        kernel(seen[here], weights[here], weights[here], slots, scalars)
    return seen
