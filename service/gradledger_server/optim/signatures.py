"""Signature as specification: the facts of a rule or schedule, read from its function.

All introspection happens here, once per function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gradledger_server.optim.hyperparameters import MEANINGS, Bounds, Fixed, Starts, When

Setting = float | str | bool

GIVEN = ("t", "base_lr")  # by the machine: which update this is, and lr before the schedule


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One setting: `kind` is "number", "integer", "switch" or "choice"; `default` None: it must be given."""

    name: str
    kind: str
    default: Setting | None
    bounds: Bounds | None = None
    choices: tuple[str, ...] = ()

    @property
    def meaning(self) -> str:
        return MEANINGS[self.name]

    @property
    def allowed(self) -> str:
        """What may be given, in words or as a range."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        if self.kind == "switch":
            return "true or false"
        assert self.bounds is not None
        return ("a whole number, " if self.kind == "integer" else "") + self.bounds.describe(self.name)

    def json_schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"description": self.meaning}
        if self.default is not None:
            schema["default"] = self.default
        if self.kind == "choice":
            return schema | {"enum": list(self.choices)}
        if self.kind == "switch":
            return schema | {"type": "boolean"}
        assert self.bounds is not None
        return schema | {"type": self.kind} | self.bounds.json_schema()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a function declares.

    `slots` maps each slot to the number, or hyperparameter, it starts from, and `conditions` some of them to
    the setting they depend on. `given` are the keywords that are no hyperparameters. `fixed_rate`: lr may
    not change.
    """

    name: str
    function: Callable[..., Any]
    slots: Mapping[str, float | str]
    conditions: Mapping[str, str]
    hyperparameters: Mapping[str, Hyperparameter]
    given: tuple[str, ...]
    fixed_rate: bool
    summary: str
    source: str

    def present_slots(self, settings: Mapping[str, Setting]) -> tuple[str, ...]:
        """The slots there are under these settings; a setting that is not among them counts as not zero."""
        return tuple(
            slot
            for slot in self.slots
            if slot not in self.conditions or settings.get(self.conditions[slot], True)
        )


@cache
def facts_of(function: Callable[..., Any]) -> Facts:
    """Read a rule's or schedule's facts. Its docstring is `Summary. Source.`

    Raises TypeError for a parameter whose annotation declares no kind.
    """
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    leading = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    slots: dict[str, float | str] = dict.fromkeys(leading[2:], 0.0)
    settings = {}
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    for parameter in keywords:
        if parameter.name not in GIVEN:
            default = None if parameter.default is parameter.empty else parameter.default
            settings[parameter.name] = _hyperparameter(parameter.name, hints[parameter.name], default)
    for slot in slots:
        for mark in _marks(hints[slot], Starts):
            slots[slot] = mark.name
            settings[mark.name] = Hyperparameter(mark.name, "number", mark.default, mark.bounds)
    summary, _, source = (inspect.getdoc(function) or "").partition(". ")
    return Facts(
        function.__name__,
        function,
        slots,
        {slot: mark.setting for slot in slots for mark in _marks(hints[slot], When)},
        settings,
        tuple(p.name for p in keywords if p.name in GIVEN),
        bool(_marks(hints.get("lr"), Fixed)),
        " ".join(summary.rstrip(".").split()),
        " ".join(source.split("\n\n")[0].rstrip(".").split()),
    )


def _marks(hint: Any, kind: type[Any]) -> list[Any]:
    return [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, kind)]


def _hyperparameter(name: str, hint: Any, default: Any) -> Hyperparameter:
    if get_origin(hint) is Literal:
        return Hyperparameter(name, "choice", default, choices=get_args(hint))
    if hint is bool:
        return Hyperparameter(name, "switch", default)
    for bounds in _marks(hint, Bounds):
        return Hyperparameter(name, "integer" if hint.__origin__ is int else "number", default, bounds)
    raise TypeError(
        f"hyperparameter {name!r} is annotated {hint!r}, expected a kind with bounds, a Literal or bool"
    )
