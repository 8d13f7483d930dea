"""The catalogue: what rules, presets and schedules there are, and how a spec that names them is read.

    expand_optimizer({"rule": "adam", "lr": 0.01})   every hyperparameter, explicit and checked
    slot_starts(optimizer)                           the slots, and the number each starts from
    expand_schedule, learning_rate                   the same for schedules

All of it is derived from the signatures in `rules/` and `schedules.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from gradledger_server.errors import RuleNotFound
from gradledger_server.optim import transforms
from gradledger_server.optim.combinations import ELSEWHERE, refuse_impossible
from gradledger_server.optim.expansion import choose, settle, wrong
from gradledger_server.optim.presets import DEFAULT_PRESET, PRESETS, presets_of
from gradledger_server.optim.rules import RULES
from gradledger_server.optim.schedules import SCHEDULES
from gradledger_server.optim.signatures import Facts, Setting, facts_of

__all__ = [
    "PRESETS",
    "RULES",
    "SCHEDULES",
    "expand_optimizer",
    "expand_schedule",
    "learning_rate",
    "presets_of",
    "refuse_schedule",
    "rule_facts",
    "slot_starts",
]

Optimizer = Mapping[str, Setting]
Schedule = Mapping[str, Setting]

# What other libraries call it. Understood when a spec is read, never written.
_ALIASES = {"learning_rate": "lr"}
_COUNTED = {1: "one number", 2: "two numbers", 3: "three numbers"}
_ALIASES_OF_RULE = {"adadelta": {"eps": "eps_root"}}  # there is no outer epsilon to confuse it with


@cache
def rule_facts(rule: str) -> Facts:
    """A rule's facts, with `weight_decay` among the hyperparameters of every rule. Raises RuleNotFound."""
    if rule not in RULES:
        raise RuleNotFound(f"There is no optimizer rule {rule[:64]!r}.", rule=rule[:64], known=list(RULES))
    facts = facts_of(RULES[rule])
    hyperparameters = dict(facts.hyperparameters)
    for name, parameter in facts_of(transforms.weight_decay).hyperparameters.items():
        hyperparameters.setdefault(name, parameter)
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


def refuse_schedule(optimizer: Optimizer, schedule: Schedule, *, where: str) -> None:
    """Raises InvalidSpec if the rule's learning rate is fixed and the schedule, at path `where`, moves it."""
    if rate_is_fixed(optimizer) and schedule["name"] != "constant":
        raise wrong(
            f"{where}.name",
            schedule["name"],
            f"constant, with rule {optimizer['rule']!r}",
            hint="The learning rate of this rule is part of what its slots mean: it cannot change.",
        )


def expand_schedule(given: Mapping[str, object] | None, *, where: str) -> dict[str, Setting]:
    """The `schedule` object of a spec, expanded; None is the constant schedule. Raises InvalidSpec."""
    if given is None:
        return {"name": "constant"}
    name = choose(given, "name", tuple(SCHEDULES), where=where, default=None)
    declared = {key: value for key, value in facts_of(SCHEDULES[name]).hyperparameters.items() if key != "lr"}
    written = {key: value for key, value in given.items() if key != "name"}
    return {"name": name, **settle(written, declared, {}, where=where, of=f"schedule {name!r}")}


def learning_rate(schedule: Schedule, lr: float, s: int) -> float:
    """The learning rate of the update after `s` applied ones, float64; the same on every machine."""
    settings = {name: value for name, value in schedule.items() if name != "name"}
    return float(SCHEDULES[str(schedule["name"])](s, lr=lr, **settings))


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
