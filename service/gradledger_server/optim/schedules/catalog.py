"""The way in: what schedules there are, how a spec's is read, and the learning rate it gives.

expand_schedule({"name": "noam", …})    every setting, explicit and checked
learning_rate(schedule, lr, s)          float64, the same on every machine
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gradledger_server.optim.expansion import choose, settle, wrong
from gradledger_server.optim.schedules.aliases import ALIASES, plain
from gradledger_server.optim.schedules.composed import sequence
from gradledger_server.optim.schedules.cosine import cosine_decay, cosine_restarts, one_cycle
from gradledger_server.optim.schedules.decay import (
    exponential_decay,
    inverse_time_decay,
    linear,
    natural_exp_decay,
    polynomial_decay,
    sigmoid,
)
from gradledger_server.optim.schedules.plateau import plateau
from gradledger_server.optim.schedules.requirements import require_harmony
from gradledger_server.optim.schedules.steps import constant, multistep, piecewise_constant
from gradledger_server.optim.schedules.warmup import inverse_sqrt, noam, warmup_constant, warmup_cosine, wsd
from gradledger_server.optim.signatures import Hyperparameter, facts_of

Schedule = Mapping[str, Any]

SCHEDULES: dict[str, Callable[..., float]] = {
    schedule.__name__: schedule
    for schedule in (
        constant,
        piecewise_constant,
        multistep,
        exponential_decay,
        natural_exp_decay,
        inverse_time_decay,
        polynomial_decay,
        linear,
        sigmoid,
        cosine_decay,
        cosine_restarts,
        one_cycle,
        warmup_constant,
        warmup_cosine,
        noam,
        inverse_sqrt,
        wsd,
        sequence,
        plateau,
    )
}

MOST_NESTED = 100  # schedules in a sequence, those in its own sequences included
DEEPEST = 3  # sequences in sequences


def settings_of(name: str) -> dict[str, Hyperparameter]:
    """What a schedule's object may say besides its name."""
    return {key: value for key, value in facts_of(SCHEDULES[name]).hyperparameters.items() if key != "lr"}


def expand_schedule(given: Mapping[str, object] | None, *, where: str) -> dict[str, Any]:
    """The `schedule` object of a spec with every setting, in the catalogue's order; None is the constant one.

    Expanding what was expanded changes nothing. `where` is the object's path in the request. Raises
    InvalidSpec.
    """
    if given is None:
        return {"name": "constant"}
    _require_small(given, where)
    return _expand(given, where)


def learning_rate(schedule: Schedule, lr: float, s: int, reductions: int = 0) -> float:
    """The learning rate of the update after `s` applied ones; `reductions` are those a plateau has made."""
    if len(schedule) == 1:  # nearly always the constant one
        return float(SCHEDULES[schedule["name"]](s, lr=lr))
    settings = {name: value for name, value in schedule.items() if name != "name"}
    if schedule["name"] == "plateau":
        settings["reductions"] = reductions
    elif schedule["name"] == "sequence":
        settings["schedules"] = [partial(learning_rate, part) for part in settings["schedules"]]
    return float(SCHEDULES[schedule["name"]](s, lr=lr, **settings))


def _expand(given: Mapping[str, object], where: str) -> dict[str, Any]:
    name = choose(given, "name", (*SCHEDULES, *ALIASES), where=where, default=None)
    name, written = plain(name, {key: value for key, value in given.items() if key != "name"}, where)
    settled: dict[str, Any] = settle(written, settings_of(name), {}, where=where, of=f"schedule {name!r}")
    if name == "sequence":
        settled["schedules"] = [
            _expand_part(part, f"{where}.schedules[{index}]")
            for index, part in enumerate(settled["schedules"])
        ]
    require_harmony(name, settled, where)
    return {"name": name, **settled}


def _expand_part(given: object, where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise wrong(where, given, 'a schedule, such as {"name": "constant"}')
    expanded = _expand(given, where)
    if expanded["name"] == "plateau":
        hint = "A plateau follows metrics, not s: make it the model's or a group's own schedule."
        raise wrong(f"{where}.name", "plateau", "a schedule of s", hint=hint)
    return expanded


def _require_small(given: Mapping[str, object], where: str) -> None:
    """Refuses many or deeply nested schedules before anything is made of them."""
    level, nested = [given], 0
    for _ in range(DEEPEST):
        lists = [within["schedules"] for within in level if isinstance(within.get("schedules"), list)]
        level = [part for parts in lists for part in parts if isinstance(part, Mapping)]  # type: ignore[attr-defined]
        nested += len(level)
        if nested > MOST_NESTED:
            raise wrong(f"{where}.schedules", nested, f"at most {MOST_NESTED} schedules in all")
    if any("schedules" in within for within in level):
        raise wrong(f"{where}.schedules", "sequences in sequences", f"at most {DEEPEST} deep")
