"""The catalogue's equations as LaTeX, from the same traces that become kernels."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from gradledger_server.kernels import latex
from gradledger_server.kernels.trace import trace
from gradledger_server.optim import chain
from gradledger_server.optim.catalog import RULES, rule_facts
from gradledger_server.optim.matrices import EQUATIONS
from gradledger_server.optim.signatures import Facts, Setting, facts_of

_SYMBOLS = {"s": "s", "eta": r"\eta", "gamma": r"\gamma", "norm": r"\lVert g \rVert"}
_NEW_GRADIENT = "new_g"
_NAMES = {"before": "w_{t-1}", "g": "g_t", "mean": r"\bar{g}", "draw": r"\xi_t"}
_NEW_NAMES = {_NEW_GRADIENT: r"\hat{g}_t", "w": r"\hat{w}_t", "mean": r"\bar{g}"}


def of_rule(rule: str) -> str:
    """For people: choices at their defaults, every number a symbol, no weight decay but the rule's own."""
    if rule in EQUATIONS:  # rules on matrices are not traced
        return EQUATIONS[rule]
    facts = rule_facts(rule)
    known = _choices(facts)
    if "weight_decay" not in facts_of(RULES[rule]).hyperparameters:
        known["weight_decay"] = 0.0
    return latex.spell(chain.traced(rule, tuple(known.items())))


def of_transform(function: Callable[..., Any]) -> str:
    r"""The same for a transform: the gradient it makes is \hat{g}, the weight it makes \hat{w}.

    It is traced like a rule whose slots are everything it takes and makes besides w and g.
    """
    parameters = inspect.signature(function).parameters.values()
    taken = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    made = [_NEW_GRADIENT] if taken[:2] == ["w", "g"] else [taken[0], *taken[2:]]
    slots = [name for name in dict.fromkeys((*taken, *made)) if name not in ("w", "g")]
    known = _choices(facts_of(function))

    def as_rule(w: Any, g: Any, *others: Any, **settings: Any) -> tuple[Any, ...]:
        values = {"w": w, "g": g, **dict(zip(slots, others, strict=True))}
        outcome = function(*(values[name] for name in taken), **settings)
        values |= zip(made, outcome if isinstance(outcome, tuple) else (outcome,), strict=False)
        return tuple(values[name] for name in ("w", *slots))

    scalars = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in known]
    program = trace(function.__name__, as_rule, slots=slots, scalars=scalars, known=known)
    weight = "w_{t-1}" if taken[:2] == ["w", "g"] else "w_t"  # before the rule or after it
    words = {name: rf"\mathrm{{{name}}}" for name in slots if len(name) > 1}
    before = {name: f"{word}_{{t-1}}" for name, word in words.items()} | _NAMES | {"w": weight}
    after = {name: f"{word}_t" for name, word in words.items()} | _NEW_NAMES
    return re.sub(r"\\mathrm\{(\w+)\}", _word, latex.spell(program, before, after))


def _word(found: re.Match[str]) -> str:
    """A transform's settings are mostly words: their parts stand apart, where `_` would make an index."""
    name = found[1]
    return _SYMBOLS.get(name) or rf"\mathrm{{{name}}}".replace("_", "\\ ")


def _choices(facts: Facts) -> dict[str, Setting]:
    """Choices and switches at their defaults: they say which equation it is."""
    return {
        name: parameter.default
        for name, parameter in facts.hyperparameters.items()
        if parameter.kind in ("choice", "switch") and parameter.default is not None
    }
