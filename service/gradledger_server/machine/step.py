"""One arena's step: its group's chain, made ready for its dtype (`ways.py`) and given its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gradledger_server.kernels import counter
from gradledger_server.kernels.device import Array, Device
from gradledger_server.machine.spec import Group
from gradledger_server.machine.ways import Shapes, Way, way
from gradledger_server.optim import chain


class Update(NamedTuple):
    """What an update knows of its push: its place in the log, the model's step so far, the whole norm."""

    offset: int
    s: int
    norm: float
    slowed: float = 1.0  # what a stale gradient's learning rates are multiplied by


@dataclass(frozen=True, slots=True)
class Step:
    """How one arena is advanced; if its way is `whole`, tensor by tensor."""

    numbers: Mapping[str, float]  # the hyperparameters and settings that are numbers
    draws: bool
    way: Way
    device: Device
    arena: int

    @classmethod
    def of(cls, group: Group, arena: int, dtype: np.dtype[Any], device: Device) -> Step:
        return cls(
            numbers=chain.numbers(group.optimizer, group.transforms),
            draws="noise" in group.transforms,
            way=way(group, dtype, device),
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
        lr: float,
        update: Update,
        start: int = 0,
        shapes: Shapes = (),
    ) -> None:
        """Update number `t` of the arena's elements from `start` on, at rate `lr`; new weights into `out`.

        `shapes` of w, g and the slots matter if the way is whole.
        """
        now = chain.moment(self.numbers, t=t, s=update.s, lr=lr, norm=update.norm)
        drawn = self._drawn(update.offset, start, out)
        self.way(out, w, g, [*slots, *drawn], now, [*shapes, *(shapes[0] for _ in drawn)])

    def _drawn(self, offset: int, start: int, like: Array) -> list[Array]:
        """The noise of the entry at `offset`: the same for whoever replays it, in whatever parts."""
        if not self.draws:
            return []
        key = counter.key(int(self.numbers["noise.seed"]), offset, self.arena)
        drawn = counter.normal(key, np.arange(start, start + like.size, dtype=np.uint64))
        return [self.device.to_device(drawn.astype(like.dtype, copy=False))]
