"""One table's step: its group's traced chain, for rows that may have been updated unequally often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger_server.kernels.device import Array, Device
from gradledger_server.kernels.per_row import depends_on, per_row
from gradledger_server.machine.spec import Group
from gradledger_server.machine.step import Update
from gradledger_server.optim import chain

KNOWN_COUNTS = 1 << 16
MOMENT = ("lr", "s", "norm", "multiplier")  # what changes from push to push besides t


class RowStep:
    """How the rows of one table are advanced; in host memory."""

    def __init__(self, group: Group, dtype: np.dtype[Any], device: Device) -> None:
        self._dtype = dtype
        self._numbers = chain.numbers(group.optimizer, group.transforms)
        self._even = chain.program(group.optimizer, group.transforms)
        self._uneven, self._by_row = per_row(self._even)
        self._even_kernel = device.kernel(self._even, dtype)
        self._uneven_kernel = device.kernel(self._uneven, dtype)
        self._known: dict[int, tuple[float, ...]] = {}
        self._known_for: tuple[float, ...] | None = None
        scalars = self._by_row.values()
        self._matters = [name for name in MOMENT if any(depends_on(scalar, name) for scalar in scalars)]

    @property
    def slots(self) -> tuple[str, ...]:
        """The rule's, by name."""
        return self._even.slots

    def advance(
        self,
        w: Array,
        g: Array,
        slots: Sequence[Array],
        *,
        t: int | NDArray[np.int64],
        lr: float,
        update: Update,
    ) -> None:
        """Moves rows, given flat and back to back, in place, at this learning rate. `t` is the update's
        number, of each row if they differ."""
        if not isinstance(t, int) and (not self._by_row or t.size == 0 or (t == t[0]).all()):
            t = int(t[0]) if t.size else 1
        # Where rows differ, the t given here does not matter: no scalar that is left depends on it.
        once = t if isinstance(t, int) else 1
        now = chain.moment(self._numbers, t=once, s=update.s, lr=lr, norm=update.norm)
        if isinstance(t, int):
            self._even_kernel(w, w, g, slots, self._even.evaluate(now))
            return
        spread = self._spread(now, t, w.size // t.size)
        self._uneven_kernel(w, w, g, [*slots, *spread], self._uneven.evaluate(now))

    def _spread(self, now: dict[str, float], t: NDArray[np.int64], width: int) -> list[NDArray[Any]]:
        """The scalars that depend on t, as arrays of an element each."""
        known_for = tuple(now[name] for name in self._matters)
        if self._known_for != known_for or len(self._known) > KNOWN_COUNTS:
            self._known, self._known_for = {}, known_for
        counts, which = np.unique(t, return_inverse=True)
        numbers = [self._known.get(count) or self._learn(count, now) for count in counts.tolist()]
        with np.errstate(over="ignore"):  # what is too large is infinite, as when a kernel casts it
            cast = np.array(numbers, np.float64).T.astype(self._dtype)
        return [np.repeat(scalar[which], width) for scalar in cast]

    def _learn(self, count: int, now: dict[str, float]) -> tuple[float, ...]:
        at = {**now, "t": count}
        self._known[count] = tuple(scalar.evaluate(at) for scalar in self._by_row.values())
        return self._known[count]
