"""docs/schedules.md, from the catalogue: `python -m tools.schedules_page` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from gradledger_server.optim.schedules import guide
from gradledger_server.optim.schedules.catalog import SCHEDULES, settings_of
from gradledger_server.optim.schedules.libraries import LIBRARIES
from gradledger_server.optim.signatures import Hyperparameter
from tools.markdown import table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "schedules.md"

INTRODUCTION = """\
# Schedules

A schedule is a closed form of `s`, the updates already applied: the first update has s = 0. It is computed in
float64, with the same bits on every machine, and the learning rate it gave stands in every receipt. `lr` is
the optimizer's. Give a model (or a group) one as `"schedule": {"name": "cosine_decay", "decay_steps": 1000}`.
Learning rates to plot: `GET /v1/schedules/cosine_decay/preview?decay_steps=1000&lr=0.1&points=20`, or
`POST /v1/schedules/preview` with any schedule object.

This page is generated from the code; `GET /v1/schedules` answers the same as JSON.
"""

CONVENTIONS = """\
## Whose behaviour

Libraries agree on most curves and differ by one update at their edges. Each such convention is a setting.
Capitals stand for your numbers.
"""

METRICS = """\
## Plateau and metrics

A `plateau` schedule follows what clients measure: `POST /v1/models/{model}/metrics` with `{"value": 0.53}` is
an entry of the log like a push, counted once if it is named by `worker` and `sequence` (from 1, without gaps,
apart from the worker's pushes) or by an `Idempotency-Key`. Its receipt tells the learning rate from now on
and whether it was reduced. `GET /v1/models/{model}/metrics` shows what each plateau schedule has seen.
Changing the schedule's settings makes it begin anew.

torch counts `patience` bad metrics and reduces at the next (`"reduce": "beyond"`); Keras and Optax reduce at
the last of them (`"at"`). During a cooldown metrics do not count as bad; for Keras the last of them does
(`"cooldown_last": "counted"`).
"""


def page() -> str:
    """The whole page."""
    whose = table(("library", "its name", "schedule", "settings", "mind"), _rows()) + "\n"
    return "\n".join([INTRODUCTION, CONVENTIONS, whose, METRICS, *_sections()])


def _rows() -> Iterator[tuple[str, ...]]:
    for row in LIBRARIES:
        settings = ", ".join(f"`{name}`: {_shown(value)}" for name, value in row.settings.items())
        yield row.library, f"`{row.theirs}`", f"`{row.name}`", settings, row.note


def _sections() -> Iterator[str]:
    for name in SCHEDULES:
        told = guide.describe(name)
        lines = [f"## {name}", "", f"{told['summary']}. *{told['source']}.*", "", f"> {told['formula']}", ""]
        settings = settings_of(name).values()
        if settings:
            lines.append(table(("setting", "allowed", "default", "meaning"), map(_setting, settings)))
        if told["aliases"]:
            lines += ["", "Also known as " + ", ".join(f"`{alias}`" for alias in told["aliases"]) + "."]
        yield "\n".join(lines).rstrip() + "\n"


def _setting(its: Hyperparameter) -> tuple[str, ...]:
    return f"`{its.name}`", its.allowed, "" if its.default is None else _shown(its.default), its.meaning


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    PAGE.write_text(page())
