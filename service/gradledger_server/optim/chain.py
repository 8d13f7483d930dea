"""What a kernel computes: the transforms around a rule and the rule itself, traced as one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from gradledger_server.kernels.operations import Value
from gradledger_server.kernels.trace import Program, trace
from gradledger_server.optim import transforms
from gradledger_server.optim.catalog import Optimizer, numbers, rule_facts
from gradledger_server.optim.signatures import Facts, Setting, facts_of


def program(optimizer: Optimizer) -> Program:
    """The traced rule of an expanded optimizer: the very same object for equal choices and equal zeros.

    There are only so many of those, so they are all remembered.
    """
    rule = str(optimizer["rule"])
    known = tuple(
        (name, optimizer[name]) for name in _passed(rule_facts(rule)) if _is_known(name, optimizer[name])
    )
    return traced(rule, known)


def scalars(optimizer: Optimizer, *, t: int, lr: float) -> tuple[float, ...]:
    """The float64 scalars of one update, for the kernel of `program(optimizer)`; t starts at 1."""
    return program(optimizer).evaluate({**numbers(optimizer), "t": t, "lr": lr})


@cache
def traced(rule: str, known: tuple[tuple[str, Setting], ...]) -> Program:
    """The rule with these settings known; everything else is a symbol."""
    facts = rule_facts(rule)
    settings = dict(known)
    slots = facts.present_slots(settings)
    symbols = [*facts.given, *(name for name in _passed(facts) if name not in settings)]
    function = _with_weight_decay(_holding(slots, facts))
    return trace(rule, function, slots=slots, scalars=symbols, known=settings)


def _holding(present: tuple[str, ...], facts: Facts) -> Callable[..., tuple[Value, ...]]:
    """The rule with only these slots: an absent one is 0 to it, and what becomes of that is dropped."""

    @wraps(facts.function)
    def holding(w: Value, g: Value, *slots: Value, **settings: Any) -> tuple[Value, ...]:
        held = dict(zip(present, slots, strict=True))
        after, *kept = facts.function(w, g, *(held.get(slot, 0.0) for slot in facts.slots), **settings)
        return after, *(value for slot, value in zip(facts.slots, kept, strict=True) if slot in held)

    return holding


def _with_weight_decay(function: Callable[..., tuple[Value, ...]]) -> Callable[..., tuple[Value, ...]]:
    """The rule, seeing a gradient with the weight decay in it, unless it has a weight decay of its own."""
    if "weight_decay" in facts_of(function).hyperparameters:
        return function

    def decayed(w: Value, g: Value, *slots: Value, weight_decay: float, **settings: Any) -> tuple[Value, ...]:
        return function(w, transforms.weight_decay(w, g, weight_decay=weight_decay), *slots, **settings)

    return decayed


def _passed(facts: Facts) -> list[str]:
    """The hyperparameters the function takes: all but those a slot starts from."""
    return [name for name in facts.hyperparameters if name not in facts.slots.values()]


def _is_known(name: str, value: Setting) -> bool:
    """Whether the value belongs to the program. A zero does: what it multiplies is not computed at all."""
    return name != "lr" and (isinstance(value, str | bool) or value == 0.0)
