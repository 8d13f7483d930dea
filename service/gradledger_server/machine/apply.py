"""4/6 apply: an entry becomes the next state. Pure: same entries, same bits, on any replica and backend.

Nothing here reads a clock, a random number or the environment; what was measured stands in the entry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Configure, Create, Delete, Entry, Push, Tensors, Upload
from gradledger_server.kernels.device import Device
from gradledger_server.machine import spec as specs
from gradledger_server.machine.gradient import Run, Stretch, gather
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipt


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


def apply(
    model: Model, offset: int, entry: Entry, gradient: Sequence[Stretch] | None = None
) -> Receipt | None:
    """Advances `model` by the entry at `offset`; a push answers its receipt.

    `gradient` is the push already gathered, if the caller has it. Entries are valid by the time they are
    logged, so nothing here is refused.
    """
    model.receipts.forget(offset - 1)
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
        case Create() | Delete():
            pass
    return None


def identity_of(push: Push) -> str | None:
    """Who names the push: its worker, its key, or nobody."""
    if push.worker is not None:
        return f"w:{push.worker}"
    return None if push.key is None else f"k:{push.key}"


def _push(model: Model, offset: int, push: Push, gradient: Sequence[Stretch]) -> Receipt:
    lr = model.lr
    after = model.weights.begin()
    for stretch in gradient:
        for part in _parts(model, stretch):
            _advance(model, part, after)
    model.weights.finish(after, [stretch.run for stretch in gradient])
    receipt = _receipt(model, offset, push, lr)
    model.step += 1
    model.uploaded = None
    if (identity := identity_of(push)) is not None:
        model.receipts.record(identity, push.digest, receipt)
    return receipt


def _advance(model: Model, stretch: Stretch, after: Sequence[object]) -> None:
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
        s=model.step,
        shapes=[shape, shape, *(places.shape(name, run.first) for name in places.names)],
    )


def _parts(model: Model, stretch: Stretch) -> list[Stretch]:
    """The stretch as it may be advanced in one go: tensor by tensor, or as far as tensors share their t."""
    run = stretch.run
    if model.steps[run.arena].way.whole:
        return _cut(model, stretch, range(run.first + 1, run.last))
    return _same_count(model, stretch)


def _same_count(model: Model, stretch: Stretch) -> list[Stretch]:
    """The stretch in parts whose tensors have been updated equally often: t is one number per kernel call."""
    run = stretch.run
    counts = model.updates[run.first : run.last]
    if run.last - run.first == 1:
        return [stretch]
    edges = run.first + 1 + np.flatnonzero(np.diff(counts))
    return _cut(model, stretch, [int(edge) for edge in edges])


def _cut(model: Model, stretch: Stretch, edges: Sequence[int]) -> list[Stretch]:
    """The stretch in parts that begin at these tensors."""
    run = stretch.run
    if not edges:
        return [stretch]
    parts, first = [], run.first
    for last in (*edges, run.last):
        start, stop = model.layout.places[first].start, model.layout.places[last - 1].stop
        values = stretch.values[start - run.start : stop - run.start]
        parts.append(Stretch(Run(run.arena, start, stop, first, last), values))
        first = last
    return parts


def _fill(model: Model, tensors: Tensors) -> None:
    gradient = gather(model.layout, tensors, model.blocks)
    after = model.weights.begin()
    for stretch in gradient:
        after[stretch.run.arena][stretch.run.start : stretch.run.stop] = model.device.to_device(
            stretch.values
        )
    model.weights.finish(after, [stretch.run for stretch in gradient])
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
