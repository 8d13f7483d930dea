"""What a kernel computes: gradient transforms, the rule and what follows it, traced as one.

    w, g, slots → clip, noise, weight decay → rule → lookahead, averages → w, slots

Its arrays are the rule's slots, then those of the averages, then what is drawn for the occasion; its
scalars are the optimizer's hyperparameters, the transforms' settings as `<transform>.<setting>`, and what
is known only when an update is made (`moment`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from gradledger_server.kernels.folding import Folded
from gradledger_server.kernels.operations import Value
from gradledger_server.kernels.trace import PROGRAMS_KEPT, Program, trace
from gradledger_server.optim import catalog
from gradledger_server.optim.catalog import RULES, Optimizer, rule_facts
from gradledger_server.optim.matrices import Shape
from gradledger_server.optim.signatures import GIVEN, Facts, Setting, facts_of
from gradledger_server.optim.transforms import (
    AVERAGES,
    GRADIENT,
    PUSHES,
    TRANSFORMS,
    WEIGHTS,
    Transforms,
    weight_decay,
)

DRAWN = "draw"  # a standard normal number for each element: an array no slot keeps
NONE: Transforms = {}

Known = tuple[tuple[str, Setting], ...]


def program(optimizer: Optimizer, transforms: Transforms = NONE) -> Program:
    """The traced chain of an expanded spec: the very same object for equal choices and equal zeros, as long
    as it is remembered.
    """
    rule = str(optimizer["rule"])
    settings = {name: optimizer[name] for name in _passed(rule_facts(rule))} | _settings(transforms)
    known = tuple((name, value) for name, value in settings.items() if _is_known(name, value))
    return traced(rule, known, _in_order(transforms))


def untraced(optimizer: Optimizer, transforms: Transforms = NONE) -> Callable[..., tuple[Any, ...]]:
    """The chain of a rule on matrices: called with tensors and, by keyword, what `moment` says."""
    rule = str(optimizer["rule"])
    settings = {name: optimizer[name] for name in _passed(rule_facts(rule))} | _settings(transforms)
    chained = _chained(rule, _in_order(transforms), tuple(rule_facts(rule).slots))
    return lambda *arrays, **now: chained(*arrays, **{**settings, **now})


def slot_shapes(optimizer: Optimizer, transforms: Transforms, shape: Shape) -> dict[str, Shape]:
    """The shape of each slot that a tensor of this shape has; averages have its own."""
    return catalog.slot_shapes(optimizer, shape) | dict.fromkeys(_average_slots(transforms), shape)


def slot_starts(optimizer: Optimizer, transforms: Transforms = NONE) -> dict[str, float]:
    """The slots a tensor keeps, in order, each with the number its elements hold before the first update."""
    return catalog.slot_starts(optimizer) | dict.fromkeys(_average_slots(transforms), 0.0)


def numbers(optimizer: Optimizer, transforms: Transforms = NONE) -> dict[str, float]:
    """The hyperparameters and settings that are numbers, by the names of the chain's scalars."""
    settings = {name: value for name, value in _settings(transforms).items() if not isinstance(value, str)}
    return catalog.numbers(optimizer) | settings


def moment(
    numbers: Mapping[str, float], *, t: int, lr: float, s: int | None = None, norm: float = 0.0
) -> dict[str, float]:
    """Everything an update's scalars follow from.

    `t` counts this tensor's updates with this one, `s` the model's without it; `norm` is the whole push's.
    """
    now = {"t": t, "s": t - 1 if s is None else s, "lr": lr, "base_lr": numbers["lr"], "norm": norm}
    return {**numbers, **now}


def folded(optimizer: Optimizer, transforms: Transforms = NONE) -> Folded:
    """The scalars of `program(…)` as far as they are known now: the rest follows t, s, lr and norm."""
    known = numbers(optimizer, transforms)
    base_lr = known.pop("lr")
    return Folded(program(optimizer, transforms), {**known, "base_lr": base_lr})


def scalars(
    optimizer: Optimizer, transforms: Transforms = NONE, *, t: int, lr: float, **others: Any
) -> tuple[float, ...]:
    """The float64 scalars of one update, for the kernel of `program(…)`; t starts at 1."""
    now = moment(numbers(optimizer, transforms), t=t, lr=lr, **others)
    return program(optimizer, transforms).evaluate(now)


def clip_factor(transforms: Transforms, norm: float) -> float:
    """What clipping by global norm multiplies a push of that norm by; 1.0 if it leaves it alone."""
    settings = transforms.get("clip_global_norm")
    return 1.0 if settings is None else float(GRADIENT["clip_global_norm"](0.0, 1.0, norm=norm, **settings))


@cache
def accumulation() -> Program:
    """The mean of pushes as a program: its weight is the mean so far, its only scalar the push's `share`."""
    [(name, function)] = PUSHES.items()
    settings = dict.fromkeys(facts_of(function).hyperparameters, 0.0)  # they are for the host to heed
    return trace(
        name,
        lambda mean, g, **given: (function(mean, g, **given),),
        slots=(),
        scalars=["share"],
        known=settings,
    )


@lru_cache(maxsize=PROGRAMS_KEPT)
def traced(rule: str, known: Known, names: tuple[str, ...] = ()) -> Program:
    """The rule with these settings known and these transforms around it; everything else is a symbol."""
    facts, settled = rule_facts(rule), dict(known)
    present = facts.present_slots(settled)
    settings = [f"{name}.{key}" for name in names for key in _declared(name).hyperparameters]
    return trace(
        rule,
        _chained(rule, names, present),
        slots=[*present, *_average_slots(names), *[DRAWN] * ("noise" in names)],
        scalars=[name for name in (*GIVEN, *_passed(facts), *settings) if name not in settled],
        known=settled,
    )


def _chained(rule: str, names: Iterable[str], present: Sequence[str]) -> Callable[..., tuple[Value, ...]]:
    """The rule between its transforms, as one function of the weight, the gradient and all other arrays.

    Of the rule's slots only those `present` are among them: an absent one is 0 to the rule, and what becomes
    of it is dropped.
    """
    rule_slots = tuple(rule_facts(rule).slots)
    slots = (*present, *_average_slots(names))

    def chained(w: Value, g: Value, *arrays: Value, **given: Any) -> tuple[Value, ...]:
        before, held = w, dict(zip(slots, arrays, strict=False))
        drawn = arrays[len(slots) :]
        for name in names:
            if name in GRADIENT:
                g = _call(GRADIENT[name], given, w, g, *(drawn if name == "noise" else ()), of=name)
        if "weight_decay" not in facts_of(RULES[rule]).hyperparameters:
            w, g = _call(weight_decay, given, w, g)
        w, *after = _call(RULES[rule], given, w, g, *(held.get(slot, 0.0) for slot in rule_slots))
        held |= zip(rule_slots, after, strict=True)
        for name in names:
            if name in WEIGHTS:
                slot = AVERAGES[name]
                w, held[slot] = _call(WEIGHTS[name], given, w, before, held[slot], of=name)
        return (w, *(held[slot] for slot in slots), *drawn)

    return chained


def _call(function: Callable[..., Any], given: Mapping[str, Any], *arrays: Value, of: str = "") -> Any:
    """The function, with those of the numbers given that it takes; `of` names the transform it is."""
    settings = facts_of(function).hyperparameters if of else ()
    names = {key: f"{of}.{key}" if key in settings else key for key in facts_of(function).keywords}
    return function(*arrays, **{key: given[name] for key, name in names.items()})


def _in_order(transforms: Transforms) -> tuple[str, ...]:
    return tuple(name for name in (*GRADIENT, *WEIGHTS) if name in transforms)


def _average_slots(transforms: Iterable[str]) -> list[str]:
    return [AVERAGES[name] for name in AVERAGES if name in transforms]


def _declared(transform: str) -> Facts:
    return facts_of(TRANSFORMS[transform])


def _settings(transforms: Transforms) -> dict[str, Setting]:
    """The settings of everything in the kernel, as `<transform>.<setting>`."""
    return {
        f"{name}.{key}": value
        for name, settings in transforms.items()
        if name not in PUSHES
        for key, value in settings.items()
    }


def _passed(facts: Facts) -> list[str]:
    """The hyperparameters the chain takes: all but those a slot starts from."""
    return [name for name in facts.hyperparameters if name not in facts.slots.values()]


def _is_known(name: str, value: Setting) -> bool:
    """Whether the value belongs to the program. A zero does: what it multiplies is not computed at all."""
    return name != "lr" and (isinstance(value, str | bool) or value == 0.0)
