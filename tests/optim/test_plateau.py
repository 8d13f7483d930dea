"""The plateau schedule: metric by metric what the libraries make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradledger_server.optim.schedules.catalog import expand_schedule, learning_rate
from gradledger_server.optim.schedules.plateau import Watch, judged

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "schedules.json").read_text(encoding="utf-8")
)
Json = dict[str, Any]


def expand(**settings: Any) -> Json:
    return expand_schedule({"name": "plateau", **settings}, where="schedule")


def reductions(schedule: Json, metrics: list[float], lr: float = 0.1) -> list[int]:
    """How often the learning rate was reduced after each metric."""
    watch, made = Watch(), []
    for metric in metrics:
        watch = judged(watch, metric, schedule, lr)
        made.append(watch.reductions)
    return made


@pytest.mark.parametrize("case", VECTORS["plateaus"], ids=lambda case: str(case["library"]))
def test_every_metric_leads_to_the_learning_rate_of_the_library(case: Json) -> None:
    schedule, watch = expand_schedule(case["schedule"], where="schedule"), Watch()
    for metric, expected in zip(VECTORS["metrics"], case["rates"], strict=True):
        watch = judged(watch, metric, schedule, case["lr"])
        rate = learning_rate(schedule, case["lr"], 0, watch.reductions)
        assert rate == pytest.approx(expected, rel=1e-12, abs=0)
    assert {case["library"] for case in VECTORS["plateaus"]} == {"torch", "keras", "optax"}
    assert len(set(case["rates"])) > 2


def test_patience_is_counted_in_two_ways() -> None:
    """All metrics after the first are bad: torch reduces at the eleventh, Keras and Optax at the tenth."""
    flat = [1.0] * 12
    assert reductions(expand(), flat) == [0] * 11 + [1]
    assert reductions(expand(reduce="at"), flat) == [0] * 10 + [1, 1]


def test_the_last_metric_of_a_cooldown_counts_or_does_not() -> None:
    flat = [1.0] * 8
    given = {"reduce": "at", "patience": 1, "cooldown": 2}
    assert reductions(expand(**given), flat) == [0, 1, 1, 1, 2, 2, 2, 3]
    assert reductions(expand(**given, cooldown_last="counted"), flat) == [0, 1, 1, 2, 2, 3, 3, 4]


def test_nothing_is_reduced_below_the_floor_or_by_too_little() -> None:
    flat = [1.0] * 6
    floored = expand(patience=0, factor=0.5, min_lr=0.03)
    assert reductions(floored, flat) == [0, 1, 2, 2, 2, 2]
    assert [learning_rate(floored, 0.1, 0, made) for made in (0, 1, 2)] == [0.1, 0.05, 0.03]
    assert reductions(expand(patience=0, min_lr=0.5), flat) == [0] * 6
    assert reductions(expand(patience=0, factor=0.5, min_decrease=0.03), flat) == [0, 1, 1, 1, 1, 1]


def test_what_counts_as_better() -> None:
    once = {"patience": 0, "threshold": 0.1}
    assert reductions(expand(**once), [1.0, 0.91, 0.89]) == [0, 1, 1]
    assert reductions(expand(**once, threshold_mode="abs"), [10.0, 9.95, 9.8]) == [0, 1, 1]
    assert reductions(expand(**once, goal="max"), [1.0, 1.05, 1.2]) == [0, 1, 1]


METRICS = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    st.lists(METRICS, max_size=30),
    st.sampled_from(["min", "max"]),
    st.sampled_from(["rel", "abs"]),
    st.floats(0, 3e38),
    st.integers(0, 3),
    st.floats(0, 1e38),
)
def test_no_metric_does_harm(
    metrics: list[float], goal: str, mode: str, threshold: float, patience: int, lr: float
) -> None:
    schedule = expand(
        goal=goal, threshold_mode=mode, threshold=threshold, patience=patience, cooldown=1, min_lr=1e-5
    )
    made = reductions(schedule, metrics, lr)
    rates = [learning_rate(schedule, lr, s, count) for s, count in enumerate(made)]
    assert made == sorted(made)
    assert rates == sorted(rates, reverse=True)
    assert all(min(lr, 1e-5) <= rate <= lr for rate in rates)
