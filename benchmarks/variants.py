"""Every program the catalogue has: each rule with each preset, then with one setting after another changed.

A setting that is a number changes a program by being zero, a choice or a switch by being the other one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gradledger_server.errors import InvalidSpec
from gradledger_server.kernels.trace import Program
from gradledger_server.optim import catalog, chain
from gradledger_server.optim.signatures import Hyperparameter, Setting

NONZERO = 0.01


@dataclass(frozen=True, slots=True)
class Variant:
    """A program and the settings it comes from; `name` is the rule's, with what makes it this variant."""

    rule: str
    name: str
    optimizer: dict[str, Setting]
    program: Program

    def scalars(self, t: int) -> tuple[float, ...]:
        """What its kernel takes at update `t`."""
        return chain.scalars(self.optimizer, t=t, lr=0.01)

    @property
    def touched(self) -> int:
        """The arrays a step must read or write: those its results depend on, and those that change."""
        used = {operand for step in self.program.steps for operand in step.operands}
        used |= {value for _, value in self.program.assignments}
        return sum(name in used for name in self.program.inputs) + len(self.program.assignments)


def rules() -> tuple[str, ...]:
    """The rules that are one elementwise program: no norm of a whole tensor parts them."""
    return tuple(catalog.ELEMENTWISE)


def variants(rule: str) -> list[Variant]:
    """The rule's programs, each once; first the rule as it comes."""
    found: dict[Program, Variant] = {}
    for label, given in _settings(rule):
        try:
            optimizer = catalog.expand_optimizer({"rule": rule, **given}, where="optimizer")
        except InvalidSpec:  # these settings do not go together
            continue
        program = chain.program(optimizer)
        found.setdefault(program, Variant(rule, f"{rule}, {label}" if label else rule, optimizer, program))
    return list(found.values())


def default(rule: str) -> Variant:
    """The rule as it comes."""
    return variants(rule)[0]


def _settings(rule: str) -> Iterator[tuple[str, dict[str, object]]]:
    yield "", {}
    for preset in catalog.PRESETS:
        yield preset, {"preset": preset}
    for name, parameter in catalog.rule_facts(rule).hyperparameters.items():
        for value in _others(parameter):
            yield f"{name} {value}", {name: value}


def _others(parameter: Hyperparameter) -> tuple[Setting, ...]:
    if parameter.kind == "choice":
        return parameter.choices
    if parameter.kind == "switch":
        return (True, False)
    return (0,) if parameter.default else (1 if parameter.kind == "integer" else NONZERO,)
