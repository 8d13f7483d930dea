"""The rules: their common form, the textbook formulas they reduce to, and a published formula that climbs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from gradledger_server.kernels.device import open_device
from gradledger_server.optim import catalog, chain
from gradledger_server.optim.meanings import MEANINGS, SLOT_MEANINGS

RULES = tuple(catalog.ELEMENTWISE)


@pytest.mark.parametrize("rule", RULES)
def test_a_rules_signature_is_its_specification(rule: str) -> None:
    function = catalog.ELEMENTWISE[rule]
    parameters = list(inspect.signature(function).parameters.values())
    leading = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    settings = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert len(leading) + len(settings) == len(parameters)
    assert [p.name for p in leading[:2]] == ["w", "g"]
    assert all(p.name in SLOT_MEANINGS and p.default is p.empty for p in leading[2:])
    facts = catalog.rule_facts(rule)
    given, settings = settings[: len(facts.given)], settings[len(facts.given) :]
    assert [p.name for p in given] == list(facts.given) and facts.given[0] == "t"
    assert all(p.default is p.empty for p in given) and settings[0].name == "lr"
    assert tuple(facts.slots) == tuple(p.name for p in leading[2:])
    assert {p.name for p in settings} <= set(facts.hyperparameters) <= set(MEANINGS)
    assert "weight_decay" in facts.hyperparameters
    assert facts.summary and facts.source
    for parameter in facts.hyperparameters.values():
        assert parameter.default is not None, "every rule works as it comes"
        assert parameter.bounds is None or parameter.bounds.allow(float(parameter.default))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_a_function_of_arrays_too(rule: str) -> None:
    """Called directly with float64 arrays it agrees with its kernel, but for powers."""
    optimizer = catalog.expand_optimizer({"rule": rule}, where="optimizer")
    program = chain.program(optimizer)
    generator = np.random.default_rng(3)
    drawn = {name: np.abs(generator.standard_normal(50)) for name in program.inputs}
    settings: dict[str, Any] = {
        name: optimizer[name]
        for name in inspect.signature(catalog.ELEMENTWISE[rule]).parameters
        if name in optimizer and name != "lr"
    }
    settings |= {"base_lr": 0.1} if "base_lr" in catalog.rule_facts(rule).given else {}
    kinds: tuple[type[Any], ...] = (np.float64, np.float32)
    for kind in kinds:
        arrays = {name: array.astype(kind) for name, array in drawn.items()}
        slots = [arrays.get(slot, kind(0)) for slot in catalog.rule_facts(rule).slots]
        returned = catalog.ELEMENTWISE[rule](arrays["w"], arrays["g"], *slots, t=4, lr=0.01, **settings)
        named = zip(("w", *catalog.rule_facts(rule).slots), returned, strict=True)
        expected = [value for name, value in named if name in program.inputs]
        assert all(np.asarray(value).dtype == kind for value in expected)
        got = [array.copy() for array in arrays.values()]
        kernel = open_device("cpu").kernel(program, kind)
        kernel(got[0], got[0], got[1], got[2:], chain.scalars(optimizer, t=4, lr=0.01))
        for value, array in zip(expected, (got[0], *got[2:]), strict=True):
            tolerance = 1e-14 if kind is np.float64 else 1e-6
            np.testing.assert_allclose(cast("Any", value), array, rtol=tolerance)


# A mean of gradients that does not start at 0 is a gradient seen; TensorFlow's FTRL forgets its weights.
MOVES_UNTOUCHED = {("yogi", "optax"), ("ftrl", "keras"), ("ftrl", "tf1")}


@pytest.mark.parametrize("rule", RULES)
def test_an_element_never_touched_stays_put(rule: str) -> None:
    for preset in catalog.presets_of(rule):
        if (rule, preset) in MOVES_UNTOUCHED:
            continue
        optimizer = catalog.expand_optimizer({"rule": rule, "preset": preset, "weight_decay": 0}, where="o")
        w, *_ = trajectory(optimizer, 1.5, [0.0] * 5)
        assert w == [1.5] * 5


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_finds_the_bottom_of_a_bowl(rule: str) -> None:
    larger: dict[str, dict[str, Any]] = {
        "adagrad": {"lr": 0.5},
        "ftrl": {"lr": 0.5},
        "fedadagrad": {"lr": 0.5},
        "adadelta": {"lr": 1.0, "eps_root": 1e-3},
    }
    given = {"rule": rule, **larger.get(rule, {"lr": 0.02})}
    optimizer = catalog.expand_optimizer(given, where="optimizer")
    w, *_ = trajectory(optimizer, 1.0, lambda w: 2 * w, steps=600)
    assert abs(w[-1]) < 0.05


def trajectory(
    optimizer: dict[str, Any], start: float, gradients: list[float] | Callable[[float], float], steps: int = 0
) -> tuple[list[float], dict[str, float]]:
    """A single float64 weight after every update, by the kernel, and its slots at the end."""
    kernel = open_device("cpu", compiled=False).kernel(chain.program(optimizer), np.float64)
    w = np.array([start])
    slots = {name: np.array([value]) for name, value in catalog.slot_starts(optimizer).items()}
    taken = []
    for s in range(steps if callable(gradients) else len(gradients)):
        g = gradients(float(w[0])) if callable(gradients) else gradients[s]
        scalars = chain.scalars(optimizer, t=s + 1, lr=float(optimizer["lr"]))
        kernel(w, w, np.array([g]), list(slots.values()), scalars)
        taken.append(float(w[0]))
    return taken, {name: float(slot[0]) for name, slot in slots.items()}


GRADIENTS = [0.5, -0.25, 1e-3, 2.0, 1e-5, -3.0, 0.125, 0.0, 1e-4, 0.75, -0.5, 0.3]


def sgd_by_hand(theta: float, eta: float) -> list[float]:
    out = []
    for g in GRADIENTS:
        theta -= eta * g
        out.append(theta)
    return out


def momentum_by_hand(theta: float, eta: float) -> list[float]:
    out, v = [], 0.0
    for g in GRADIENTS:
        v = 0.9 * v + g
        theta -= eta * v
        out.append(theta)
    return out


def adagrad_by_hand(theta: float, eta: float) -> list[float]:
    out, accumulated = [], 0.0
    for g in GRADIENTS:
        accumulated += g**2
        theta -= eta * g / math.sqrt(accumulated + 1e-6)
        out.append(theta)
    return out


def rmsprop_by_hand(theta: float, eta: float) -> list[float]:
    out, mean = [], 0.0
    for g in GRADIENTS:
        mean = 0.9 * mean + 0.1 * g**2
        theta -= eta * g / math.sqrt(mean + 1e-6)
        out.append(theta)
    return out


def adadelta_by_hand(theta: float, eta: float) -> list[float]:
    out, mean, changes = [], 0.0, 0.0
    for g in GRADIENTS:
        mean = 0.9 * mean + 0.1 * g**2
        change = math.sqrt(changes + 1e-6) / math.sqrt(mean + 1e-6) * g
        changes = 0.9 * changes + 0.1 * change**2
        theta -= eta * change
        out.append(theta)
    return out


def adam_by_hand(theta: float, eta: float) -> list[float]:
    out, first, second = [], 0.0, 0.0
    for t, g in enumerate(GRADIENTS, start=1):
        first = 0.9 * first + 0.1 * g
        second = 0.999 * second + 0.001 * g**2
        theta -= eta * (first / (1 - 0.9**t)) / math.sqrt(second / (1 - 0.999**t) + 1e-6)
        out.append(theta)
    return out


@pytest.mark.parametrize(
    ("rule", "by_hand", "lr"),
    [
        ("sgd", sgd_by_hand, 0.1),
        ("momentum", momentum_by_hand, 0.1),
        ("adagrad", adagrad_by_hand, 0.1),
        ("rmsprop", rmsprop_by_hand, 0.1),
        ("adadelta", adadelta_by_hand, 1.0),
        ("adam", adam_by_hand, 0.1),
    ],
)
def test_the_textbook_preset_is_the_textbook_formula(
    rule: str, by_hand: Callable[[float, float], list[float]], lr: float
) -> None:
    optimizer = catalog.expand_optimizer({"rule": rule, "preset": "textbook", "lr": lr}, where="optimizer")
    assert trajectory(optimizer, 1.0, GRADIENTS)[0] == pytest.approx(by_hand(1.0, lr), rel=1e-12)


def test_the_epsilon_under_the_root_is_not_the_one_outside() -> None:
    """Adam's first step over lr for |g| = 1e-4: 0.0995 with the textbook's epsilon, 0.9999 with torch's."""
    for preset, share in (("textbook", 0.0995), ("torch", 0.9999)):
        optimizer = catalog.expand_optimizer({"rule": "adam", "preset": preset, "lr": 1.0}, where="optimizer")
        assert trajectory(optimizer, 0.0, [1e-4])[0][0] == pytest.approx(-share, abs=1e-4)


def test_momentum_with_the_wrong_sign_climbs() -> None:
    """v = 0.8v - 0.2g; w = w - av can be read in print. It is averaged momentum going uphill."""
    w, v = 1.0, 0.0
    for _ in range(50):
        v = 0.8 * v - 0.2 * (2 * w)
        w = w - 0.1 * v
    assert w == pytest.approx(445, rel=0.01)
    averaged = {"rule": "momentum", "momentum": 0.8, "dampening": 0.8, "first_step": "ema", "lr": 0.1}
    optimizer = catalog.expand_optimizer(averaged, where="optimizer")
    uphill, _ = trajectory(optimizer, 1.0, lambda w: -2 * w, steps=50)
    downhill, _ = trajectory(optimizer, 1.0, lambda w: 2 * w, steps=50)
    assert uphill[-1] == pytest.approx(w) and abs(downhill[-1]) < 0.01


def test_dampening_spares_the_first_step_unless_asked() -> None:
    for first_step, velocity in (("copy", 1.0), ("ema", 0.25)):
        given = {"rule": "momentum", "dampening": 0.75, "first_step": first_step}
        optimizer = catalog.expand_optimizer(given, where="optimizer")
        assert trajectory(optimizer, 0.0, [1.0])[1]["u"] == velocity
