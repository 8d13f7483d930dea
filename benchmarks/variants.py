"""Every program the catalogue has: each rule with each preset, with one setting after another changed, with
each way of decaying the weights, and with transforms: each alone, all elementwise ones, and all there are.

A setting that is a number changes a program by being zero, a choice or a switch by being the other one.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gradledger_server.errors import InvalidSpec
from gradledger_server.kernels.device import Device
from gradledger_server.kernels.trace import Program
from gradledger_server.machine.spec import Group
from gradledger_server.machine.ways import Way, way
from gradledger_server.optim import catalog, chain, transform_spec
from gradledger_server.optim.signatures import Hyperparameter, Setting, facts_of
from gradledger_server.optim.transforms import AVERAGES, GRADIENT, TRANSFORMS, WEIGHTS
from gradledger_server.optim.whole_transforms import agc, centralize, clip_norm

Settings = Mapping[str, Any]
Shape = tuple[int, ...]

NONZERO = 0.01
NEEDED: dict[str, dict[str, float]] = {
    "clip_global_norm": {"max_norm": 1.0},
    "clip_norm": {"max_norm": 1.0},
    "clip_value": {"limit": 0.5},
    "noise": {"eta": 0.3},
    "lookahead": {"every": 3},
    "polyak": {"every": 2},
}
"""Settings without a default, and some that let a transform do something in the first few updates."""
WHOLE = {function.__name__ for function in (agc, centralize, clip_norm)}


@dataclass(frozen=True, slots=True)
class Variant:
    """A rule's settings and the transforms around it; `name` is the rule's and what makes it this variant."""

    rule: str
    name: str
    optimizer: dict[str, Setting]
    transforms: dict[str, dict[str, Setting]]

    @property
    def group(self) -> Group:
        return Group("*", self.optimizer, {"name": "constant"}, self.transforms)

    @property
    def on_matrices(self) -> bool:
        """Whether it is no traced program but is computed on the host, operation by operation."""
        return self.rule in catalog.MATRIX_RULES

    @property
    def whole(self) -> bool:
        """Whether it is made tensor by tensor."""
        return self.on_matrices or self.program.staged

    @property
    def program(self) -> Program:
        """Of every variant that is not `on_matrices`."""
        return chain.program(self.optimizer, self.transforms)

    def way(self, dtype: np.dtype[Any], device: Device) -> Way:
        """As the service would make it."""
        return way(self.group, dtype, device)

    def shapes(self, shape: Shape) -> dict[str, Shape]:
        """Of everything a step of a tensor of this shape takes: w, g, the slots, what is drawn."""
        slots = self.group.slot_shapes(shape)
        drawn = {chain.DRAWN: shape} if "noise" in self.transforms else {}
        return {"w": shape, "g": shape} | {s: slots.get(s, (0,)) for s in self.group.slot_starts} | drawn

    def values(self, t: int, norm: float = 0.0) -> dict[str, float]:
        """What a step takes at update `t` of a push of that norm."""
        return chain.moment(chain.numbers(self.optimizer, self.transforms), t=t, lr=0.01, norm=norm)

    @property
    def touched(self) -> int:
        """The arrays a step must read or write: those its results depend on, and those that change."""
        used = {operand for step in self.program.steps for operand in step.operands}
        used |= {value for _, value in self.program.assignments}
        return sum(name in used for name in self.program.inputs) + len(self.program.assignments)


def rules() -> tuple[str, ...]:
    """All there are."""
    return tuple(catalog.RULES)


def elementwise() -> tuple[str, ...]:
    """The rules that are one elementwise program: no norm of a whole tensor parts them."""
    return tuple(catalog.ELEMENTWISE)


@cache
def variants(rule: str) -> tuple[Variant, ...]:
    """The rule's programs, each once; first the rule as it comes."""
    found: dict[Hashable, Variant] = {}
    for label, given, transforms in _choices(rule):
        try:
            optimizer = catalog.expand_optimizer({"rule": rule, **given}, where="optimizer")
            chosen = transform_spec.expand(transforms, where="transforms")
        except InvalidSpec:  # these settings do not go together
            continue
        variant = Variant(rule, f"{rule}, {label}" if label else rule, optimizer, chosen)
        found.setdefault(_computed(variant), variant)
    return tuple(found.values())


def default(rule: str) -> Variant:
    """The rule as it comes."""
    return variants(rule)[0]


def some(rule: str, count: int, seed: int) -> tuple[Variant, ...]:
    """Up to `count` variants: the rule as it comes, and others drawn by the seed."""
    first, *others = variants(rule)
    drawn = random.Random(f"{rule} {seed}").sample(others, min(count - 1, len(others)))
    return (first, *drawn)


def _computed(variant: Variant) -> Hashable:
    """What two variants share that compute the same."""
    if variant.on_matrices:
        return str(variant.group)
    program = variant.program
    return program.slots, tuple(program.scalars.items()), program.steps, program.results


def _choices(rule: str) -> Iterator[tuple[str, Settings, Settings]]:
    """(what it is called, settings of the optimizer, transforms)"""
    hyperparameters = catalog.rule_facts(rule).hyperparameters
    yield "", {}, {}
    for preset in catalog.PRESETS:
        yield preset, {"preset": preset}, {}
    for name, parameter in hyperparameters.items():
        for value in _others(parameter):
            yield f"{name} {value}", {name: value}, {}
    for mode in (
        hyperparameters["weight_decay_mode"].choices if "weight_decay_mode" in hyperparameters else ()
    ):
        yield f"{mode} decay", {"weight_decay": NONZERO, "weight_decay_mode": mode}, {}
    for label, transforms in _chains():
        yield label, {}, transforms
        if len(transforms) > 1:
            yield f"{label}, decay", {"weight_decay": NONZERO}, transforms


def _chains() -> Iterator[tuple[str, Settings]]:
    """Transforms, one by one in every form, then in chains."""
    for name in (*GRADIENT, *WEIGHTS):
        plain = NEEDED.get(name, {})
        yield name, {name: plain}
        for key, parameter in facts_of(TRANSFORMS[name]).hyperparameters.items():
            for value in _others(parameter):
                yield f"{name} {key} {value}", {name: {**plain, key: value}}
    every = {name: NEEDED.get(name, {}) for name in (*GRADIENT, *WEIGHTS)}
    yield "averages", {name: every[name] for name in AVERAGES}
    yield "elementwise transforms", {name: of for name, of in every.items() if name not in WHOLE}
    yield "all transforms", every


def _others(parameter: Hyperparameter) -> tuple[Setting, ...]:
    if parameter.kind == "choice":
        return parameter.choices
    if parameter.kind == "switch":
        return (True, False)
    return (0,) if parameter.default else (1 if parameter.kind == "integer" else NONZERO,)
