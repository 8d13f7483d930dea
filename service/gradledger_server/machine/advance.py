"""One step: a gradient moves weights, slots and tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradledger_server.kernels.device import Array
from gradledger_server.kernels.kernel import Bound
from gradledger_server.machine.gradient import Gradient, Stretch, cut, stretches
from gradledger_server.machine.model import Model
from gradledger_server.machine.reading import Run
from gradledger_server.machine.step import Update
from gradledger_server.machine.ways import Fused
from gradledger_server.optim import chain

BOUND_KEPT = 1024


def advance(model: Model, gradient: Gradient, update: Update) -> tuple[float, float]:
    """The model's next step; the learning rate it was made with, and what clipping made of the gradient."""
    made = model.lr * update.slowed, chain.clip_factor(model.spec.transforms, update.norm)
    _advance_arenas(model, stretches(gradient), update)
    for part in gradient:
        if not isinstance(part, Stretch):
            lr = model.rate(part.table.group) * update.slowed
            model.tables[part.table.name].advance(part, lr=lr, update=update)
    model.step += 1
    model.uploaded = None
    return made


def _advance_arenas(model: Model, parts: Sequence[Stretch], update: Update) -> None:
    if not parts:  # rows of tables alone: the published block stays as it is
        return
    after = model.weights.begin()
    for stretch in parts:
        for part in _parts(model, stretch):
            _advance(model, part, after, update)
    model.weights.finish(after, [stretch.run for stretch in parts])


def _advance(model: Model, stretch: Stretch, after: Sequence[object], update: Update) -> None:
    run, step = stretch.run, model.steps[stretch.run.arena]
    t, lr = _count(model, run), model.rate(model.layout.arenas[run.arena].group) * update.slowed
    if isinstance(step.way, Fused) and model.weights.stay and not step.draws:
        bound = model.bound.get(run) or _bind(model, run, step.way)
        now = {"t": t, "s": update.s, "lr": lr, "norm": update.norm}
        bound(model.device.to_device(stretch.values), step.way.folded(now))
        return
    places, shape = model.slot_places[run.arena], model.layout.places[run.first].tensor.shape
    step.advance(
        after[run.arena][run.start : run.stop],  # type: ignore[index]  # arrays of the device
        model.weights.arenas[run.arena][run.start : run.stop],
        model.device.to_device(stretch.values),
        _slots(model, run),
        t=t,
        lr=lr,
        update=update,
        start=run.start,
        shapes=[shape, shape, *(places.shape(name, run.first) for name in places.names)],
    )


def _count(model: Model, run: Run) -> int:
    """Counts an update of the run's tensors, which share their t; answers it."""
    updates, t = model.updates, int(model.updates[run.first]) + 1
    if run.last - run.first == 1:
        updates[run.first] = t  # a single number is set in a fraction of the time
    else:
        updates[run.first : run.last] = t
    return t


def _bind(model: Model, run: Run, way: Fused) -> Bound:
    weights = model.weights.arenas[run.arena][run.start : run.stop]
    if len(model.bound) >= BOUND_KEPT:  # clients choose which tensors they send together
        model.bound.clear()
    model.bound[run] = way.kernel.bind(weights, _slots(model, run))
    return model.bound[run]


def _slots(model: Model, run: Run) -> list[Array]:
    places, slots = model.slot_places[run.arena], model.slots[run.arena]
    return [
        slot[places.here(name, run.first, run.last)] for name, slot in zip(places.names, slots, strict=True)
    ]


def _parts(model: Model, stretch: Stretch) -> list[Stretch]:
    """The stretch as it may be advanced in one go: tensor by tensor, or as far as tensors share their t."""
    whole = stretch.run
    if whole.last - whole.first == 1:
        return [stretch]
    apart = model.steps[whole.arena].way.whole
    return [
        Stretch(run, stretch.values[run.start - whole.start : run.stop - whole.start])
        for run in cut(model.layout, whole, np.arange(len(model.updates)) if apart else model.updates)
    ]
