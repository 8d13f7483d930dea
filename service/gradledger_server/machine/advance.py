"""One step: a gradient moves weights, slots and tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradledger_server.machine.gradient import Gradient, Stretch, cut, stretches
from gradledger_server.machine.model import Model
from gradledger_server.machine.step import Update
from gradledger_server.optim import chain


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
    here, places = slice(run.start, run.stop), model.slot_places[run.arena]
    model.updates[run.first : run.last] += 1
    shape = model.layout.places[run.first].tensor.shape
    step.advance(
        after[run.arena][here],  # type: ignore[index]  # arrays of the device
        model.weights.arenas[run.arena][here],
        model.device.to_device(stretch.values),
        [
            slot[places.here(name, run.first, run.last)]
            for name, slot in zip(places.names, model.slots[run.arena], strict=True)
        ],
        t=int(model.updates[run.first]),
        lr=model.rate(model.layout.arenas[run.arena].group) * update.slowed,
        update=update,
        start=run.start,
        shapes=[shape, shape, *(places.shape(name, run.first) for name in places.names)],
    )


def _parts(model: Model, stretch: Stretch) -> list[Stretch]:
    """The stretch as it may be advanced in one go: tensor by tensor, or as far as tensors share their t."""
    whole = stretch.run
    apart = model.steps[whole.arena].way.whole
    return [
        Stretch(run, stretch.values[run.start - whole.start : run.stop - whole.start])
        for run in cut(model.layout, whole, np.arange(len(model.updates)) if apart else model.updates)
    ]
