"""What is sound alone and impossible together, or not there at all, is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradledger_server.errors import InvalidSpec
from gradledger_server.kernels.device import open_device
from gradledger_server.optim import catalog, chain
from gradledger_server.optim.combinations import ELSEWHERE
from gradledger_server.optim.rules import VIEWS, moments
from gradledger_server.optim.rules.averaging import newest_share, ramp
from gradledger_server.optim.signatures import facts_of


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        # an epsilon is missing
        ({"rule": "adamw", "eps": 0}, "eps", "one of eps, eps_root above 1.2e-38"),
        ({"rule": "rmsprop", "eps": 0, "initial_accumulator": 1}, "eps", "one of eps, eps_root"),
        ({"rule": "adagrad", "preset": "tf1", "initial_accumulator": 0}, "eps", "initial_accumulator"),
        ({"rule": "schedule_free_adamw", "eps": 0}, "eps", "eps above 1.2e-38"),
        ({"rule": "fedadam", "eps": 0}, "eps", "0 < eps"),
        # two settings that contradict each other
        ({"rule": "amsgrad", "max_ref": "corrected", "eps_ref": "raw"}, "eps_ref", "max_ref is corrected"),
        ({"rule": "amsgrad", "preset": "keras", "max_ref": "corrected"}, "eps_ref", "max_ref is corrected"),
        ({"rule": "radam", "beta2": 0.5}, "threshold", "less than 2/(1 - beta2) - 1 = 3"),
        ({"rule": "radam", "threshold": 1999}, "threshold", "1999"),
        ({"rule": "rprop", "lr": 100}, "lr", "min_step <= lr <= max_step"),
        ({"rule": "rprop", "min_step": 2, "max_step": 1}, "lr", "2 to 1"),
        ({"rule": "adamw", "weight_decay_mode": "decoupled_abs", "lr": 0}, "lr", "0 < lr"),
        # bounds
        ({"rule": "radam", "threshold": 3.9}, "threshold", "4 <= threshold"),
        ({"rule": "ftrl", "initial_accumulator": 0}, "initial_accumulator", "1.17549e-38"),
        ({"rule": "ftrl", "lr": 0}, "lr", "0 < lr"),
        ({"rule": "ftrl", "l1": -0.1}, "l1", "0 <= l1"),
        ({"rule": "rprop", "grow": 0.9}, "grow", "1 <= grow"),
        ({"rule": "rprop", "shrink": 1.5}, "shrink", "0 < shrink <= 1"),
        ({"rule": "schedule_free_sgd", "momentum": 0}, "momentum", "0 < momentum < 1"),
        ({"rule": "schedule_free_adamw", "beta1": 1}, "beta1", "0 < beta1 < 1"),
        ({"rule": "schedule_free_sgd", "warmup_steps": 1.5}, "warmup_steps", "a whole number"),
        ({"rule": "rmsprop", "centered": 1}, "centered", "true or false"),
        ({"rule": "adan", "beta3": 1}, "beta3", "0 <= beta3 < 1"),
        ({"rule": "adan", "betas": [0.9, 0.9]}, "betas", "three numbers, [beta1, beta2, beta3]"),
        # a setting of another rule
        ({"rule": "nesterov", "dampening": 0.5}, "dampening", "Rule momentum takes dampening"),
        ({"rule": "adam", "amsgrad": True}, "amsgrad", "a rule of its own: amsgrad"),
        ({"rule": "momentum", "nesterov": True}, "nesterov", "a rule of its own: nesterov"),
        ({"rule": "sgd", "maximize": True}, "maximize", "Push the negative gradient"),
        # a preset of another rule
        ({"rule": "lion", "preset": "textbook"}, "preset", "one of torch, keras, optax, paper"),
        ({"rule": "adamw", "preset": "textbook"}, "preset", "says nothing about rule 'adamw'"),
        ({"rule": "adam", "preset": "diloco"}, "preset", "torch, keras, tf1, optax, caffe, paper, textbook"),
        ({"rule": "rprop", "preset": "optax"}, "preset", "one of torch, paper"),
    ],
)
def test_refused_by_name(given: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        catalog.expand_optimizer(given, where="optimizer")
    assert refused.value.facts["field"] == f"optimizer.{field}"
    assert words in refused.value.detail + refused.value.advice


def test_what_is_told_of_elsewhere_is_there() -> None:
    declared = {name for rule in catalog.RULES for name in catalog.rule_facts(rule).hyperparameters}
    assert set(ELSEWHERE) - declared == {"amsgrad", "maximize", "epsilon"}
    assert {"amsgrad", "nesterov", "momentum", "rmsprop"} <= set(catalog.RULES)


def test_presets_name_rules_and_settings_there_are() -> None:
    for preset, bundles in catalog.PRESETS.items():
        for rule, bundle in bundles.items():
            expanded = catalog.expand_optimizer({"rule": rule, "preset": preset}, where="optimizer")
            assert bundle.items() <= expanded.items(), (preset, rule)


def test_the_rules_with_no_epsilon_divide_nothing_by_nothing_to_nothing() -> None:
    """Untouched for long, then touched, then untouched: never a NaN, and put where nothing was."""
    for given in ({"rule": "amsgrad"}, {"rule": "adamax"}):
        optimizer = catalog.expand_optimizer({**given, "preset": "paper"}, where="optimizer")
        for dtype in (np.float32, np.float64):
            kernel = open_device("cpu").kernel(chain.program(optimizer), dtype)
            w = np.full(3, 1.5, dtype)
            slots = [np.zeros(3, dtype) for _ in catalog.slot_starts(optimizer)]
            for t, g in enumerate((0.0, 0.0, 1.0, 0.0, 0.0), start=1):
                gradient = np.array([0.0, g, g * 1e-30], dtype)
                kernel(w, w, gradient, slots, chain.scalars(optimizer, t=t, lr=0.1))
                assert np.isfinite(w).all() and w[0] == 1.5
            assert w[1] < 1.5


@pytest.mark.parametrize(("beta1", "decay"), [(0.9, 4e-3), (0.9, 1.0), (0.0, 1.0), (0.999999, 0.1), (0.5, 0)])
def test_nadams_product_is_the_product(beta1: float, decay: float) -> None:
    expected = 1.0
    for t in range(1, 3001):
        expected *= beta1 * (1 - 0.5 * 0.96 ** (t * decay))
        if t in (1, 2, 3, 50, 500, 3000):
            assert moments.momentum_product(t, beta1, decay) == pytest.approx(expected, rel=1e-12, abs=1e-17)
    assert moments.momentum_product(10**12, beta1, decay) <= expected


def test_an_average_is_the_weight_itself_before_the_first_update() -> None:
    w, a = np.array([1.0, -2.0]), np.zeros(2)
    assert VIEWS["schedule_free_sgd"]["eval"](w, a, momentum=0.9).tolist() == w.tolist()
    assert VIEWS["schedule_free_adamw"]["eval"](w, a, beta1=0.9).tolist() == w.tolist()


def test_a_views_arguments_are_slots_and_hyperparameters_of_its_rule() -> None:
    for rule, views in VIEWS.items():
        for view in views.values():
            told, facts = facts_of(view), catalog.rule_facts(rule)
            names = list(told.function.__code__.co_varnames[: told.function.__code__.co_argcount])
            assert names[0] == "w" and set(names[1:]) <= set(facts.slots)
            assert told.hyperparameters.keys() <= facts.hyperparameters.keys()


def test_the_share_of_the_newest_point_is_its_weight_over_all() -> None:
    for warmup in (0, 1, 2, 7):
        total = 0.0
        for t in range(1, 30):
            rate = min(1.0, t / max(warmup, 1))
            total += rate**2
            assert ramp(t, warmup) == rate
            assert newest_share(t, warmup) == pytest.approx(rate**2 / total, rel=1e-14)


def test_a_variance_that_rounding_made_negative_counts_as_none() -> None:
    optimizer = catalog.expand_optimizer({"rule": "rmsprop", "centered": True}, where="optimizer")
    kernel = open_device("cpu").kernel(chain.program(optimizer), np.float64)
    w, v, m = np.array([1.0]), np.array([1 - 1e-6]), np.array([1.0])
    kernel(w, w, np.array([1.0]), [v, m], chain.scalars(optimizer, t=9, lr=1e-8))
    assert v[0] < m[0] ** 2 and w[0] == 0.0, "lr g / eps"


@pytest.mark.parametrize(("strict", "trusted"), [(True, False), (False, True)])
def test_radams_threshold_may_be_exceeded_or_reached(strict: bool, trusted: bool) -> None:
    """At the update whose window is the very threshold."""
    threshold = moments.window(7, 0.9)
    given = {"rule": "radam", "beta2": 0.9, "threshold": threshold, "threshold_strict": strict}
    optimizer = catalog.expand_optimizer(given, where="optimizer")
    kernel = open_device("cpu").kernel(chain.program(optimizer), np.float64)
    w, m, v = np.array([1.0]), np.array([0.5]), np.array([4.0])
    kernel(w, w, np.array([0.5]), [m, v], chain.scalars(optimizer, t=7, lr=1.0))
    plain = 1.0 - 0.5 / (1 - 0.9**7)
    assert (w[0] != pytest.approx(plain)) == trusted
