"""The spec: what a model is, every default written out.

A request's JSON is expanded once, when the model is created or reconfigured, and the expanded form is what
the log keeps and the service echoes. It is itself a valid request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any

from gradledger_server.entries import Json
from gradledger_server.errors import InvalidName, InvalidSpec
from gradledger_server.machine.layout import Declared, Layout
from gradledger_server.optim import catalog

PARAMETER_DTYPES = ("F32", "F64")
MAX_TENSORS = 20_000
MAX_NAME_BYTES = 512
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SYNC = {"mode": "async"}


@dataclass(frozen=True, slots=True)
class Group:
    """The tensors whose names match `match`, and how they are optimized. The first match wins."""

    match: str
    optimizer: Json
    schedule: Json


@dataclass(frozen=True, slots=True)
class Spec:
    """`groups` end with the model's own optimizer under the pattern "*"."""

    groups: tuple[Group, ...]
    layout: Layout
    json: Json


def read(expanded: Json) -> Spec:
    """The typed form of an expanded spec, as `expand` wrote it."""
    default = Group("*", expanded["optimizer"], expanded["schedule"])
    groups = (*(Group(g["match"], g["optimizer"], g["schedule"]) for g in expanded["groups"]), default)
    declared = [
        Declared(name, tuple(facts["shape"]), facts["dtype"], _group_of(name, groups))
        for name, facts in expanded["parameters"].items()
    ]
    return Spec(groups, Layout(declared), expanded)


def expand(given: Json, parameters: Mapping[str, tuple[tuple[int, ...], str]]) -> Spec:
    """Writes out every default of a request's spec.

    `parameters` maps each tensor's name to its shape and dtype. Raises InvalidSpec or InvalidName, naming
    the field.
    """
    if not parameters:
        raise InvalidSpec(
            "the model declares no parameters", hint='Give "parameters": {"w": {"shape": [10]}}.'
        )
    if len(parameters) > MAX_TENSORS:
        raise InvalidSpec(f"{len(parameters)} tensors declared; at most {MAX_TENSORS} are served per model")
    for name, (shape, dtype) in parameters.items():
        check_tensor(name, shape, dtype)
    base = given.get("optimizer") or {}
    expanded = {
        "optimizer": catalog.expand_optimizer(base, where="optimizer"),
        "schedule": catalog.expand_schedule(given.get("schedule"), where="schedule"),
        "groups": [
            _expand_group(group, base, given.get("schedule"), f"groups[{index}]")
            for index, group in enumerate(given.get("groups") or ())
        ],
        "sync": SYNC,
        "parameters": {
            name: {"shape": list(shape), "dtype": dtype}
            for name, (shape, dtype) in sorted(parameters.items())
        },
    }
    spec = read(expanded)
    for index, group in enumerate(spec.groups):
        where = "schedule" if index == len(spec.groups) - 1 else f"groups[{index}].schedule"
        catalog.refuse_schedule(group.optimizer, group.schedule, where=where)
    _refuse_idle_groups(spec)
    return spec


def reconfigure(spec: Spec, change: Json) -> Spec:
    """The spec after a PATCH: `optimizer` fields overlay the present ones, `schedule` and `groups` replace.

    A group follows the model's optimizer in whatever it did not have otherwise.

    Raises InvalidSpec if the change would need other slots or move a tensor to another arena.
    """
    present = spec.json
    optimizer = _overlay(present["optimizer"], change.get("optimizer") or {}, "optimizer")
    schedule = change["schedule"] if "schedule" in change else present["schedule"]
    given = {
        "optimizer": optimizer,
        "schedule": schedule,
        "groups": change["groups"] if "groups" in change else _following(present, optimizer, schedule),
    }
    declared = {name: (tuple(f["shape"]), f["dtype"]) for name, f in present["parameters"].items()}
    after = expand(given, declared)
    for place, then in zip(spec.layout.places, after.layout.places, strict=True):
        before_rule = spec.groups[place.tensor.group].optimizer["rule"]
        after_rule = after.groups[then.tensor.group].optimizer["rule"]
        if place != then or before_rule != after_rule:
            raise InvalidSpec(
                f"the change gives tensor {place.tensor.name!r} another rule or group "
                f"({before_rule} in group {place.tensor.group} → {after_rule} in group {then.tensor.group})",
                field="groups" if before_rule == after_rule else "optimizer.rule",
                hint="Slots belong to a rule: create a new model from the parameters to change it.",
            )
        _refuse_other_slots(spec.groups[place.tensor.group], after.groups[then.tensor.group])
    return after


def _refuse_other_slots(before: Group, after: Group) -> None:
    """Slots are made, and filled, when a model is created; so is what a fixed learning rate is part of."""
    where = "optimizer" if before.match == "*" else f"the optimizer of group {before.match!r}"
    held, asked = (catalog.slot_starts(group.optimizer) for group in (before, after))
    if held != asked:
        raise InvalidSpec(
            f"the change would give {where} other slots, or others to start from: "
            f"{_slots(held)} → {_slots(asked)}",
            field="optimizer",
            hint="Slots are made with the model: create a new one from the parameters to change them.",
        )
    if catalog.rate_is_fixed(before.optimizer) and before.optimizer["lr"] != after.optimizer["lr"]:
        raise InvalidSpec(
            f"the change moves the lr of {where} from {before.optimizer['lr']:g} to "
            f"{after.optimizer['lr']:g}, which rule {before.optimizer['rule']!r} does not allow",
            field="optimizer.lr",
            hint="The learning rate of this rule is part of what its slots mean: create a new model.",
        )


def _slots(starts: Mapping[str, float]) -> str:
    return ", ".join(f"{slot} from {start:g}" for slot, start in starts.items()) or "none"


def check_model_name(name: str) -> None:
    """Raises InvalidName unless `name` can name a model."""
    if not MODEL_NAME.fullmatch(name):
        raise InvalidName(
            f"model name {name[:140]!r} is not allowed",
            hint="1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit.",
            pattern=MODEL_NAME.pattern,
        )


def check_tensor(name: str, shape: Sequence[int], dtype: str) -> None:
    """Raises InvalidName or InvalidSpec unless the declaration is sound."""
    allowed = name and len(name.encode()) <= MAX_NAME_BYTES and "#" not in name and name.isprintable()
    if not allowed or name == "__metadata__":
        raise InvalidName(
            f"tensor name {name[:140]!r} is not allowed",
            hint=f"1 to {MAX_NAME_BYTES} bytes of printable characters without '#', and not '__metadata__'.",
        )
    if dtype not in PARAMETER_DTYPES:
        raise InvalidSpec(
            f"parameters.{name}: dtype is {dtype!r}; expected one of {', '.join(PARAMETER_DTYPES)}",
            field=f"parameters.{name}.dtype",
            hint="Master weights are F32 or F64; gradients may also be F16 or BF16.",
        )
    if (
        any(extent < 0 for extent in shape)
        or len(shape) > 16
        or prod(max(extent, 1) for extent in shape) > 1 << 40
    ):
        raise InvalidSpec(
            f"parameters.{name}: shape {list(shape)} is out of range",
            field=f"parameters.{name}.shape",
            hint="At most 16 extents, none negative, at most 2^40 elements.",
        )


def _expand_group(group: Json, base: Json, schedule: Any, where: str) -> dict[str, Any]:
    optimizer = _overlay(base, group.get("optimizer") or {}, f"{where}.optimizer")
    own = group.get("schedule")
    return {
        "match": group["match"],
        "optimizer": catalog.expand_optimizer(optimizer, where=f"{where}.optimizer"),
        "schedule": catalog.expand_schedule(own if own is not None else schedule, where=f"{where}.schedule"),
    }


def _following(present: Json, optimizer: Json, schedule: Any) -> list[dict[str, Any]]:
    """The present groups, changed where they had what the model's own optimizer had."""
    before = present["optimizer"]
    return [
        {
            "match": group["match"],
            "optimizer": {
                name: optimizer.get(name, value) if before.get(name) == value else value
                for name, value in group["optimizer"].items()
            },
            "schedule": schedule if group["schedule"] == present["schedule"] else group["schedule"],
        }
        for group in present["groups"]
    ]


def _overlay(base: Json, change: Json, where: str) -> dict[str, Any]:
    """What differs, over what is there; another rule or preset starts from its own defaults."""
    base = catalog.own_names(base, where="optimizer")
    change = catalog.own_names({"rule": base["rule"], **change}, where=where)
    same_rule = change.get("rule", base.get("rule")) == base.get("rule")
    same_preset = change.get("preset", base.get("preset")) == base.get("preset")
    return {**base, **change} if same_rule and same_preset else dict(change)


def _group_of(name: str, groups: Sequence[Group]) -> int:
    return next(index for index, group in enumerate(groups) if fnmatchcase(name, group.match))


def _refuse_idle_groups(spec: Spec) -> None:
    used = {place.tensor.group for place in spec.layout.places}
    for index, group in enumerate(spec.groups[:-1]):
        if index not in used:
            raise InvalidSpec(
                f"groups[{index}].match {group.match!r} takes no tensor",
                field=f"groups[{index}].match",
                hint="Patterns are shell globs over whole tensor names, and the first match wins.",
            )
