"""Signature as specification: the facts of a rule or schedule, read from its function.

All introspection happens here, once per function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gradledger_server.optim.hyperparameters import Bounds, Fixed, Items, Starts, When
from gradledger_server.optim.meanings import MEANINGS
from gradledger_server.optim.prose import prose_of

Setting = float | str | bool

GIVEN = ("t", "s", "norm", "share", "base_lr")
"""Keywords that are no settings: numbers known only when an update is made."""


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One setting: `kind` is "number", "integer", "switch", "choice" or "list"; `default` None: required."""

    name: str
    kind: str
    default: Setting | None
    bounds: Bounds | None = None
    choices: tuple[str, ...] = ()
    items: Items | None = None
    explained: str = ""  # here, because the name means something else elsewhere

    @property
    def meaning(self) -> str:
        return self.explained or MEANINGS[self.name]

    @property
    def allowed(self) -> str:
        """What may be given, in words or as a range."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        if self.kind == "switch":
            return "true or false"
        if self.items is not None:
            return self.items.describe()
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
        if self.items is not None:
            return schema | self.items.json_schema()
        assert self.bounds is not None
        return schema | {"type": self.kind} | self.bounds.json_schema()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a function declares.

    `slots` maps each slot to the number, or hyperparameter, it starts from, and `conditions` some of them to
    the setting they depend on. `arrays` and `keywords` are what it is called with. `fixed_rate`: lr may not
    change.
    """

    name: str
    function: Callable[..., Any]
    slots: Mapping[str, float | str]
    conditions: Mapping[str, str]
    hyperparameters: Mapping[str, Hyperparameter]
    fixed_rate: bool
    summary: str
    source: str
    arrays: tuple[str, ...]
    keywords: tuple[str, ...]

    @property
    def given(self) -> tuple[str, ...]:
        """The keywords that are no hyperparameters."""
        return tuple(name for name in self.keywords if name in GIVEN)

    def present_slots(self, settings: Mapping[str, Setting]) -> tuple[str, ...]:
        """The slots there are under these settings; a setting that is not among them counts as not zero."""
        return tuple(
            slot
            for slot in self.slots
            if slot not in self.conditions or settings.get(self.conditions[slot], True)
        )


@cache
def facts_of(function: Callable[..., Any]) -> Facts:
    """Read a rule's or schedule's facts. Its docstring begins `Summary. Source.` (`prose.py`).

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
    prose = prose_of(function)
    return Facts(
        name=function.__name__,
        function=function,
        slots=slots,
        conditions={slot: mark.setting for slot in slots for mark in _marks(hints[slot], When)},
        hyperparameters=settings,
        fixed_rate=bool(_marks(hints.get("lr"), Fixed)),
        summary=prose.summary,
        source=prose.source,
        arrays=tuple(leading),
        keywords=tuple(parameter.name for parameter in keywords),
    )


def _marks(hint: Any, kind: type[Any]) -> list[Any]:
    return [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, kind)]


def _hyperparameter(name: str, hint: Any, default: Any) -> Hyperparameter:
    explained = "".join(_marks(hint, str))
    kind = getattr(hint, "__origin__", hint) if hasattr(hint, "__metadata__") else hint
    if get_origin(kind) is Literal:
        return Hyperparameter(name, "choice", default, choices=get_args(kind), explained=explained)
    if kind is bool:
        return Hyperparameter(name, "switch", default, explained=explained)
    for items in _marks(hint, Items):
        return Hyperparameter(name, "list", default, items=items, explained=explained)
    for bounds in _marks(hint, Bounds):
        return Hyperparameter(
            name, "integer" if kind is int else "number", default, bounds, explained=explained
        )
    raise TypeError(
        f"hyperparameter {name!r} is annotated {hint!r}, expected a kind with bounds, a Literal or bool"
    )
