"""The catalogue: what rules and presets there are, and how a spec that names them is read.

    expand_optimizer({"rule": "adam", "lr": 0.01})   every hyperparameter, explicit and checked
    slot_starts(optimizer)                           the slots, and the number each starts from

All of it is derived from the signatures in `rules.py`. `schedules.catalog` is the same for schedules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from gradledger_server.errors import RuleNotFound
from gradledger_server.optim import transforms
from gradledger_server.optim.expansion import choose, settle, wrong
from gradledger_server.optim.hyperparameters import FLOAT32_TINY
from gradledger_server.optim.matrices import MATRIX_RULES, REFUSES, SLOT_SHAPES, Shape
from gradledger_server.optim.presets import DEFAULT_PRESET, PRESETS
from gradledger_server.optim.rules import RULES as ELEMENTWISE
from gradledger_server.optim.signatures import Facts, Setting, facts_of
from gradledger_server.optim.trust import TRUST_RULES

__all__ = [
    "ELEMENTWISE",
    "MATRIX_RULES",
    "PRESETS",
    "RULES",
    "bytes_per_parameter",
    "expand_optimizer",
    "refusal",
    "rule_facts",
    "slot_shapes",
    "slot_starts",
]

# By what they need to see at once: an element, a tensor's norms, or a tensor in its shape.
RULES = {**ELEMENTWISE, **TRUST_RULES, **MATRIX_RULES}

Optimizer = Mapping[str, Setting]

# What other libraries call it. Understood when a spec is read, never written.
_ALIASES = {"learning_rate": "lr"}
_ALIASES_OF_RULE = {"adadelta": {"eps": "eps_root"}}  # there is no outer epsilon to confuse it with


@cache
def rule_facts(rule: str) -> Facts:
    """A rule's facts, with weight decay among the hyperparameters of every rule. Raises RuleNotFound."""
    if rule not in RULES:
        raise RuleNotFound(f"There is no optimizer rule {rule[:64]!r}.", rule=rule[:64], known=list(RULES))
    facts = facts_of(RULES[rule])
    hyperparameters = dict(facts.hyperparameters)
    if "weight_decay" not in hyperparameters:
        decay = facts_of(transforms.weight_decay).hyperparameters
        hyperparameters |= {name: its for name, its in decay.items() if name != "lr"}
    return replace(facts, hyperparameters=hyperparameters)


def expand_optimizer(given: Mapping[str, object], *, where: str) -> dict[str, Setting]:
    """The `optimizer` object of a spec with rule, preset and every hyperparameter, in the catalogue's order.

    Expanding what was expanded changes nothing. `where` is the object's path in the request. Raises
    InvalidSpec.
    """
    rule = choose(given, "rule", tuple(RULES), where=where, default=None)
    preset = choose(given, "preset", tuple(PRESETS), where=where, default=DEFAULT_PRESET)
    facts = rule_facts(rule)
    written = own_names(given, where=where)
    settled = settle(
        {name: value for name, value in written.items() if name not in ("rule", "preset")},
        facts.hyperparameters,
        PRESETS[preset].get(rule, {}),
        where=where,
        of=f"rule {rule!r}",
    )
    _require_floor(settled, where=where)
    if settled.get("weight_decay_mode") == "decoupled_abs" and settled["lr"] == 0:
        hint = "This mode decays by what the schedule makes of lr, relative to it."
        raise wrong(f"{where}.lr", settled["lr"], "above 0 with weight_decay_mode decoupled_abs", hint=hint)
    return {"rule": rule, "preset": preset, **settled}


def numbers(optimizer: Optimizer) -> dict[str, float]:
    """The hyperparameters that are numbers."""
    return {name: value for name, value in optimizer.items() if not isinstance(value, str)}


def slot_starts(optimizer: Optimizer) -> dict[str, float]:
    """The rule's slots in order, each with the number its elements hold before the first update."""
    starts = rule_facts(str(optimizer["rule"])).slots
    return {
        slot: float(optimizer[start] if isinstance(start, str) else start) for slot, start in starts.items()
    }


def slot_shapes(optimizer: Optimizer, shape: Shape) -> dict[str, Shape]:
    """The shape of each slot a tensor of this shape has: most often its own. It may lack some of them."""
    own = SLOT_SHAPES.get(str(optimizer["rule"]))
    return dict.fromkeys(slot_starts(optimizer), shape) if own is None else own(optimizer, shape)


def bytes_per_parameter(optimizer: Optimizer) -> int:
    """Of a large float32 matrix: itself and its slots. Slots of rows and columns weigh next to nothing."""
    side = 1 << 20
    elements = sum(math.prod(shape) for shape in slot_shapes(optimizer, (side, side)).values())
    return round(4 * (1 + elements / side**2))


def refusal(optimizer: Optimizer, shape: Shape) -> str | None:
    """Why the rule cannot take a tensor of this shape, in words that follow its name; None if it can."""
    refuse = REFUSES.get(str(optimizer["rule"]))
    return None if refuse is None else refuse(shape)


def own_names(given: Mapping[str, object], *, where: str) -> dict[str, object]:
    """An `optimizer` object's fields under their own names; a pair of `betas` becomes two fields.

    Raises InvalidSpec if the same thing is said twice.
    """
    rule = choose(given, "rule", tuple(RULES), where=where, default=None)
    plain: dict[str, object] = {}
    aliases = _ALIASES | _ALIASES_OF_RULE.get(rule, {})
    for name, value in given.items():
        pairs = [(aliases.get(name, name), value)]
        if name == "betas" and "beta1" in rule_facts(rule).hyperparameters:
            if not isinstance(value, list | tuple) or len(value) != 2:
                raise wrong(f"{where}.betas", value, "two numbers, [beta1, beta2]")
            pairs = list(zip(("beta1", "beta2"), value, strict=True))
        for own_name, own_value in pairs:
            if own_name in plain:
                raise wrong(f"{where}.{name}", value, f"{own_name} given once, under one name")
            plain[own_name] = own_value
    return plain


def _require_floor(settled: Optimizer, *, where: str) -> None:
    """Refuse a rule that would divide by the root of nothing: an element never touched would become NaN."""
    floors = [name for name in ("eps", "eps_root", "initial_accumulator") if name in settled]
    if floors and all(float(settled[name]) < FLOAT32_TINY for name in floors):
        hint = "With all of them zero the first division by an untouched element's root is 0/0."
        raise wrong(
            f"{where}.{floors[0]}", settled[floors[0]], f"one of {', '.join(floors)} above 1.2e-38", hint=hint
        )
