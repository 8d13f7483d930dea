"""Schedules: the learning rates of the libraries they reproduce, closed forms, and the edges."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from gradledger_server.optim.schedules.catalog import (
    SCHEDULES,
    expand_schedule,
    learning_rate,
    settings_of,
)
from gradledger_server.optim.schedules.libraries import LIBRARIES
from tests.optim.schedules import LAST, Json, expand, rates

TESTS = Path(__file__).parents[1]
VECTORS: dict[str, Any] = json.loads((TESTS / "vectors" / "schedules.json").read_text(encoding="utf-8"))
TOLERANCE = 1e-12

# Whose behaviour


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"{case['library']} {case['name']}")
def test_every_update_has_the_learning_rate_of_the_library(case: Json) -> None:
    schedule = expand_schedule(case["schedule"], where="schedule")
    assert len(case["rates"]) >= 37
    for s, expected in enumerate(case["rates"]):
        assert learning_rate(schedule, case["lr"], s) == pytest.approx(expected, rel=TOLERANCE, abs=0), s


def test_every_schedule_with_an_oracle_has_vectors() -> None:
    held = {expand_schedule(case["schedule"], where="schedule")["name"] for case in VECTORS["cases"]}
    without_oracle = {"natural_exp_decay", "sigmoid", "noam", "inverse_sqrt", "wsd", "plateau"}
    assert held == SCHEDULES.keys() - without_oracle
    assert {row.name for row in LIBRARIES} == SCHEDULES.keys()


# TF1's and Caffe's words on the left; nobody else has these forms, so they are written down a second time.
CLOSED_FORMS: list[tuple[Json, Callable[[int], float]]] = [
    ({"name": "caffe_fixed"}, lambda _: 0.1),
    ({"name": "caffe_step", "gamma": 0.1, "step_size": 10}, lambda s: 0.1 * 0.1 ** (s // 10)),
    ({"name": "caffe_exp", "gamma": 0.99}, lambda s: 0.1 * 0.99**s),
    ({"name": "caffe_inv", "gamma": 1e-2, "power": 0.75}, lambda s: 0.1 * (1 + 1e-2 * s) ** -0.75),
    (
        {"name": "caffe_multistep", "gamma": 0.5, "step_values": [10, 11, 30]},
        lambda s: 0.1 * 0.5 ** sum(s >= value for value in (10, 11, 30)),
    ),
    ({"name": "caffe_poly", "max_iter": 100, "power": 2}, lambda s: 0.1 * (1 - min(s, 100) / 100) ** 2),
    (
        {"name": "caffe_sigmoid", "gamma": -0.2, "step_size": 30},
        lambda s: 0.1 / (1 + math.exp(0.2 * (s - 30))),
    ),
    (
        {"name": "natural_exp_decay", "decay_rate": 0.5, "decay_steps": 10},
        lambda s: 0.1 * math.exp(-0.5 * s / 10),
    ),
    (
        {"name": "natural_exp_decay", "decay_rate": 0.5, "decay_steps": 10, "staircase": True},
        lambda s: 0.1 * math.exp(-0.5 * (s // 10)),
    ),
    (
        {"name": "noam", "model_width": 512, "warmup_steps": 20},
        lambda s: 0.1 * 512**-0.5 * min((s + 1) ** -0.5, (s + 1) * 20**-1.5),
    ),
    (
        {"name": "inverse_sqrt", "warmup_steps": 20, "init_lr": 0.01},
        lambda s: 0.01 + 0.09 * s / 20 if s < 20 else 0.1 * math.sqrt(20 / s),
    ),
    (
        {"name": "warmup_constant", "warmup_steps": 5, "count_from": "one"},
        lambda s: 0.1 * min(1.0, (s + 1) / 5),
    ),
]


@pytest.mark.parametrize(
    ("schedule", "form"), CLOSED_FORMS, ids=[str(given)[:60] for given, _ in CLOSED_FORMS]
)
def test_closed_forms(schedule: Json, form: Callable[[int], float]) -> None:
    expanded = expand_schedule(schedule, where="schedule")
    for s in range(130):
        assert learning_rate(expanded, 0.1, s) == pytest.approx(form(s), rel=TOLERANCE, abs=0), s


@pytest.mark.parametrize(
    ("shape", "curve"),
    [
        ("linear", lambda x: 1 - x),
        ("sqrt", lambda x: 1 - math.sqrt(x)),
        ("cosine", lambda x: (1 + math.cos(math.pi * x)) / 2),
        ("square", lambda x: 1 - x * x),
    ],
)
@pytest.mark.parametrize("floor", ["scale", "clip"])
def test_warm_up_stable_decay(shape: str, curve: Callable[[float], float], floor: str) -> None:
    steps = {"warmup_steps": 4, "stable_steps": 6, "decay_steps": 8}
    schedule = expand("wsd", **steps, shape=shape, floor=floor, min_ratio=0.25)
    assert rates(schedule, 0, 2, 4, 9, 10) == [0, 0.5, 1, 1, 1]
    for s in range(10, 18):
        f = curve((s - 10) / 8)
        expected = 0.25 + 0.75 * f if floor == "scale" else max(f, 0.25)
        assert rates(schedule, s) == [pytest.approx(expected, rel=TOLERANCE)]
    assert rates(schedule, 18, 19, LAST) == [0.25] * 3


# The edges


def test_who_is_behind_a_boundary() -> None:
    """Update number b + 1 (s == b) has the new learning rate for everyone but TF1 and Keras."""
    given = {"boundaries": [5], "values": [1.0, 0.1]}
    assert rates(expand("piecewise_constant", **given), 4, 5, 6) == [1, 0.1, 0.1]
    assert rates(expand("piecewise_constant", **given, boundary="gt"), 4, 5, 6) == [1, 1, 0.1]
    given = {"step_values": [5], "gamma": 0.5}
    assert rates(expand("multistep", **given), 4, 5, 6) == [1, 0.5, 0.5]
    assert rates(expand("multistep", **given, boundary="gt"), 4, 5, 6) == [1, 1, 0.5]


def test_a_cycle_ends_before_it_begins_again() -> None:
    schedule = expand("polynomial_decay", decay_steps=10, end_lr=0, cycle=True)
    assert rates(schedule, 0, 9, 10, 11, 20, 21) == pytest.approx([1, 0.1, 0, 0.45, 0, 0.3], abs=1e-15)


def test_cosine_holds_unless_it_shall_rise() -> None:
    assert rates(expand("cosine_decay", decay_steps=8), 8, 12, 16) == [0, 0, 0]
    rising = expand("cosine_decay", decay_steps=8, after_end="rise")
    assert rates(rising, 8, 12, 16, 16 * 2**49) == [0, 0.5, 1, 1]


def test_warm_up_inside_or_outside_of_decay_steps() -> None:
    given = {"warmup_steps": 10, "decay_steps": 30}
    assert rates(expand("warmup_cosine", **given), 0, 5, 10, 20, 30) == [0, 0.5, 1, 0.5, 0]
    assert rates(expand("warmup_cosine", **given, warmup="excluded"), 10, 25, 40) == [1, 0.5, 0]


def test_one_cycle_ends_with_the_last_update_or_after_it() -> None:
    lowest = 1 / 25 / 1e4
    last = expand("one_cycle", total_steps=10)
    assert rates(last, 0, 2, 9, 10, LAST) == pytest.approx([1 / 25, 1, *[lowest] * 3])
    after = expand("one_cycle", total_steps=10, ends="after")
    assert rates(after, 0, 3, 10) == pytest.approx([1 / 25, 1, lowest])
    assert rates(after, 9)[0] > lowest


def test_restarts_are_counted_and_not_computed() -> None:
    """S = 3, doubled each time: restarts at 3 · (2^i − 1), where a logarithm's last bit would miss some."""
    schedule = expand("cosine_restarts", first_decay_steps=3, m_mul=0.5)
    for i in range(50):
        restart = 3 * (2**i - 1)
        assert rates(schedule, restart) == [0.5**i]
        if i:
            assert rates(schedule, restart - 1)[0] < 0.5 ** (i - 1)


def test_each_part_of_a_sequence_begins_at_its_own_zero() -> None:
    decay = {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 1}
    inner = {"name": "sequence", "schedules": [decay, decay], "boundaries": [2]}
    schedule = expand("sequence", schedules=[decay, inner], boundaries=[3], scales=[1, 0.5])
    assert rates(schedule, *range(8)) == [1, 0.5, 0.25, 0.5, 0.25, 0.5, 0.25, 0.125]


@pytest.mark.parametrize("kind", ["cosine_decay", "natural_exp_decay", "polynomial_decay", "wsd"])
def test_a_decay_never_rises(kind: str) -> None:
    given: Json = {"decay_steps": 97, "decay_rate": 3.0, "warmup_steps": 0, "stable_steps": 5}
    schedule = expand(kind, **{key: value for key, value in given.items() if key in settings_of(kind)})
    falling = rates(schedule, *range(200))
    assert list(accumulate(falling, min)) == falling
