"""One table's step: its group's traced chain, for rows that may have been updated unequally often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger_server.kernels.device import Array, Device
from gradledger_server.kernels.per_row import per_row
from gradledger_server.kernels.rows import Visit
from gradledger_server.machine.moments import Moments
from gradledger_server.machine.spec import Group
from gradledger_server.machine.step import Update
from gradledger_server.optim import chain


class RowStep:
    """How the rows of one table are advanced, where they lie; in host memory."""

    def __init__(self, group: Group, dtype: np.dtype[Any], device: Device) -> None:
        self._numbers = chain.numbers(group.optimizer, group.transforms)
        self._program = chain.program(group.optimizer, group.transforms)
        self._shared, varying = per_row(self._program)
        self._moments = Moments(varying, dtype)
        self._kernel = device.kernel(self._program, dtype)
        self._row_kernel = device.host.row_kernel(self._program, dtype)

    @property
    def slots(self) -> tuple[str, ...]:
        """The rule's, by name."""
        return self._program.slots

    def advance(
        self,
        places: NDArray[np.int32],
        width: int,
        w: Array,
        g: Array,
        slots: Sequence[Array],
        *,
        t: int | NDArray[np.int64],
        lr: float,
        update: Update,
    ) -> None:
        """Moves the rows at these places of w and the slots, all flat, in place, at this learning rate.

        `t` is the update's number, of each row if they differ.
        """
        # Where rows differ, the t given here does not matter: no scalar that is left depends on it.
        now = self._now(t if isinstance(t, int) else 1, lr, update)
        if isinstance(t, int):
            lines, which = self._moments.same(t, places.size, now)
        else:
            lines, which = self._moments.of(t, now)
        visit = Visit(places, width, lines, which)
        self._row_kernel(visit, w, g, slots, self._shared.evaluate(now))

    def advance_all(
        self, w: Array, g: Array, slots: Sequence[Array], *, t: int, lr: float, update: Update
    ) -> None:
        """Moves every row: the table is one flat array as any other."""
        self._kernel(w, w, g, slots, self._program.evaluate(self._now(t, lr, update)))

    def _now(self, t: int, lr: float, update: Update) -> dict[str, float]:
        return chain.moment(self._numbers, t=t, s=update.s, lr=lr, norm=update.norm)
