"""Guard rails: what becomes of gradients that are not numbers, and of workers whose gradients are too large.

    nonfinite   reject (default): refused; skip: taken and left out; zero: what is not finite becomes 0
    outliers    a push whose norm is more than `factor` times the median of the latest `window` norms is left
                out and is a strike against its worker; `strikes` of them and the worker is quarantined

All norms count for the median, also those left out: where the gradients of everybody grow, the median
follows, and as long as fewer than half of the latest pushes are wrong it stays among the right ones. A push
within bounds takes a strike back. Quarantine is a state of the model, visible and reversible: see
`Quarantine` in entries.py.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradledger_server.entries import Json, Push
from gradledger_server.machine.fields import choice, object_of, real, whole

FEWEST = 8  # norms that a median is taken of
NONFINITE = ("reject", "skip", "zero")


@dataclass(frozen=True, slots=True)
class Outliers:
    """How large is too large, and how often is too often."""

    factor: float
    strikes: int
    window: int


@dataclass(frozen=True, slots=True)
class Policy:
    """An expanded `guard`. `outliers` None: norms are not looked at."""

    nonfinite: str
    outliers: Outliers | None

    @classmethod
    def read(cls, expanded: Json) -> Policy:
        outliers = expanded["outliers"]
        return cls(expanded["nonfinite"], None if outliers is None else Outliers(**outliers))


def expand(given: object) -> dict[str, Any]:
    """The `guard` object with every field. Raises InvalidSpec."""
    fields = object_of("guard", given, ("nonfinite", "outliers"))
    outliers = fields.get("outliers")
    return {
        "nonfinite": choice("guard.nonfinite", fields.get("nonfinite", "reject"), NONFINITE),
        "outliers": None if outliers is None else _expand_outliers("guard.outliers", outliers),
    }


class Guard:
    """The latest norms, the strikes against each worker, and who is quarantined."""

    def __init__(self, policy: Policy) -> None:
        self.strikes: dict[str, int] = {}
        self.quarantined: set[str] = set()
        self._norms: deque[float] = deque()
        self.configure(policy)

    def configure(self, policy: Policy) -> None:
        """Other rails from the next push on; what was held against anybody stays."""
        self.policy = policy
        kept = policy.outliers.window if policy.outliers else 0
        self._norms = deque(self._norms, maxlen=kept)

    def left_out(self, push: Push) -> str | None:
        """The fate of a push that must not count, noting it against its worker; None for one that may."""
        if math.isnan(push.grad_norm):
            return "skipped"
        if self.policy.outliers is None:
            return None
        bound = self.bound
        self._norms.append(min(push.grad_norm, sys.float_info.max))  # a norm may overflow; JSON may not
        outlier = bound is not None and push.grad_norm > bound
        if push.worker is not None:
            self._note(push.worker, outlier, self.policy.outliers.strikes)
        return "outlier" if outlier else None

    def set(self, worker: str, *, quarantined: bool) -> None:
        """Somebody decides; a worker released begins without strikes."""
        self.strikes.pop(worker, None)
        (self.quarantined.add if quarantined else self.quarantined.discard)(worker)

    @property
    def bound(self) -> float | None:
        """The largest norm that is no outlier; None as long as too few are known, or they are all 0."""
        if self.policy.outliers is None or len(self._norms) < min(FEWEST, self.policy.outliers.window):
            return None
        return statistics.median(self._norms) * self.policy.outliers.factor or None

    def dump(self) -> dict[str, Any]:
        """As JSON, for a snapshot."""
        return {"norms": list(self._norms), "strikes": self.strikes, "quarantined": sorted(self.quarantined)}

    @classmethod
    def load(cls, policy: Policy, dumped: Mapping[str, Any]) -> Guard:
        guard = cls(policy)
        guard._norms.extend(dumped["norms"])
        guard.strikes, guard.quarantined = dict(dumped["strikes"]), set(dumped["quarantined"])
        return guard

    def _note(self, worker: str, outlier: bool, most: int) -> None:
        strikes = self.strikes.get(worker, 0) + (1 if outlier else -1)
        if strikes >= most:
            self.set(worker, quarantined=True)
        elif strikes > 0:
            self.strikes[worker] = strikes
        else:
            self.strikes.pop(worker, None)


def _expand_outliers(where: str, given: object) -> dict[str, Any]:
    fields = object_of(where, given, ("factor", "strikes", "window"))
    return {
        "factor": real(f"{where}.factor", fields.get("factor", 10.0), 1.0, 1e9),
        "strikes": whole(f"{where}.strikes", fields.get("strikes", 3), 1, 1000),
        "window": whole(f"{where}.window", fields.get("window", 64), 1, 1024),
    }
