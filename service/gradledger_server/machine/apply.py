"""4/6 apply: an entry becomes the next state. Pure: same entries, same bits, on any replica and backend.

Nothing here reads a clock, a random number or the environment; what was measured stands in the entry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Configure, Create, Delete, Entry, Metric, Push, Tensors, Upload
from gradledger_server.kernels.device import Device
from gradledger_server.machine import spec as specs
from gradledger_server.machine.gradient import Gradient, Stretch, cut, gather, length
from gradledger_server.machine.metrics import heed
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipt, identity_of
from gradledger_server.machine.step import Update
from gradledger_server.optim import chain


def begin(entry: Create, device: Device, blocks: Blocks) -> Model:
    """The model as its first entry makes it."""
    model = Model(entry.spec, origin(entry), device, blocks)
    if entry.tensors is not None:
        _fill(model, entry.tensors)
    return model


def origin(entry: Create) -> str:
    """A digest of what was asked for: two equal creations are one, however often the request was sent."""
    asked = json.dumps([entry.spec, entry.digest], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def apply(model: Model, offset: int, entry: Entry, gradient: Gradient | None = None) -> Receipt | None:
    """Advances `model` by the entry at `offset`; a push answers its receipt.

    `gradient` is the push already gathered, if the caller has it. Entries are valid by the time they are
    logged, so nothing here is refused.
    """
    model.receipts.forget(offset - 1)
    model.metrics.forget(offset - 1)
    match entry:
        case Push():
            return _push(model, offset, entry, gradient or gather(model.layout, entry.tensors, model.blocks))
        case Upload():
            # The first values are where the model begins; replacing them later moves the public version.
            model.step += not model.missing
            _fill(model, entry.tensors)
            model.uploaded = entry.digest
        case Configure():
            model.configure(specs.read(entry.spec))
        case Metric():
            heed(model, offset, entry)
        case Create() | Delete():
            pass
    return None


def _push(model: Model, offset: int, push: Push, gradient: Gradient) -> Receipt:
    update, receipt = Update(offset, model.step, push.grad_norm), _receipt(model, offset, push)
    if (accumulation := model.accumulation) is None:
        receipt = _update(model, gradient, update, receipt)
    else:
        settings = model.spec.transforms["accumulate"]
        accumulation.add(_stretches(gradient), push.weight if settings["weighted"] else 1.0)
        if accumulation.pushes >= settings["every"]:
            mean = accumulation.close()
            update = replace(update, norm=length(mean, model.device))
            receipt = _update(model, mean, update, receipt)
            accumulation.clear()
    if (identity := identity_of(push)) is not None:
        model.receipts.record(identity, push.digest, receipt)
    return receipt


def _update(model: Model, gradient: Gradient, update: Update, receipt: Receipt) -> Receipt:
    """The model's next step; the receipt of the push that made it."""
    clip_factor = chain.clip_factor(model.spec.transforms, update.norm)
    receipt = replace(receipt, fate="applied", step=model.step + 1, lr=model.lr, clip_factor=clip_factor)
    _advance_arenas(model, _stretches(gradient), update)
    for part in gradient:
        if not isinstance(part, Stretch):
            lr = model.rate(part.table.group)
            model.tables[part.table.name].advance(part, lr=lr, update=update)
    model.step += 1
    model.uploaded = None
    return receipt


def _advance_arenas(model: Model, stretches: Sequence[Stretch], update: Update) -> None:
    if not stretches:  # rows of tables alone: the published block stays as it is
        return
    after = model.weights.begin()
    for stretch in stretches:
        for part in _parts(model, stretch):
            _advance(model, part, after, update)
    model.weights.finish(after, [stretch.run for stretch in stretches])


def _stretches(gradient: Gradient) -> list[Stretch]:
    """The gradient without the rows of tables."""
    return [part for part in gradient if isinstance(part, Stretch)]


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
        lr=model.rate(model.layout.arenas[run.arena].group),
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


def _fill(model: Model, tensors: Tensors) -> None:
    values = gather(model.layout, tensors, model.blocks)
    stretches = _stretches(values)
    after = model.weights.begin()
    for stretch in stretches:
        after[stretch.run.arena][stretch.run.start : stretch.run.stop] = model.device.to_device(
            stretch.values
        )
    model.weights.finish(after, [stretch.run for stretch in stretches])
    for part in values:
        if not isinstance(part, Stretch):
            model.tables[part.table.name].fill(part)
    model.missing -= set(tensors.table)


def _receipt(model: Model, offset: int, push: Push) -> Receipt:
    """Of a push that has made no step yet."""
    return Receipt(
        fate="accumulated",
        step=model.step,
        offset=offset,
        base=push.base,
        staleness=None if push.base is None else model.step - push.base,
        lr=None,
        clip_factor=None,
        grad_norm=push.grad_norm,
        durability=push.durability,
        worker=push.worker,
        sequence=push.sequence,
    )
