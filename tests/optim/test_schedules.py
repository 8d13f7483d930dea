"""Schedules: closed forms of the updates already applied, and specs that name them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gradledger_server.errors import InvalidSpec
from gradledger_server.optim import catalog


def test_no_schedule_is_the_constant_one() -> None:
    schedule = catalog.expand_schedule(None, where="schedule")
    assert schedule == {"name": "constant"} == catalog.expand_schedule(schedule, where="schedule")
    assert [catalog.learning_rate(schedule, 0.1, s) for s in (0, 1, 10**9)] == [0.1] * 3


def test_exponential_decay() -> None:
    given = {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 10}
    schedule = catalog.expand_schedule(given, where="schedule")
    assert schedule == given | {"staircase": False}
    assert catalog.learning_rate(schedule, 0.1, 0) == 0.1
    assert catalog.learning_rate(schedule, 0.1, 10) == 0.05
    assert catalog.learning_rate(schedule, 0.1, 5) == pytest.approx(0.1 * math.sqrt(0.5), rel=1e-15)
    assert catalog.learning_rate(schedule, 0.1, 10**12) == 0.0
    stairs = dict(schedule, staircase=True)
    assert [catalog.learning_rate(stairs, 1.0, s) for s in (0, 9, 10, 19, 20)] == [1, 1, 0.5, 0.5, 0.25]
    flat = catalog.expand_schedule(given | {"decay_rate": 1}, where="schedule")
    assert catalog.learning_rate(flat, 0.1, 12345) == 0.1


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({}, "name", "one of constant, exponential_decay"),
        ({"name": "exponential"}, "name", "'exponential_decay'"),
        ({"name": "exponential_decay", "decay_rate": 0.9}, "decay_steps", "a whole number, 1 <= decay_steps"),
        (
            {"name": "exponential_decay", "decay_rate": 0.9, "decay_steps": 0},
            "decay_steps",
            "1 <= decay_steps",
        ),
        (
            {"name": "exponential_decay", "decay_rate": 0.9, "decay_steps": 2.5},
            "decay_steps",
            "a whole number",
        ),
        (
            {"name": "exponential_decay", "decay_rate": 0, "decay_steps": 1},
            "decay_rate",
            "0 < decay_rate <= 1",
        ),
        (
            {"name": "exponential_decay", "decay_rate": 1.1, "decay_steps": 1},
            "decay_rate",
            "0 < decay_rate <= 1",
        ),
        (
            {"name": "exponential_decay", "decay_rate": 1, "decay_steps": 1, "staircase": 1},
            "staircase",
            "true or false",
        ),
        ({"name": "constant", "lr": 0.1}, "lr", "nothing"),
    ],
)
def test_refusals(given: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        catalog.expand_schedule(given, where="schedule")
    assert refused.value.facts["field"] == f"schedule.{field}"
    assert words in refused.value.detail + refused.value.advice
