"""The catalogue: what rules and presets there are, and how a spec that names them is read.

    expand_optimizer({"rule": "adam", "lr": 0.01})   every hyperparameter, explicit and checked
    slot_starts(optimizer)                           the slots, and the number each starts from

All of it is derived from the signatures in `rules/`, `trust.py` and `matrices.py`. `schedules.catalog` is the
same for schedules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from gradledger_server.errors import RuleNotFound
from gradledger_server.optim import transforms
from gradledger_server.optim.combinations import ELSEWHERE, refuse_impossible
from gradledger_server.optim.expansion import choose, settle, with_meant, wrong
from gradledger_server.optim.matrices import MATRIX_RULES, REFUSES, SLOT_SHAPES, Shape
from gradledger_server.optim.presets import DEFAULT_PRESET, PRESETS, presets_of
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
    "presets_of",
    "refusal",
    "refuse_schedule",
    "rule_facts",
    "slot_shapes",
    "slot_starts",
]

# By what they need to see at once: an element, a tensor's norms, or a tensor in its shape.
RULES = {**ELEMENTWISE, **TRUST_RULES, **MATRIX_RULES}

Optimizer = Mapping[str, Setting]

# What other libraries call it. Understood when a spec is read, never written.
_ALIASES = {"learning_rate": "lr"}
_COUNTED = {1: "one number", 2: "two numbers", 3: "three numbers"}
_ALIASES_OF_RULE = {"adadelta": {"eps": "eps_root"}}  # there is no outer epsilon to confuse it with


@cache
def rule_facts(rule: str) -> Facts:
    """A rule's facts, with weight decay among the hyperparameters of every rule. Raises RuleNotFound."""
    if rule not in RULES:
        hint = with_meant(rule, RULES, RuleNotFound.hint)
        said = f"There is no optimizer rule {rule[:64]!r}."
        raise RuleNotFound(said, hint=hint, rule=rule[:64], known=list(RULES))
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
    if preset not in presets_of(rule):
        hint = f"Preset {preset!r} says nothing about rule {rule!r}."
        raise wrong(f"{where}.preset", preset, "one of " + ", ".join(presets_of(rule)), hint=hint)
    facts = rule_facts(rule)
    written = own_names(given, where=where)
    settled = settle(
        {name: value for name, value in written.items() if name not in ("rule", "preset")},
        facts.hyperparameters,
        PRESETS[preset].get(rule, {}),
        where=where,
        of=f"rule {rule!r}",
        elsewhere=ELSEWHERE,
    )
    expanded: dict[str, Setting] = {"rule": rule, "preset": preset, **settled}
    refuse_impossible(expanded, where=where)
    return expanded


def numbers(optimizer: Optimizer) -> dict[str, float]:
    """The hyperparameters that are numbers, and the learning rate once more as the schedule's base."""
    told = {name: value for name, value in optimizer.items() if not isinstance(value, str)}
    return {**told, "base_lr": told["lr"]}


def slot_starts(optimizer: Optimizer) -> dict[str, float]:
    """The optimizer's slots in order, each with the number its elements hold before the first update."""
    facts = rule_facts(str(optimizer["rule"]))
    starts = {slot: facts.slots[slot] for slot in facts.present_slots(optimizer)}
    return {
        slot: float(optimizer[start] if isinstance(start, str) else start) for slot, start in starts.items()
    }


def rate_is_fixed(optimizer: Optimizer) -> bool:
    """Whether the rule's learning rate may never change, by a schedule or otherwise."""
    return rule_facts(str(optimizer["rule"])).fixed_rate


def refuse_schedule(optimizer: Optimizer, schedule: Mapping[str, Setting], *, where: str) -> None:
    """Raises InvalidSpec if the rule's learning rate is fixed and the schedule, at path `where`, moves it."""
    if rate_is_fixed(optimizer) and schedule["name"] != "constant":
        raise wrong(
            f"{where}.name",
            schedule["name"],
            f"constant, with rule {optimizer['rule']!r}",
            hint="The learning rate of this rule is part of what its slots mean: it cannot change.",
        )


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
    """An `optimizer` object's fields under their own names; `betas` become a field each.

    Raises InvalidSpec if the same thing is said twice.
    """
    rule = choose(given, "rule", tuple(RULES), where=where, default=None)
    plain: dict[str, object] = {}
    aliases = _ALIASES | _ALIASES_OF_RULE.get(rule, {})
    for name, value in given.items():
        pairs = [(aliases.get(name, name), value)]
        betas = [beta for beta in rule_facts(rule).hyperparameters if beta in ("beta1", "beta2", "beta3")]
        if name == "betas" and betas:
            if not isinstance(value, list | tuple) or len(value) != len(betas):
                raise wrong(f"{where}.betas", value, f"{_COUNTED[len(betas)]}, [{', '.join(betas)}]")
            pairs = list(zip(betas, value, strict=True))
        for own_name, own_value in pairs:
            if own_name in plain:
                raise wrong(f"{where}.{name}", value, f"{own_name} given once, under one name")
            plain[own_name] = own_value
    return plain
