"""What people and clients are told about the catalogue, as JSON; read off rules and transforms themselves.

    describe("adam")                      GET /v1/optimizers/adam
    describe_transform("weight_decay")    GET /v1/transforms/weight_decay

`docs/optimizers.md` is written from the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gradledger_server.errors import InvalidSpec, TransformNotFound
from gradledger_server.optim import catalog, equations
from gradledger_server.optim.catalog import PRESETS, RULES, expand_optimizer, rule_facts
from gradledger_server.optim.expansion import with_meant
from gradledger_server.optim.meanings import SLOT_MEANINGS
from gradledger_server.optim.prose import prose_of
from gradledger_server.optim.signatures import Facts, Hyperparameter, Setting, facts_of
from gradledger_server.optim.transforms import TRANSFORMS

F32_BYTES = 4


def describe(rule: str) -> dict[str, Any]:
    """A rule for people and clients, as JSON. Raises RuleNotFound."""
    facts = rule_facts(rule)
    prose = prose_of(RULES[rule])
    slots = _slots(facts)
    return {
        "name": rule,
        "summary": prose.summary,
        "paper": prose.source,
        "use": prose.use,
        "notes": list(prose.notes),
        "equation": equations.of_rule(rule),
        "slots": slots,
        "bytes_per_parameter": catalog.bytes_per_parameter(
            expand_optimizer({"rule": rule}, where="optimizer")
        ),
        "sparse": {"lazy_equals_dense": prose.lazy_equals_dense, "note": prose.rows},
        "hyperparameters": json_schema(facts.hyperparameters),
        "presets": {preset: settings for preset in PRESETS if (settings := _expanded(rule, preset=preset))},
    }


def describe_transform(name: str) -> dict[str, Any]:
    """A transform for people and clients, as JSON. Raises TransformNotFound."""
    if name not in TRANSFORMS:
        hint = with_meant(name, TRANSFORMS, TransformNotFound.hint)
        raise TransformNotFound(f"There is no transform {name[:64]!r}.", hint=hint, known=list(TRANSFORMS))
    facts, prose = facts_of(TRANSFORMS[name]), prose_of(TRANSFORMS[name])
    return {
        "name": name,
        "position": 1 + list(TRANSFORMS).index(name),
        "summary": prose.summary,
        "source": prose.source,
        "use": prose.use,
        "notes": list(prose.notes),
        "equation": equations.of_transform(TRANSFORMS[name]),
        "hyperparameters": json_schema(facts.hyperparameters),
    }


def json_schema(hyperparameters: Mapping[str, Hyperparameter]) -> dict[str, Any]:
    """JSON Schema 2020-12 of an object with these hyperparameters."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "required": [name for name, parameter in hyperparameters.items() if parameter.default is None],
        "properties": {name: parameter.json_schema() for name, parameter in hyperparameters.items()},
    }


def _slots(facts: Facts) -> list[dict[str, Any]]:
    """The slots a rule has by default (`when` None), then those that one other setting adds."""
    told: dict[str, dict[str, Any]] = {}
    for when, given in (("", {}), *_other_settings(facts)):
        expanded = _expanded(facts.name, **given)
        for slot, start in catalog.slot_starts(expanded).items() if expanded else ():
            told.setdefault(
                slot,
                {"name": slot, "meaning": SLOT_MEANINGS[slot], "starts_at": start, "when": when or None},
            )
    return list(told.values())


def _other_settings(facts: Facts) -> Iterator[tuple[str, dict[str, Setting]]]:
    """Every hyperparameter once at each value that could change what a rule has to remember."""
    for name, parameter in facts.hyperparameters.items():
        if parameter.kind == "choice":
            for choice in parameter.choices:
                yield f"{name} is {choice}", {name: choice}
        elif parameter.kind == "switch":
            yield f"{name} is {str(not parameter.default).lower()}", {name: not parameter.default}
        elif parameter.default == 0.0:
            yield f"{name} > 0", {name: 0.5}


def _expanded(rule: str, **given: Setting) -> dict[str, Setting] | None:
    """The optimizer's settings, None if these do not go together or the rule has no such preset."""
    try:
        return expand_optimizer({"rule": rule, **given}, where="optimizer")
    except InvalidSpec:
        return None
