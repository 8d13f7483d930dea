"""4/6 apply: an entry becomes the next state. Pure: same entries, same bits, on any replica and backend.

Nothing here reads a clock, a random number or the environment; what was measured stands in the entry.
"""

from __future__ import annotations

import hashlib
import json

from gradledger_server.blocks import Blocks
from gradledger_server.entries import (
    Close,
    Configure,
    Create,
    Delete,
    Entry,
    Join,
    Leave,
    Metric,
    Push,
    Quarantine,
    Tensors,
    Upload,
)
from gradledger_server.kernels.device import Device
from gradledger_server.machine import spec as specs
from gradledger_server.machine.arrivals import arrive, settle
from gradledger_server.machine.finite import zeroed
from gradledger_server.machine.gradient import Gradient, Stretch, gather, stretches
from gradledger_server.machine.metrics import heed
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


def apply(model: Model, offset: int, entry: Entry, gradient: Gradient | None = None) -> Receipt | None:
    """Advances `model` by the entry at `offset`; a push answers its receipt.

    `gradient` is the push already gathered, if the caller has it. Entries are valid by the time they are
    logged, so nothing here is refused.
    """
    model.fates.clear()
    model.receipts.forget(offset - 1)
    model.metrics.forget(offset - 1)
    match entry:
        case Push():
            if gradient is None:
                gradient = gather(model.layout, entry.tensors, model.blocks)
                gradient = zeroed(gradient)[0] if entry.zeroed else gradient
            return arrive(model, offset, entry, gradient)
        case Upload():
            # The first values are where the model begins; replacing them later moves the public version.
            model.step += not model.missing
            _fill(model, entry.tensors)
            model.uploaded = entry.digest
        case Configure():
            model.configure(specs.read(entry.spec), entry.at_ms)
            settle(model, entry.at_ms)
        case Metric():
            heed(model, offset, entry)
        case Join():
            if entry.worker not in model.guard.quarantined:
                model.rounds.join(entry.worker, entry.at_ms)
            settle(model, entry.at_ms)
        case Leave():
            model.rounds.leave(entry.worker)
            settle(model, entry.at_ms)
        case Close():
            model.rounds.close(entry.round)
            settle(model, entry.at_ms)
        case Quarantine():
            model.guard.set(entry.worker, quarantined=entry.begins)
            if entry.begins:
                model.rounds.leave(entry.worker)
            settle(model, entry.at_ms)
        case Create() | Delete():
            pass
    return None


def _fill(model: Model, tensors: Tensors) -> None:
    values = gather(model.layout, tensors, model.blocks)
    dense = stretches(values)
    after = model.weights.begin()
    for stretch in dense:
        after[stretch.run.arena][stretch.run.start : stretch.run.stop] = model.device.to_device(
            stretch.values
        )
    model.weights.finish(after, [stretch.run for stretch in dense])
    for part in values:
        if not isinstance(part, Stretch):
            model.tables[part.table.name].fill(part)
    model.missing -= set(tensors.table)
