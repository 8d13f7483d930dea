"""What people are told is there for every rule and transform, and what can be checked of it is true."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest

from gradledger_server.errors import InvalidSpec, TransformNotFound
from gradledger_server.kernels.device import open_device
from gradledger_server.kernels.operations import Value
from gradledger_server.optim import catalog, chain, equations, guide
from gradledger_server.optim.hyperparameters import Fraction
from gradledger_server.optim.prose import Prose, prose_of
from gradledger_server.optim.transforms import TRANSFORMS

ELEMENTWISE = [
    rule for rule in catalog.RULES if guide.describe(rule)["sparse"]["lazy_equals_dense"] is not None
]


@pytest.mark.parametrize("rule", catalog.RULES)
def test_a_rule_says_when_to_use_it_and_what_rows_mean_to_it(rule: str) -> None:
    prose = prose_of(catalog.RULES[rule])
    assert len(prose.use) > 30, f"{rule}: give its docstring a paragraph `Use: …`"
    assert prose.lazy_equals_dense in (True, False, None), f"{rule}: give its docstring a paragraph `Rows: …`"
    assert len(prose.rows.partition(": ")[2]) > 10, f"{rule}: `Rows:` does not say why"


@pytest.mark.parametrize("rule", ELEMENTWISE)
def test_lazy_rows_equal_dense_ones_exactly_where_it_is_said(rule: str) -> None:
    """An element that has learned gets a zero gradient, as the rows a sparse push leaves out would."""
    optimizer = catalog.expand_optimizer({"rule": rule, "weight_decay": 0.0}, where="optimizer")
    *_, learned, after = _states(optimizer, [0.5, -0.25, 1.0, 0.0])
    assert (learned == after) is guide.describe(rule)["sparse"]["lazy_equals_dense"]


def _states(optimizer: dict[str, Any], gradients: list[float]) -> Iterator[dict[str, float]]:
    """The weight and slots of a single element after each update."""
    kernel = open_device("cpu", compiled=False).kernel(chain.program(optimizer), np.float64)
    state = {name: np.array([start]) for name, start in {"w": 1.0, **catalog.slot_starts(optimizer)}.items()}
    for t, gradient in enumerate(gradients, start=1):
        scalars = chain.scalars(optimizer, t=t, lr=float(optimizer["lr"]))
        w, *slots = state.values()
        kernel(w, w, np.array([gradient]), slots, scalars)
        yield {name: float(value[0]) for name, value in state.items()}


def test_a_slot_that_a_setting_adds_is_told_with_that_setting() -> None:
    told = guide.describe("rmsprop")
    assert {slot["name"]: slot["when"] for slot in told["slots"]} == {
        "v": None,
        "m": "centered is true",
        "u": "momentum > 0",
    }
    assert told["bytes_per_parameter"] == 8


def test_a_preset_that_a_rule_does_not_have_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def expand(given: dict[str, Any], *, where: str) -> dict[str, Any]:
        if given.get("preset") == "textbook":
            raise InvalidSpec("there is no such preset for this rule")
        return catalog.expand_optimizer(given, where=where)

    assert "textbook" in guide.describe("adam")["presets"]
    monkeypatch.setattr(guide, "expand_optimizer", expand)
    assert "textbook" not in guide.describe("adam")["presets"]
    assert "torch" in guide.describe("adam")["presets"]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_describes_itself(name: str) -> None:
    told = guide.describe_transform(name)
    assert told["name"] == name and told["summary"] and told["source"]
    assert len(told["use"]) > 30, f"{name}: give its docstring a paragraph `Use: …`"
    jsonschema.Draft202012Validator.check_schema(told["hyperparameters"])


def test_transforms_are_told_in_the_order_in_which_they_are_applied() -> None:
    positions = [guide.describe_transform(name)["position"] for name in TRANSFORMS]
    assert positions[0] == 1 and all(after == before + 1 for before, after in pairwise(positions))


def test_a_transforms_equation_is_what_the_rule_sees() -> None:
    clipped = guide.describe_transform("clip_norm")["equation"]
    assert clipped.startswith(r"\hat{g}_t = ") and r"\lVert g_t \rVert" in clipped


def test_an_unknown_transform_is_not_found() -> None:
    with pytest.raises(TransformNotFound, match="no transform 'clip'"):
        guide.describe_transform("clip")


def test_a_docstring_is_read_by_its_paragraphs() -> None:
    def rule(w: Value, g: Value) -> tuple[Value]:
        """Plain descent. Cauchy 1847,
        Méthode générale.

        It came before computers.

        Use: when
        nothing else is at hand.
        Rows: lazy equals dense: nothing is remembered.
        """
        return (w - g,)

    assert prose_of(rule) == Prose(
        summary="Plain descent",
        source="Cauchy 1847, Méthode générale",
        use="when nothing else is at hand.",
        rows="lazy equals dense: nothing is remembered.",
        notes=("It came before computers.",),
    )
    assert prose_of(rule).lazy_equals_dense is True


def test_rows_without_a_verdict_are_refused() -> None:
    with pytest.raises(ValueError, match="opens with none of lazy equals dense, lazy differs"):
        _ = Prose("Descent", "", rows="who knows").lazy_equals_dense


def test_a_transform_that_keeps_something_is_written_with_its_slot() -> None:
    def follow(w: Value, before: Value, slow: Value, *, t: int, rate: Fraction = 0.5) -> tuple[Value, Value]:
        """Slow weights. Nobody 2026."""
        slow = slow + rate * (w - slow)
        return w, slow

    slow = r"\mathrm{slow}"
    assert equations.of_transform(follow) == (
        rf"{slow}_t = {slow}_{{t-1}} + \mathrm{{rate}} \left(w_t - {slow}_{{t-1}}\right)"
    )
