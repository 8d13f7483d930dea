"""The whole state as tensors and facts: what a snapshot holds and GET …/state shows.

Tensors are named `param/<name>`, `<slot>/<name>`, `accumulated/<name>` and `t/<name>`, so a snapshot is a
safetensors file that any tool can open; the facts (spec, step, receipts) go beside it as JSON. Of a table
there are the rows that were touched, in the order of their first touch; `rows/<name>` says which they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gradledger_server.blocks import Block, Blocks
from gradledger_server.dtypes import widen
from gradledger_server.entries import Json, Tensors
from gradledger_server.errors import MalformedRecord
from gradledger_server.kernels.device import Array, Device
from gradledger_server.machine import waiting
from gradledger_server.machine.guard import Guard
from gradledger_server.machine.metrics import MetricReceipts
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipts
from gradledger_server.machine.sync.rounds import Rounds
from gradledger_server.optim.schedules.plateau import Watch

PIECE_BYTES = 8 << 20  # of a copy

Shaped = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Image:
    """`tensors` are (name, dtype, shape) in the order of `parts`' bytes, laid back to back."""

    facts: Json
    tensors: list[Shaped]
    parts: list[np.ndarray[Any, Any]]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


def copy(model: Model) -> Image:
    """The state as it is now: copies of the slots, and the published parameters themselves.

    The copies come first and in pieces: whoever writes them down can let go of each, while the parameters
    have to be held until the next step's replace them anyway.
    """
    layout = model.layout
    tensors: list[Shaped] = []
    parts: list[np.ndarray[Any, Any]] = []
    for index in range(len(layout.arenas)):
        for slot, values in _kept(model, index):
            tensors += model.slot_places[index].tensors(slot)
            parts += _copied(model, values)
    tensors += [(f"param/{name}", dtype, shape) for name, dtype, shape in layout.signature]
    parts.append(model.weights.publish())
    tensors += [(f"t/{name}", "I64", ()) for name, _, _ in layout.signature]
    parts.append(model.updates.copy().view(np.uint8))
    for table in model.tables.values():
        for shaped, part in table.image(model.blocks):
            tensors.append(shaped)
            parts.append(part)
    for shaped, part in waiting.image(model):
        tensors.append(shaped)
        parts.append(part)
    facts = {
        "origin": model.origin,
        "spec": model.spec.json,
        "step": model.step,
        "uploaded": model.uploaded,
        "missing": sorted(model.missing),
        "receipts": model.receipts.dump(),
        "metrics": model.metrics.dump(),
        "watches": [[group, *asdict(watch).values()] for group, watch in model.watches.items()],
        "accumulation": model.accumulation and model.accumulation.facts(),
        "rounds": model.rounds.dump(),
        "guard": model.guard.dump(),
        "held": waiting.facts(model),
        "past": list(model.past.blocks),
    }
    return Image(facts, tensors, parts)


def _copied(model: Model, values: Array) -> Iterator[Block]:
    size = PIECE_BYTES // values.dtype.itemsize
    for start in range(0, values.size, size):
        piece = values[start : start + size]
        host = model.blocks.take(piece.nbytes)
        model.device.to_host(piece, host.view(values.dtype))
        yield host


def restore(facts: Json, tensors: Tensors, device: Device, blocks: Blocks) -> Model:
    """The model an image was copied from, bit for bit. Raises MalformedRecord if tensors are missing."""
    model = Model(facts["spec"], facts["origin"], device, blocks)
    try:
        _fill(model, tensors)
    except KeyError as missing:
        raise MalformedRecord(f"the snapshot lacks tensor {missing}") from None
    model.step = facts["step"]
    model.uploaded = facts["uploaded"]
    model.missing = set(facts["missing"])
    model.receipts = Receipts.load(facts["receipts"])
    model.metrics = MetricReceipts.load(facts["metrics"])
    model.watches = {group: Watch(*seen) for group, *seen in facts["watches"]}
    if model.accumulation:
        model.accumulation.restore(facts["accumulation"])
    model.rounds = Rounds.load(model.spec.sync, facts["rounds"])
    model.guard = Guard.load(model.spec.guard, facts["guard"])
    waiting.restore(model, facts["held"], facts["past"], tensors)
    return model


def _kept(model: Model, arena: int) -> list[tuple[str, Array]]:
    """What is kept of an arena besides its weights, by the name it has in front of each tensor's."""
    kept = list(zip(model.slot_places[arena].names, model.slots[arena], strict=True))
    return [*kept, ("accumulated", model.accumulation.means[arena])] if model.accumulation else kept


def _fill(model: Model, tensors: Tensors) -> None:
    arenas = model.weights.begin()
    for place in model.layout.places:
        arena = model.layout.arenas[place.arena]
        slots, index = model.slot_places[place.arena], place.index
        for prefix, target in [("param", arenas[place.arena]), *_kept(model, place.arena)]:
            if not slots.has(prefix, index):
                continue
            raw = tensors[f"{prefix}/{place.tensor.name}"]
            here = slots.here(prefix, index, index + 1)
            target[here] = model.device.to_device(widen(raw, arena.dtype, arena.numpy_dtype))
        model.updates[place.index] = int.from_bytes(tensors[f"t/{place.tensor.name}"], "little", signed=True)
    model.weights.finish(arenas, [])
    for table in model.tables.values():
        table.restore(tensors)
