"""One table's step: its group's traced rule, for rows that may have been updated unequally often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger_server.kernels.device import Array, Device
from gradledger_server.kernels.per_row import depends_on, per_row
from gradledger_server.machine.spec import Group
from gradledger_server.machine.step import Step

KNOWN_COUNTS = 1 << 16


class RowStep:
    """How the rows of one table are advanced; in host memory."""

    def __init__(self, group: Group, dtype: np.dtype[Any], device: Device) -> None:
        self._dtype = dtype
        self._even = Step.of(group, dtype, device)
        program, self._by_row = per_row(self._even.program)
        self._uneven = device.kernel(program, dtype)
        self._program = program
        self._known: dict[int, tuple[float, ...]] = {}
        self._known_for: float | None = None
        self._lr_matters = any(depends_on(scalar, "lr") for scalar in self._by_row.values())

    @property
    def slots(self) -> tuple[str, ...]:
        """The rule's, by name."""
        return self._even.program.slots

    def advance(
        self, w: Array, g: Array, slots: Sequence[Array], *, t: int | NDArray[np.int64], lr: float
    ) -> None:
        """Moves rows, given flat and back to back, in place, at this learning rate. `t` is the update's
        number, of each row if they differ."""
        if not isinstance(t, int) and (not self._by_row or t.size == 0 or (t == t[0]).all()):
            t = int(t[0]) if t.size else 1
        if isinstance(t, int):
            self._even.advance(w, w, g, slots, t=t, lr=lr)
            return
        settings = {**self._even.numbers, "lr": lr}
        spread = self._spread(settings, t, w.size // t.size)
        # The t of those that are left does not matter: none depends on it.
        self._uneven(w, w, g, [*slots, *spread], self._program.evaluate({**settings, "t": 1}))

    def _spread(self, settings: dict[str, float], t: NDArray[np.int64], width: int) -> list[NDArray[Any]]:
        """The scalars that depend on t, as arrays of an element each."""
        if (self._lr_matters and self._known_for != settings["lr"]) or len(self._known) > KNOWN_COUNTS:
            self._known, self._known_for = {}, settings["lr"]
        counts, which = np.unique(t, return_inverse=True)
        numbers = [self._known.get(count) or self._learn(count, settings) for count in counts.tolist()]
        with np.errstate(over="ignore"):  # what is too large is infinite, as when a kernel casts it
            cast = np.array(numbers, np.float64).T.astype(self._dtype)
        return [np.repeat(scalar[which], width) for scalar in cast]

    def _learn(self, count: int, settings: dict[str, float]) -> tuple[float, ...]:
        at = {**settings, "t": count}
        self._known[count] = tuple(scalar.evaluate(at) for scalar in self._by_row.values())
        return self._known[count]
