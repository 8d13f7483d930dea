"""4/6 apply: an entry becomes the next state. Pure: same entries, same bits, on any replica and backend.

Nothing here reads a clock, a random number or the environment; what was measured stands in the entry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Configure, Create, Delete, Entry, Metric, Push, Tensors, Upload
from gradledger_server.kernels.device import Device
from gradledger_server.machine import spec as specs
from gradledger_server.machine.gradient import Gradient, Run, Stretch, gather
from gradledger_server.machine.metrics import heed
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipt, identity_of


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
    lr = model.lr
    _advance_arenas(model, [part for part in gradient if isinstance(part, Stretch)])
    for part in gradient:
        if not isinstance(part, Stretch):
            model.tables[part.table.name].advance(part, lr=model.rate(part.table.group))
    receipt = _receipt(model, offset, push, lr)
    model.step += 1
    model.uploaded = None
    if (identity := identity_of(push)) is not None:
        model.receipts.record(identity, push.digest, receipt)
    return receipt


def _advance_arenas(model: Model, stretches: Sequence[Stretch]) -> None:
    if not stretches:  # rows of tables alone: the published block stays as it is
        return
    after = model.weights.begin()
    for stretch in stretches:
        for part in _same_count(model, stretch):
            _advance(model, part, after)
    model.weights.finish(after, [stretch.run for stretch in stretches])


def _advance(model: Model, stretch: Stretch, after: Sequence[object]) -> None:
    run, step = stretch.run, model.steps[stretch.run.arena]
    here = slice(run.start, run.stop)
    model.updates[run.first : run.last] += 1
    step.advance(
        after[run.arena][here],  # type: ignore[index]  # arrays of the device
        model.weights.arenas[run.arena][here],
        model.device.to_device(stretch.values),
        [slot[here] for slot in model.slots[run.arena]],
        t=int(model.updates[run.first]),
        lr=model.rate(model.layout.arenas[run.arena].group),
    )


def _same_count(model: Model, stretch: Stretch) -> list[Stretch]:
    """The stretch in parts whose tensors have been updated equally often: t is one number per kernel call."""
    run = stretch.run
    counts = model.updates[run.first : run.last]
    if run.last - run.first == 1:
        return [stretch]
    edges = run.first + 1 + np.flatnonzero(np.diff(counts))
    if not edges.size:
        return [stretch]
    parts, first = [], run.first
    for last in (*(int(edge) for edge in edges), run.last):
        start, stop = model.layout.places[first].start, model.layout.places[last - 1].stop
        values = stretch.values[start - run.start : stop - run.start]
        parts.append(Stretch(Run(run.arena, start, stop, first, last), values))
        first = last
    return parts


def _fill(model: Model, tensors: Tensors) -> None:
    values = gather(model.layout, tensors, model.blocks)
    stretches = [part for part in values if isinstance(part, Stretch)]
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


def _receipt(model: Model, offset: int, push: Push, lr: float) -> Receipt:
    return Receipt(
        fate="applied",
        step=model.step + 1,
        offset=offset,
        base=push.base,
        staleness=None if push.base is None else model.step - push.base,
        lr=lr,
        clip_factor=1.0,
        grad_norm=push.grad_norm,
        durability=push.durability,
        worker=push.worker,
        sequence=push.sequence,
    )
