"""A model's state at one offset: weights, slots, counts, receipts, watches. Only `apply` changes it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Json, Push
from gradledger_server.kernels.device import Device
from gradledger_server.kernels.kernel import Bound
from gradledger_server.machine import spec as specs
from gradledger_server.machine.accumulation import Accumulation
from gradledger_server.machine.gradient import Gradient
from gradledger_server.machine.guard import Guard
from gradledger_server.machine.metrics import MetricReceipts, Watches, carried
from gradledger_server.machine.reading import Run
from gradledger_server.machine.receipts import Receipt, Receipts
from gradledger_server.machine.slots import SlotPlaces
from gradledger_server.machine.staleness import Past
from gradledger_server.machine.step import Step
from gradledger_server.machine.sync.rounds import Rounds
from gradledger_server.machine.table import Table
from gradledger_server.machine.weights import Array, Weights
from gradledger_server.optim.schedules.catalog import learning_rate

SMALL_BYTES = 1 << 20  # of parameters: a fused pass over them is shorter than a thread's turn


class Model:
    """Mutable state, owned by whoever holds the model's lock.

    `accumulation` holds pushes that have made no step yet, if the spec asks for it. `rounds` says which
    pushes wait for which others, `held` has them by offset; `past` are the latest steps' weights, if kept.
    `updates[i]` counts the updates of tensor i in wire order (its t); `step` counts the model's;
    `missing` names the tensors that have no values yet. `origin` tells this creation from any other;
    `uploaded` is the digest of the values as uploaded while no push has moved them. `watches` are what
    plateau schedules have seen, by group. `fates` are the receipts that the latest entry gave or changed, by
    the offset of their push. `guard` knows who is quarantined, and which norms are usual. `bound` has the
    kernels of runs whose weights and slots stay where they are. `small` says that a push makes its step in
    microseconds: at once, in one fused pass over little.
    """

    def __init__(self, expanded: Json, origin: str, device: Device, blocks: Blocks) -> None:
        self.origin = origin
        self.uploaded: str | None = None
        self.device = device
        self.host: Device = device.host
        self.blocks = blocks
        self.watches: Watches = {}
        self.tables: dict[str, Table] = {}
        self.spec = specs.read(expanded)
        self.rounds = Rounds(self.spec.sync)
        self.guard = Guard(self.spec.guard)
        self.held: dict[int, tuple[Push, Gradient]] = {}
        self.past = Past(self.spec.sync.staleness.history)
        self.configure(self.spec)
        self.weights = Weights(self.layout, device, blocks)
        self.slot_places = [
            SlotPlaces(self.layout, arena, self.spec.groups[arena.group]) for arena in self.layout.arenas
        ]
        self.slots: list[list[Array]] = [
            [
                device.full(places.size(slot), arena.numpy_dtype, start)
                for slot, start in self.spec.groups[arena.group].slot_starts.items()
            ]
            for arena, places in zip(self.layout.arenas, self.slot_places, strict=True)
        ]
        self.tables |= {
            name: Table(declared, self.spec.groups[declared.group], self.host, blocks)
            for name, declared in self.layout.tables.items()
        }
        accumulates = "accumulate" in self.spec.transforms
        self.accumulation = Accumulation(self.layout, device) if accumulates else None
        self.updates: NDArray[np.int64] = np.zeros(len(self.layout.places), np.int64)
        self.step = 0
        self.missing = {place.tensor.name for place in self.layout.places}
        self.missing |= {name for name, table in self.layout.tables.items() if table.initial is None}
        self.receipts = Receipts()
        self.fates: dict[int, Receipt] = {}
        self.metrics = MetricReceipts()

    def configure(self, spec: specs.Spec, at_ms: int = 0) -> None:
        """Takes a spec whose layout and slots are the present ones; a changed plateau begins anew."""
        self.watches = carried(self.watches, self.spec, spec)
        self.spec = spec
        self.rounds.configure(spec.sync, at_ms)
        self.guard.configure(spec.guard)
        self.past.kept = spec.sync.staleness.history
        self.layout = spec.layout
        self.bound: dict[Run, Bound] = {}
        self.steps = [
            Step.of(spec.groups[arena.group], index, arena.numpy_dtype, self.device)
            for index, arena in enumerate(spec.layout.arenas)
        ]
        for name, table in self.tables.items():
            table.configure(spec.groups[spec.layout.tables[name].group], self.host)
        self.small = (
            self.layout.nbytes <= SMALL_BYTES
            and self.device.on_host
            and self.rounds.policy.immediate
            and all(table.mode != "dense" for table in self.layout.tables.values())
            and not any(step.way.whole or step.draws for step in self.steps)
        )

    @property
    def lr(self) -> float:
        """The learning rate the model's own optimizer will use next."""
        return self.rate(len(self.spec.groups) - 1)

    def rate(self, group: int, watches: Watches | None = None) -> float:
        """The learning rate a group's optimizer will use next, or would if these were the watches."""
        its, watch = self.spec.groups[group], (watches or self.watches).get(group)
        reductions = watch.reductions if watch else 0
        return learning_rate(its.schedule, its.optimizer["lr"], self.step, reductions)

    @property
    def nbytes(self) -> int:
        """Bytes held of parameters, slots and pushes accumulated."""
        accumulated = self.accumulation.nbytes if self.accumulation else 0
        slots = sum(int(slot.nbytes) for slots in self.slots for slot in slots)
        tables = sum(table.nbytes for table in self.tables.values())
        waiting = sum(part.values.nbytes for _, gradient in self.held.values() for part in gradient)
        return self.layout.nbytes + accumulated + slots + tables + waiting + self.past.nbytes
