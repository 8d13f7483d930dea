"""What the workers tell, put together: the loss by the bytes all of them have sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from examples.diloco.recipe import WORKERS, Way


@dataclass(frozen=True)
class Point:
    """The loss (nats per character) after `step` steps of every worker, and their bytes until then."""

    step: int
    loss: float
    sent_bytes: int
    received_bytes: int

    @property
    def both_bytes(self) -> int:
        return self.sent_bytes + self.received_bytes


class Tally:
    """A training as it goes on. `points` are complete: every worker has told of that step."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.points: list[Point] = []
        self.step = 0  # the newest step of any worker
        self._told: dict[int, list[Mapping[str, Any]]] = defaultdict(list)

    def add(self, told: Mapping[str, Any]) -> None:
        """Takes what one worker said of one of its steps."""
        self.step = max(self.step, told["step"])
        there = self._told[told["step"]]
        there.append(told)
        if len(there) == WORKERS:
            del self._told[told["step"]]
            losses = [each["loss"] for each in there if "loss" in each]
            if losses:
                sent, received = (sum(each[way] for each in there) for way in ("sent", "received"))
                self.points.append(Point(told["step"], losses[0], sent, received))

    def reached(self, loss: float) -> Point | None:
        """The first point whose loss is as good."""
        return next((point for point in self.points if point.loss <= loss), None)
