"""2/6 decode: bytes become tensors, checked and measured before the log may hear of them."""

from __future__ import annotations

from typing import NamedTuple

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Push, Record, Tensors
from gradledger_server.errors import GradledgerError, Invalid, ParametersMissing
from gradledger_server.kernels.device import Device
from gradledger_server.machine import arrivals
from gradledger_server.machine.finite import measured
from gradledger_server.machine.gradient import Gradient, check, gather
from gradledger_server.machine.layout import Layout
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipt, identity_of
from gradledger_server.replica.laps import Laps
from gradledger_server.store.contract import Append
from gradledger_server.wire.digest import digest
from gradledger_server.wire.records import push_record


class Sender(NamedTuple):
    """What a request says of its push: who names it, what it was computed from, what it weighs."""

    worker: str | None = None
    sequence: int | None = None
    key: str | None = None
    base: int | None = None
    weight: float = 1.0


class Draft(NamedTuple):
    """A push not yet in the log: who names it, its entry, its gradient laid over the arenas, its record, its
    stopwatch."""

    identity: str | None  # None: neither a worker nor a key
    push: Push
    gradient: Gradient
    record: Record
    laps: Laps

    def wish(self, expected: str | None = None) -> Append:
        """What to ask of the store; `expected` makes it a compare-and-set on the log's chain."""
        sequence = None if self.identity is None else self.push.sequence or 1
        return Append(self.record, identity=self.identity, sequence=sequence, expected=expected)

    def known(self, model: Model) -> Receipt | None:
        """The receipt if the model has this push already; raises SequenceReused if it had another body."""
        if self.identity is None:
            return None
        return model.receipts.find(self.identity, self.push.sequence or 1, self.push.digest)

    def bare_receipt(self, model: Model, offset: int) -> Receipt:
        """What is left to say when a snapshot from elsewhere already holds this push and nothing names it."""
        push = self.push
        return Receipt(
            "applied",
            model.step,
            offset,
            push.base,
            None,
            None,
            None,
            push.grad_norm,
            push.durability,
            None,
            None,
        )

    def objection(self, model: Model) -> GradledgerError | None:
        """Why the model cannot take this push as it stands now; None if it can."""
        base = self.push.base
        if base is not None and base > model.step:
            return Invalid(
                f"base is {base}, but the model is at step {model.step}",
                hint="base is the step of the parameters the gradient came from, as their ETag gave it.",
                base=base,
                step=model.step,
            )
        if model.missing:
            some = ", ".join(sorted(model.missing)[:5]) + ", …" * (len(model.missing) > 5)
            return ParametersMissing(f"these tensors have no values yet: {some}")
        return arrivals.objection(model, self.push)


def draft(
    tensors: Tensors,
    sender: Sender,
    layout: Layout,
    *,
    device: Device,
    blocks: Blocks,
    durability: str,
    at_ms: int,
    nonfinite: str = "reject",
    laps: Laps | None = None,
) -> Draft:
    """Checks and measures a push. Raises what `gradient.check` and `finite.measured` raise."""
    check(layout, tensors)
    gradient, grad_norm, zeroed = measured(layout, gather(layout, tensors, blocks), device, nonfinite)
    push = Push(
        tensors=tensors,
        digest=digest(tensors.payload),
        worker=sender.worker,
        sequence=sender.sequence,
        key=sender.key,
        base=sender.base,
        weight=sender.weight,
        grad_norm=grad_norm,
        durability=durability,
        at_ms=at_ms,
        zeroed=zeroed,
    )
    return Draft(identity_of(push), push, gradient, push_record(push), laps or Laps())
