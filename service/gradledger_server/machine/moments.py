"""What depends on t, for rows that have been updated unequally often: computed once for each t there is.

    moments.of(t, now)  →  lines [m, n] of scalars, and which line holds for each row

A t is its own line, so nothing is looked for: what many rows have in common is found by indexing. Only rows
updated more than COUNTS times are told apart push by push.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger_server.kernels.per_row import depends_on
from gradledger_server.kernels.trace import Scalar
from gradledger_server.machine.reserve import reserved

COUNTS = 1 << 20
CHANGING = ("lr", "s", "norm", "multiplier")  # what changes from push to push besides t

Counts = NDArray[np.int64]


class Moments:
    """Of some scalars, in a kernel's dtype."""

    def __init__(self, scalars: Mapping[str, Scalar], dtype: np.dtype[Any]) -> None:
        self._scalars = tuple(scalars.values())
        self._dtype = dtype
        self._matters = [name for name in CHANGING if any(depends_on(x, name) for x in self._scalars)]
        self._learnt_for: list[float] | None = None
        self._age = 0
        # A line is known if it was learnt at the present age, so forgetting all is counting on.
        self._ages = reserved(COUNTS, np.dtype(np.int64))
        self._lines = reserved(COUNTS * len(self._scalars), dtype).reshape(COUNTS, len(self._scalars))

    def of(self, t: Counts, now: Mapping[str, float]) -> tuple[NDArray[Any], Counts]:
        """The lines, and for each of the updates numbered `t` which line is its own."""
        if not self._scalars or not t.size:
            return self._evaluated([1], now), np.zeros(t.size, np.int64)
        if t.max() >= COUNTS:
            counts, which = np.unique(t, return_inverse=True)
            return self._evaluated(counts.tolist(), now), which
        self._learn(t, now)
        return self._lines, t

    def same(self, t: int, count: int, now: Mapping[str, float]) -> tuple[NDArray[Any], Counts]:
        """The same for `count` rows at one t."""
        return self._evaluated([t], now), np.zeros(count, np.int64)

    def _learn(self, t: Counts, now: Mapping[str, float]) -> None:
        learnt_for = [now[name] for name in self._matters]
        if self._learnt_for != learnt_for:
            self._learnt_for, self._age = learnt_for, self._age + 1
        unknown = t[self._ages[t] != self._age]
        if unknown.size:
            counts = np.unique(unknown)
            self._lines[counts] = self._evaluated(counts.tolist(), now)
            self._ages[counts] = self._age

    def _evaluated(self, counts: Iterable[int], now: Mapping[str, float]) -> NDArray[Any]:
        lines = [[scalar.evaluate({**now, "t": t}) for scalar in self._scalars] for t in counts]
        with np.errstate(over="ignore"):  # what is too large is infinite, as when a kernel casts it
            return np.array(lines, np.float64).astype(self._dtype)
