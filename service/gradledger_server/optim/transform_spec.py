"""The `transforms` of a spec: expanded, laid over a group's, changed later.

    {"clip_value": {"limit": 0.5}, "ema": {}}     as given: name → settings; null takes one away again
    {"clip_value": {…}, "ema": {"decay": …, …}}   expanded: every setting, in the order they are applied

A group has the model's transforms, with its own settings over them. Expanding what was expanded changes
nothing, so a group that took one away keeps its null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradledger_server.errors import InvalidSpec
from gradledger_server.optim.expansion import settle, unknown, wrong
from gradledger_server.optim.signatures import Setting, facts_of
from gradledger_server.optim.transforms import MODEL_WIDE, TRANSFORMS

Given = Mapping[str, Any]


def expand(given: Given, *, where: str) -> dict[str, dict[str, Setting]]:
    """The model's own transforms. Raises InvalidSpec, naming the field."""
    _require_objects(given, tuple(TRANSFORMS), where)
    return {name: _settle(name, given[name], where) for name in TRANSFORMS if given.get(name) is not None}


def expand_group(given: Given, base: Given, *, where: str) -> dict[str, dict[str, Setting] | None]:
    """A group's transforms over the model's, as given; None where it has one less."""
    for name in MODEL_WIDE:
        if name in given:
            raise InvalidSpec(
                f"{where}.{name} cannot differ between groups: it works on a whole push",
                field=f"{where}.{name}",
                hint=f"Give it as transforms.{name}, for the model.",
            )
    _require_objects(given, [name for name in TRANSFORMS if name not in MODEL_WIDE], where)
    expanded: dict[str, dict[str, Setting] | None] = {}
    for name, both in overlay(base, given).items():
        if name not in MODEL_WIDE and both is not None:
            expanded[name] = _settle(name, both, where)
        elif name not in MODEL_WIDE and base.get(name) is not None:
            expanded[name] = None
    return {name: expanded[name] for name in TRANSFORMS if name in expanded}


def effective(group: Given, model: Given) -> dict[str, Mapping[str, Setting]]:
    """What a group's tensors go through: its own, and the model's where there is one for all."""
    chosen = {name: model.get(name) if name in MODEL_WIDE else group.get(name) for name in TRANSFORMS}
    return {name: settings for name, settings in chosen.items() if settings is not None}


def overlay(base: Given, change: Given) -> dict[str, Any]:
    """`change` over `base`, setting by setting; a null stays, and takes the transform away."""
    merged = dict(base)
    for name, settings in change.items():
        below = base.get(name)
        if isinstance(below, Mapping) and isinstance(settings, Mapping):
            settings = {**below, **settings}
        merged[name] = settings
    return merged


def following(group: Given, before: Given, after: Given) -> dict[str, Any]:
    """What a group has of its own when the model's transforms change from `before` to `after`."""
    own: dict[str, Any] = {}
    for name, settings in group.items():
        if settings is None:
            own[name] = None
        elif settings != before.get(name):
            below = before.get(name) if after.get(name) is not None else None
            own[name] = {key: value for key, value in settings.items() if (below or {}).get(key) != value}
    return own


def _settle(name: str, given: Given, where: str) -> dict[str, Setting]:
    declared = facts_of(TRANSFORMS[name]).hyperparameters
    return settle(given, declared, {}, where=f"{where}.{name}", of=f"transform {name!r}")


def _require_objects(given: Given, known: list[str] | tuple[str, ...], where: str) -> None:
    for name, settings in given.items():
        if name not in TRANSFORMS:
            raise unknown(name, known, where=where, of="a spec")
        if settings is not None and not isinstance(settings, Mapping):
            raise wrong(f"{where}.{name}", settings, "an object of its settings, or null to do without it")
