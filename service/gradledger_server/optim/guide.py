"""What people and clients are told about the catalogue, as JSON; read off the rules themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradledger_server.kernels import latex
from gradledger_server.optim import chain
from gradledger_server.optim.catalog import expand_optimizer, presets_of, rule_facts
from gradledger_server.optim.hyperparameters import SLOT_MEANINGS
from gradledger_server.optim.rules import RULES
from gradledger_server.optim.signatures import Facts, Hyperparameter, Setting, facts_of


def describe(rule: str) -> dict[str, Any]:
    """A rule for people and clients, as JSON. Raises RuleNotFound."""
    facts = rule_facts(rule)
    starts = facts.slots.items()
    own = expand_optimizer({"rule": rule}, where="optimizer")
    return {
        "name": rule,
        "summary": facts.summary,
        "paper": facts.source,
        "equation": latex.spell(chain.traced(rule, _equation_settings(facts))),
        "slots": [
            {
                "name": slot,
                "meaning": SLOT_MEANINGS[slot],
                "starts_at": start,
                "when": facts.conditions.get(slot),
            }
            for slot, start in starts
        ],
        "bytes_per_parameter": 4 * (1 + len(facts.present_slots(own))),
        "hyperparameters": json_schema(facts.hyperparameters),
        "presets": {
            preset: expand_optimizer({"rule": rule, "preset": preset}, where="optimizer")
            for preset in presets_of(rule)
        },
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


def _equation_settings(facts: Facts) -> tuple[tuple[str, Setting], ...]:
    """For people: choices at their defaults, every number a symbol, no weight decay but the rule's own."""
    known = [(name, p.default) for name, p in facts.hyperparameters.items() if p.kind in ("choice", "switch")]
    if "weight_decay" not in facts_of(RULES[facts.name]).hyperparameters:
        known.append(("weight_decay", 0.0))
    return tuple((name, value) for name, value in known if value is not None)
