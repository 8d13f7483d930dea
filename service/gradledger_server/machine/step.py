"""One arena's step: its group's rule, made ready for its dtype (`ways.py`) and given its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradledger_server.entries import Json
from gradledger_server.kernels.device import Array, Device
from gradledger_server.machine.spec import Group
from gradledger_server.machine.ways import Shapes, Way, way
from gradledger_server.optim import catalog


@dataclass(frozen=True, slots=True)
class Step:
    """How one arena is advanced; if its way is `whole`, tensor by tensor."""

    numbers: Mapping[str, float]  # the hyperparameters that are numbers
    schedule: Json
    way: Way

    @classmethod
    def of(cls, group: Group, dtype: npt.DTypeLike, device: Device) -> Step:
        numbers = catalog.numbers(group.optimizer)
        return cls(numbers, group.schedule, way(group.optimizer, np.dtype(dtype), device))

    def advance(
        self, out: Array, w: Array, g: Array, slots: Sequence[Array], *, t: int, s: int, shapes: Shapes
    ) -> None:
        """Update number `t` of the elements given, after `s` updates of the model; weights into `out`."""
        lr = catalog.learning_rate(self.schedule, self.numbers["lr"], s)
        self.way(out, w, g, slots, {**self.numbers, "t": t, "lr": lr}, shapes)
