"""Schedules expanded as a spec would have them, and their learning rates update by update."""

from __future__ import annotations

from typing import Any

from gradledger_server.optim.schedules.catalog import expand_schedule, learning_rate

LAST = 2**53
Json = dict[str, Any]


def expand(name: str, **settings: Any) -> Json:
    return expand_schedule({"name": name, **settings}, where="schedule")


def rates(schedule: Json, *steps: int, lr: float = 1.0) -> list[float]:
    return [learning_rate(schedule, lr, s) for s in steps]
