"""How a figure is made: the case and its limit take turns in one run, each ratio is formed within a turn.

A machine's speed drifts by more than most differences worth knowing. What was measured a moment apart
drifts together, so the median of the ratios is far steadier than the ratio of two medians made apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np

Case = Callable[[], float]  # does its work once and answers the seconds it took


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run may take: `quick` is for finding out whether the benchmarks work, not for figures.

    `directory` lies on the disk that the service's logs are measured on.
    """

    quick: bool
    directory: Path

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a table: an amount beside its limit's, medians; so is `ratio`, of the turns' ratios.

    Amounts are seconds unless `unit` says bytes. With `nbytes` or `requests`, which took those seconds, the
    figure is shown as a rate instead of a time.
    """

    case: str
    amount: float
    limit: str
    limit_amount: float
    ratio: float
    goal: float | None = None
    nbytes: int | None = None
    note: str = ""
    requests: int | None = None
    unit: Literal["seconds", "bytes"] = "seconds"


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of other things than times and their limits."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(slots=True)
class Report:
    """What a family of figures came to, and everything it was computed from."""

    family: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    grids: list[Grid] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Samples:
    """The seconds every case took, turn by turn."""

    seconds: Mapping[str, list[float]]

    def sums(self, *cases: str) -> list[float]:
        """Turn by turn, what the cases took together."""
        return [sum(turn) for turn in zip(*(self.seconds[case] for case in cases), strict=True)]

    def median(self, *cases: str) -> float:
        return median(self.sums(*cases))

    def quantile(self, q: float, *cases: str) -> float:
        return float(np.quantile(self.sums(*cases), q))

    def ratio(self, case: str, *limits: str) -> float:
        """The median over the turns of the case's time to its limits' together."""
        return median(a / b for a, b in zip(self.seconds[case], self.sums(*limits), strict=True))

    def figure(
        self,
        label: str,
        case: str,
        limits: tuple[str, ...],
        *,
        goal: float | None = None,
        nbytes: int | None = None,
        note: str = "",
        requests: int | None = None,
    ) -> Figure:
        """The case's medians beside its limits'."""
        return Figure(
            label,
            self.median(case),
            " + ".join(limits),
            self.median(*limits),
            self.ratio(case, *limits),
            goal,
            nbytes,
            note,
            requests,
        )

    def quantile_figure(
        self, q: float, label: str, case: str, limits: tuple[str, ...], *, goal: float | None = None
    ) -> Figure:
        """A quantile of the case beside the same quantile of the limits' sums."""
        measured, limit = self.quantile(q, case), self.quantile(q, *limits)
        return Figure(f"{label}, p{q * 100:.0f}", measured, " + ".join(limits), limit, measured / limit, goal)


def timed(work: Callable[[], object]) -> Case:
    """`work` as a case."""

    def case() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return case


def take_turns(cases: Mapping[str, Case], turns: int, *, warmups: int = 2, row: int = 1) -> Samples:
    """Runs every case once per turn, in order; `row` of them back to back, for those of microseconds."""
    for _ in range(warmups):
        for case in cases.values():
            case()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(turns):
        for name, case in cases.items():
            seconds[name] += [case() for _ in range(row)]
    return Samples(seconds)
