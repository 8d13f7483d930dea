"""One arena's step: its group's traced chain, compiled for its dtype and given its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradledger_server.entries import Json
from gradledger_server.kernels.device import Array, Device, Kernel
from gradledger_server.kernels.normals import standard_normal
from gradledger_server.kernels.trace import Program
from gradledger_server.machine.spec import Group
from gradledger_server.optim import catalog, chain


@dataclass(frozen=True, slots=True)
class Update:
    """What an update knows of its push: its place in the log, the model's step so far, the whole norm."""

    offset: int
    s: int
    norm: float


@dataclass(frozen=True, slots=True)
class Step:
    """How one arena is advanced."""

    numbers: Mapping[str, float]  # the hyperparameters and settings that are numbers
    schedule: Json
    slots: tuple[str, ...]
    program: Program
    kernel: Kernel
    device: Device
    arena: int

    @classmethod
    def of(cls, group: Group, arena: int, dtype: np.dtype[Any], device: Device) -> Step:
        program = chain.program(group.optimizer, group.transforms)
        return cls(
            numbers=chain.numbers(group.optimizer, group.transforms),
            schedule=group.schedule,
            slots=tuple(chain.slot_starts(group.optimizer, group.transforms)),
            program=program,
            kernel=device.kernel(program, dtype),
            device=device,
            arena=arena,
        )

    def advance(
        self,
        out: Array,
        w: Array,
        g: Array,
        slots: Sequence[Array],
        *,
        t: int,
        update: Update,
        start: int = 0,
    ) -> None:
        """Update number `t` of the arena's elements from `start` on; the new weights go into `out`."""
        lr = catalog.learning_rate(self.schedule, self.numbers["lr"], update.s)
        now = chain.moment(self.numbers, t=t, s=update.s, lr=lr, norm=update.norm)
        arrays = [*slots, *self._drawn(update.offset, start, out)]
        self.kernel(out, w, g, arrays, self.program.evaluate(now))

    def _drawn(self, offset: int, start: int, like: Array) -> list[Array]:
        """The noise of the entry at `offset`: the same for whoever replays it, in whatever parts."""
        if chain.DRAWN not in self.program.slots:
            return []
        key = int(self.numbers["noise.seed"]), offset
        drawn = standard_normal(key, self.arena, start, like.size)
        return [self.device.to_device(drawn.astype(like.dtype, copy=False))]
