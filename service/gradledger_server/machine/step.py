"""One arena's step: its group's traced rule, compiled for its dtype and given its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradledger_server.kernels.device import Array, Device, Kernel
from gradledger_server.kernels.trace import Program
from gradledger_server.machine.spec import Group
from gradledger_server.optim import catalog, chain


@dataclass(frozen=True, slots=True)
class Step:
    """How one arena is advanced."""

    numbers: Mapping[str, float]  # the hyperparameters that are numbers
    program: Program
    kernel: Kernel

    @classmethod
    def of(cls, group: Group, dtype: npt.DTypeLike, device: Device) -> Step:
        program = chain.program(group.optimizer)
        kernel = device.kernel(program, np.dtype(dtype))
        return cls(catalog.numbers(group.optimizer), program, kernel)

    def advance(self, out: Array, w: Array, g: Array, slots: Sequence[Array], *, t: int, lr: float) -> None:
        """Update number `t` of the elements given, at this learning rate; weights into `out`."""
        self.kernel(out, w, g, slots, self.program.evaluate({**self.numbers, "t": t, "lr": lr}))
