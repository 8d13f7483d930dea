"""A metric becomes an entry, exactly once, and is answered with what it did to the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradledger_server.entries import Metric
from gradledger_server.machine.metrics import MetricReceipt, foreseen, known, require_plateau, standing
from gradledger_server.machine.model import Model
from gradledger_server.replica.hot import Hot


@dataclass(frozen=True, slots=True)
class Reported:
    """A metric's answer: its receipt, and what the model's plateau schedules have seen by now."""

    receipt: MetricReceipt
    replayed: bool
    plateaus: list[dict[str, Any]]


def report(hot: Hot, metric: Metric) -> Reported:
    """Appends the metric unless the model has it. Raises NoPlateau, SequenceGap or SequenceReused."""
    told: list[MetricReceipt] = []
    replayed = False

    def choose(model: Model) -> Metric | None:
        nonlocal replayed
        if (receipt := known(model, metric)) is not None:
            replayed, told[:] = True, [receipt]
            return None
        require_plateau(model)
        # The entry is appended only if nothing comes in between, so what is foreseen is what happens.
        told[:] = [foreseen(model, hot.playback.applied + 1, metric)[1]]
        return metric

    hot.decide(choose)
    return Reported(told[0], replayed, plateaus(hot))


def plateaus(hot: Hot) -> list[dict[str, Any]]:
    """What the model's plateau schedules have seen, with every metric acknowledged before this call."""
    hot.look()
    with hot.lock:
        return standing(hot.model)
