"""What is seen of the training: a tally of what the workers tell, drawn as a live table."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

RECENT = 100
RATE_WINDOW_S = 2.0


class Tally:
    """Counts acknowledged pushes: a (worker, sequence) told twice counts once."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.acknowledged: set[tuple[str, int]] = set()
        self.replayed = 0
        self.losses: list[tuple[int, float]] = []
        self.killed_at: int | None = None
        self.accuracy = 0.0
        self.service = "up"
        self._staleness: deque[int] = deque(maxlen=RECENT)
        self._times: deque[float] = deque()

    def add(self, told: Mapping[str, Any]) -> None:
        """Takes what a worker said of one push."""
        self.acknowledged.add((told["worker"], told["sequence"]))
        self.replayed += told["replayed"]
        self.losses.append((told["step"], told["loss"]))
        self._staleness.append(told["staleness"] or 0)
        self._times.append(time.monotonic())

    def __rich__(self) -> RenderableType:
        """The table, as of now; rich asks for it several times a second."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column(justify="right", min_width=12)
        count = len(self.acknowledged)
        rows = {
            "loss (mean of the last 100)": f"{self._mean_loss():.4f}",
            "test accuracy": f"{self.accuracy:.4f}",
            "steps per second": f"{self._rate():.0f}",
            "staleness (mean of the last 100)": f"{_mean(self._staleness):.2f}",
            "acknowledged pushes": f"{count} of {self.expected}",
        }
        for label, value in rows.items():
            table.add_row(label, value)
        table.add_row("service", Text(self.service, "green" if self.service == "up" else "bold red"))
        outer = Table.grid()
        outer.add_row(ProgressBar(self.expected, count, width=50))
        outer.add_row(table)
        return outer

    def _mean_loss(self) -> float:
        return _mean([loss for _, loss in self.losses[-RECENT:]])

    def _rate(self) -> float:
        since = time.monotonic() - RATE_WINDOW_S
        while self._times and self._times[0] < since:
            self._times.popleft()
        return len(self._times) / RATE_WINDOW_S


def _mean(values: Any) -> float:
    return sum(values) / len(values) if values else 0.0
