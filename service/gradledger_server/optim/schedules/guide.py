"""What people and clients are told about schedules, and the points of their curves."""

from __future__ import annotations

import inspect
from typing import Any

from gradledger_server.errors import ScheduleNotFound
from gradledger_server.optim.expansion import with_meant
from gradledger_server.optim.guide import json_schema
from gradledger_server.optim.schedules.aliases import ALIASES
from gradledger_server.optim.schedules.catalog import SCHEDULES, Schedule, learning_rate, settings_of
from gradledger_server.optim.schedules.libraries import LIBRARIES

MOST_POINTS = 10_000


def require_known(name: str) -> str:
    """The name of the schedule that a name or alias stands for. Raises ScheduleNotFound."""
    if name in ALIASES:
        return ALIASES[name].of
    if name not in SCHEDULES:
        hint = with_meant(name, (*SCHEDULES, *ALIASES), ScheduleNotFound.hint)
        raise ScheduleNotFound(f"there is no schedule {name[:80]!r}", hint=hint, known=list(SCHEDULES))
    return name


def describe(name: str) -> dict[str, Any]:
    """A schedule for people and clients, as JSON. Raises ScheduleNotFound."""
    name = require_known(name)
    told, _, formula = (inspect.getdoc(SCHEDULES[name]) or "").partition("\n\n")
    summary, _, source = told.partition(". ")
    return {
        "name": name,
        "summary": summary,
        "source": source.rstrip("."),
        "formula": " ".join(formula.split()),
        "settings": json_schema(settings_of(name)),
        "aliases": {
            alias: {"settings": dict(its.settings), "means": dict(its.means)}
            for alias, its in ALIASES.items()
            if its.of == name
        },
        "reproduces": [
            {"library": row.library, "name": row.theirs, "settings": dict(row.settings), "note": row.note}
            for row in LIBRARIES
            if row.name == name
        ],
    }


def steps_between(first: int, last: int, points: int) -> list[int]:
    """At most so many whole numbers from `first` to `last`, both among them, as evenly as can be."""
    count = min(points, last - first + 1)
    return [first + (last - first) * index // max(count - 1, 1) for index in range(count)]


def curve(schedule: Schedule, lr: float, steps: list[int]) -> list[float]:
    """The learning rates at these steps; a plateau's as if no metric had been posted."""
    return [learning_rate(schedule, lr, s) for s in steps]
