"""Specs are expanded to explicit numbers, and what cannot be is refused by name."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from gradledger_server.errors import InvalidSpec, RuleNotFound
from gradledger_server.optim import catalog, chain, guide


def expand(**given: Any) -> dict[str, Any]:
    return catalog.expand_optimizer(given, where="optimizer")


def test_everything_is_explicit_and_in_order() -> None:
    assert json.dumps(expand(beta2=0.99, rule="adam", lr=1)) == json.dumps(
        {
            "rule": "adam",
            "preset": "torch",
            "lr": 1.0,
            "beta1": 0.9,
            "beta2": 0.99,
            "eps": 1e-8,
            "eps_root": 0.0,
            "eps_ref": "corrected",
            "bias_correction": True,
            "weight_decay": 0.0,
            "weight_decay_mode": "l2",
        }
    )


@pytest.mark.parametrize(
    ("rule", "preset"), [(rule, preset) for rule in catalog.RULES for preset in catalog.presets_of(rule)]
)
def test_expanding_again_changes_nothing(rule: str, preset: str) -> None:
    once = expand(rule=rule, preset=preset)
    assert catalog.expand_optimizer(once, where="optimizer") == once
    assert json.loads(json.dumps(once)) == once


def test_what_is_given_wins_over_the_preset() -> None:
    assert expand(rule="rmsprop", preset="textbook")["rho"] == 0.9
    assert expand(rule="rmsprop", preset="textbook", rho=0.5)["rho"] == 0.5
    assert expand(rule="adam", preset="textbook", eps=1e-9)["eps_root"] == 1e-6


def test_other_libraries_names_are_understood() -> None:
    assert expand(rule="adam", learning_rate=0.5, betas=[0.1, 0.2]) == expand(
        rule="adam", lr=0.5, beta1=0.1, beta2=0.2
    )
    assert expand(rule="adadelta", eps=1e-4) == expand(rule="adadelta", eps_root=1e-4)


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({}, "rule", "one of sgd, momentum"),
        ({"rule": 3}, "rule", "one of sgd"),
        ({"rule": ["adam"]}, "rule", "a list of 1"),
        ({"rule": "Adam"}, "rule", "'adam'"),
        ({"rule": "adam", "preset": "pytorch"}, "preset", "'torch'"),
        ({"rule": "adam", "beta1": 1.0}, "beta1", "0 <= beta1 < 1"),
        ({"rule": "adam", "beta1": -0.1}, "beta1", "0 <= beta1 < 1"),
        ({"rule": "adam", "lr": -1}, "lr", "0 <= lr"),
        ({"rule": "adam", "lr": math.nan}, "lr", "0 <= lr"),
        ({"rule": "adam", "lr": math.inf}, "lr", "0 <= lr"),
        ({"rule": "adam", "lr": 1e39}, "lr", "0 <= lr"),
        ({"rule": "adam", "lr": 10**400}, "lr", "2^53"),
        ({"rule": "adam", "lr": True}, "lr", "a number"),
        ({"rule": "adam", "lr": "0.1"}, "lr", "a number"),
        ({"rule": "adam", "lr": None}, "lr", "a number"),
        ({"rule": "adam", "lr": {"a": 1}}, "lr", "an object"),
        ({"rule": "adadelta", "eps_root": 0}, "eps_root", "0 < eps_root"),
        ({"rule": "momentum", "first_step": "raw"}, "first_step", "one of copy, ema"),
        ({"rule": "momentum", "dampening": 1.1}, "dampening", "0 <= dampening <= 1"),
        ({"rule": "adam", "epsilon": 1e-8}, "epsilon", "'eps'"),
        ({"rule": "adam", "beta_1": 0.9}, "beta_1", "'beta1'"),
        ({"rule": "sgd", "momentum": 0.9}, "momentum", "lr, weight_decay"),
        ({"rule": "sgd", "x" * 1000: 1}, "x" * 61 + "...", "lr, weight_decay"),
        ({"rule": "adam", "betas": [0.9]}, "betas", "two numbers"),
        ({"rule": "adam", "betas": 0.9}, "betas", "two numbers"),
        ({"rule": "adam", "betas": [0.9, 2]}, "beta2", "0 <= beta2 < 1"),
        ({"rule": "adam", "betas": [0.9, 0.9], "beta1": 0.9}, "beta1", "once"),
        ({"rule": "sgd", "lr": 1, "learning_rate": 1}, "learning_rate", "once"),
        ({"rule": "sgd", "betas": [0.9, 0.9]}, "betas", "lr, weight_decay"),
        ({"rule": "adam", "eps": 0}, "eps", "eps, eps_root"),
        ({"rule": "rmsprop", "eps": 1e-40}, "eps", "above 1.2e-38"),
        ({"rule": "adagrad", "eps": 0, "initial_accumulator": 1e-45}, "eps", "initial_accumulator"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        catalog.expand_optimizer(given, where="groups[2].optimizer")
    error = refused.value
    assert error.facts["field"] == f"groups[2].optimizer.{field}"
    assert error.facts["field"] in error.detail
    assert words in error.detail + error.advice
    assert len(error.detail) < 400
    json.dumps(error.facts, allow_nan=False)


def test_without_epsilon_an_accumulator_that_starts_above_zero_will_do() -> None:
    assert expand(rule="adagrad", eps=0, initial_accumulator=0.1)["eps"] == 0.0
    assert catalog.slot_starts(expand(rule="adagrad", initial_accumulator=0.1)) == {"v": 0.1}


def test_programs_are_shared_and_zeros_make_their_own() -> None:
    plain, other = expand(rule="adam"), expand(rule="adam", lr=0.5, beta1=0.3, eps=1e-3)
    assert chain.program(plain) is chain.program(other)
    decayed = chain.program(expand(rule="adam", weight_decay=0.1))
    assert len(decayed.steps) == len(chain.program(plain).steps) + 2
    assert chain.program(expand(rule="adam", lr=0)) is chain.program(plain), "lr changes at every step"
    ema = expand(rule="momentum", dampening=0.5, first_step="ema")
    assert chain.program(ema) is not chain.program(expand(rule="momentum", dampening=0.5))


def test_scalars_are_float64_of_this_update() -> None:
    optimizer = expand(rule="adam")
    values = dict(
        zip(chain.program(optimizer).scalars.values(), chain.scalars(optimizer, t=3, lr=0.25), strict=True)
    )
    assert {1 - 0.9**3, 1 - 0.999**3, 0.25, 1 - 0.9, 1e-8} <= set(values.values())


@pytest.mark.parametrize("rule", catalog.ELEMENTWISE)
def test_a_rule_describes_itself(rule: str) -> None:
    told = guide.describe(rule)
    json.dumps(told, allow_nan=False)
    assert told["name"] == rule and told["summary"] and re.search(r"\d{4}", told["paper"])
    held = [slot["name"] for slot in told["slots"] if slot["when"] is None]
    assert told["bytes_per_parameter"] == 4 * (1 + len(held)) and held == list(
        catalog.slot_starts(expand(rule=rule))
    )
    assert tuple(told["presets"]) == catalog.presets_of(rule) and "torch" in told["presets"]
    schema = told["hyperparameters"]
    jsonschema.Draft202012Validator.check_schema(schema)
    for expanded in told["presets"].values():
        numbers = {name: value for name, value in expanded.items() if name not in ("rule", "preset")}
        jsonschema.validate(numbers, schema)
        assert numbers.keys() == schema["properties"].keys()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"lr": -1}, schema)


@pytest.mark.parametrize("rule", catalog.ELEMENTWISE)
def test_equations_are_balanced_and_complete(rule: str) -> None:
    equation = guide.describe(rule)["equation"]
    assert equation.count("{") == equation.count("}")
    assert equation.count(r"\left(") == equation.count(r"\right)")
    declared = catalog.rule_facts(rule).hyperparameters
    choices = {name: p.default or False for name, p in declared.items() if p.kind in ("choice", "switch")}
    for letter in ("w", *catalog.rule_facts(rule).present_slots(choices)):
        assert f"{letter}_t = " in equation
    assert r"\mathrm" not in equation, "every hyperparameter has its symbol"


def test_equations_read_like_the_papers() -> None:
    assert guide.describe("momentum")["equation"] == (
        r"u_t = \mu u_{t-1} + \left(1 - \tau [t > 1]\right) g_t \\ w_t = w_{t-1} - \eta_t u_t"
    )
    assert r"v_t = \beta_2 v_{t-1} + \left(1 - \beta_2\right) g_t^2" in guide.describe("adam")["equation"]
    assert (
        r"\frac{\sqrt{d_{t-1} + \epsilon_r}}{\sqrt{v_t + \epsilon_r}} g_t"
        in (guide.describe("adadelta")["equation"])
    )


def test_an_unknown_rule_is_not_found() -> None:
    with pytest.raises(RuleNotFound, match="no optimizer rule 'adma'"):
        guide.describe("adma")


def test_only_what_the_registries_bound_is_remembered_without_bound() -> None:
    """Clients can think of specs without end, so what is made for one is forgotten some time."""
    sources = Path(catalog.__file__).parents[1].rglob("*.py")
    remembering = {
        found for path in sources for found in re.findall(r"@cache\b.*\ndef (\w+)", path.read_text())
    }
    assert remembering == {"facts_of", "rule_facts", "accumulation"}
