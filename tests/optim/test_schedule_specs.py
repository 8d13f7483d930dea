"""Schedules in a spec: what is expanded, what is refused by field, and that whatever is allowed is sound."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradledger_server.errors import InvalidSpec
from gradledger_server.optim.schedules.aliases import ALIASES
from gradledger_server.optim.schedules.catalog import (
    SCHEDULES,
    expand_schedule,
    learning_rate,
    settings_of,
)
from gradledger_server.optim.schedules.libraries import LIBRARIES
from gradledger_server.optim.signatures import Hyperparameter
from tests.optim.schedules import LAST, Json, expand, rates

# What a spec may say


def test_no_schedule_is_the_constant_one() -> None:
    schedule = expand_schedule(None, where="schedule")
    assert schedule == {"name": "constant"} == expand_schedule(schedule, where="schedule")
    assert rates(schedule, 0, 1, 10**9, lr=0.1) == [0.1] * 3


def test_an_alias_is_never_written() -> None:
    expanded = expand("caffe_step", gamma=0.5, step_size=10)
    assert expanded == expand("exponential_decay", decay_rate=0.5, decay_steps=10, staircase=True)
    assert all(alias.of in SCHEDULES and name not in SCHEDULES for name, alias in ALIASES.items())


CONSTANT = {"name": "constant"}


def nested(depth: int) -> Json:
    schedule: Json = CONSTANT
    for _ in range(depth):
        schedule = {"name": "sequence", "schedules": [schedule, CONSTANT], "boundaries": [1]}
    return schedule


def many(count: int) -> Json:
    return {"name": "sequence", "schedules": [CONSTANT] * count, "boundaries": list(range(1, count))}


REFUSALS: list[tuple[Json, str, str]] = [
    ({}, "name", "one of constant, piecewise_constant"),
    ({"name": "exponential"}, "name", "'exponential_decay'"),
    ({"name": "constant", "lr": 0.1}, "lr", "nothing"),
    ({"name": "exponential_decay", "decay_rate": 0.9}, "decay_steps", "a whole number, 1 <= decay_steps"),
    (
        {"name": "exponential_decay", "decay_rate": 0.9, "decay_steps": 2.5},
        "decay_steps",
        "a whole number",
    ),
    ({"name": "exponential_decay", "decay_rate": 0, "decay_steps": 1}, "decay_rate", "0 < decay_rate <= 1"),
    ({"name": "exponential_decay", "decay_rate": 1.1, "decay_steps": 1}, "decay_rate", "<= 1"),
    (
        {"name": "exponential_decay", "decay_rate": 1, "decay_steps": 1, "staircase": 1},
        "staircase",
        "true or false",
    ),
    ({"name": "caffe_step", "gamma": 0.5}, "step_size", "a number"),
    ({"name": "caffe_step", "gamma": 0.5, "decay_steps": 5}, "decay_steps", "takes gamma, step_size"),
    ({"name": "multistep", "step_values": []}, "step_values", "a list of 1 to 1000"),
    ({"name": "multistep", "step_values": list(range(1001))}, "step_values", "a list of 1 to 1000"),
    ({"name": "multistep", "step_values": 5}, "step_values", "a list of 1 to 1000"),
    ({"name": "multistep", "step_values": [1, 2, 2.5]}, "step_values[2]", "whole"),
    ({"name": "multistep", "step_values": [1, True]}, "step_values[1]", "a number"),
    ({"name": "multistep", "step_values": [1, 5, 9, 9]}, "step_values[3]", "above schedule.step_values[2]"),
    (
        {"name": "piecewise_constant", "boundaries": [1], "values": [1, -1]},
        "values[1]",
        "0 <= each",
    ),
    ({"name": "piecewise_constant", "boundaries": [1], "values": [1]}, "values", "one more than boundaries"),
    ({"name": "cosine_decay", "decay_steps": 1, "alpha": 0.1, "end_lr": 0.1}, "alpha", "end_lr"),
    ({"name": "cosine_restarts", "first_decay_steps": 1, "t_mul": 1.01}, "t_mul", "1, or from 1.1 on"),
    (
        {"name": "one_cycle", "total_steps": 9, "three_phase": True, "pct_final": 0.1},
        "pct_final",
        "pct_start",
    ),
    ({"name": "warmup_cosine", "warmup_steps": 5, "decay_steps": 5}, "decay_steps", "above warmup_steps"),
    ({"name": "sequence", "schedules": [CONSTANT], "boundaries": [1]}, "schedules", "a list of 2 to 100"),
    ({"name": "sequence", "schedules": [CONSTANT, 1], "boundaries": [1]}, "schedules[1]", "a schedule"),
    (
        {"name": "sequence", "schedules": [CONSTANT, {"name": "plateau"}], "boundaries": [1]},
        "schedules[1].name",
        "metrics",
    ),
    (
        {"name": "sequence", "schedules": [CONSTANT, {"name": "noam"}], "boundaries": [1]},
        "schedules[1].model_width",
        "a whole number",
    ),
    ({**many(3), "scales": [1, 1]}, "scales", "3"),
    (many(101), "schedules", "at most 100"),
    (nested(4), "schedules", "at most 3 deep"),
    (nested(200), "schedules", "at most 3 deep"),
]


@pytest.mark.parametrize(("schedule", "field", "words"), REFUSALS, ids=[str(row)[:60] for row in REFUSALS])
def test_refusals(schedule: Json, field: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        expand_schedule(schedule, where="schedule")
    assert refused.value.facts["field"] == f"schedule.{field}"
    assert words in refused.value.detail + refused.value.advice


def test_as_deep_and_as_many_as_may_be() -> None:
    assert rates(expand_schedule(nested(3), where="schedule"), 0, 5) == [1, 1]
    assert rates(expand_schedule(many(100), where="schedule"), 0, 5) == [1, 1]


# For every schedule and all its settings


def numbers(setting: Hyperparameter) -> st.SearchStrategy[Any]:
    """What a number may be: anything allowed, the ends and what is usual more often than not."""
    bounds = setting.bounds
    assert bounds is not None
    if setting.kind == "integer":
        low, high = int(bounds.low), int(bounds.high)
        return st.integers(low, high) | st.integers(low, low + 50) | st.sampled_from([low, high])
    within = st.floats(
        bounds.low, bounds.high, exclude_min=bounds.above, exclude_max=bounds.below, allow_subnormal=False
    )
    usual = st.floats(max(bounds.low, 1e-3), min(bounds.high, 10.0))
    return within | usual


def values(setting: Hyperparameter) -> st.SearchStrategy[Any]:
    if setting.kind == "choice":
        return st.sampled_from(setting.choices)
    return st.booleans() if setting.kind == "switch" else numbers(setting)


@st.composite
def schedules(draw: st.DrawFn, name: str) -> Json:
    """A valid schedule of this name, as a request would have it."""
    declared = settings_of(name)
    schedule: Json = {"name": name} | {
        key: draw(values(its)) for key, its in declared.items() if its.kind != "list"
    }
    milestones = sorted(draw(st.sets(st.integers(0, 60) | st.integers(0, LAST), min_size=1, max_size=4)))
    for key in declared.keys() & {"boundaries", "step_values"}:
        schedule[key] = milestones
    count = len(milestones) + 1
    if name == "piecewise_constant":
        schedule["values"] = draw(st.lists(st.floats(0, 1e38), min_size=count, max_size=count))
    if name == "sequence":
        names = st.sampled_from([own for own in SCHEDULES if own not in ("sequence", "plateau")])
        schedule["schedules"] = [draw(schedules(draw(names))) for _ in range(count)]
    return mended(schedule)


def mended(schedule: Json) -> Json:
    """With settings that go together: each is in its range, but chance knows no more."""
    if schedule.get("alpha"):
        schedule["end_lr"] = 0.0
    if 1 < schedule.get("t_mul", 1) < 1.1:
        schedule["t_mul"] = 1.1
    if schedule["name"] == "warmup_cosine" and schedule["decay_steps"] <= schedule["warmup_steps"]:
        schedule["warmup"] = "excluded"
    if schedule["name"] == "one_cycle":
        schedule["pct_final"] = max(schedule["pct_start"], schedule["pct_final"])
    return schedule


STEPS = [0, 1, 2, 3, 10, 49, 50, 51, 999, 10**6, 2**31, 2**52 + 1, LAST - 1, LAST]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_learning_rate_is_finite_and_not_negative(name: str) -> None:
    """And what was expanded is a valid request for itself, as JSON too."""

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(schedules(name), st.floats(0, 3e38) | st.floats(0, 10), st.integers(0, LAST))
    def hold(schedule: Json, lr: float, s: int) -> None:
        expanded = expand_schedule(schedule, where="schedule")
        assert expand_schedule(json.loads(json.dumps(expanded)), where="schedule") == expanded
        for step in (*STEPS, s):
            rate = learning_rate(expanded, lr, step)
            assert math.isfinite(rate), (step, rate)
            assert rate >= 0, (step, rate)

    hold()


# For people


def test_the_table_names_settings_there_are() -> None:
    for row in LIBRARIES:
        assert row.settings.keys() <= settings_of(row.name).keys(), row
        for key, value in row.settings.items():
            choices = settings_of(row.name)[key].choices
            assert not choices or value in choices, row
