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
from gradledger_server.machine import guard
from gradledger_server.machine.layout import Declared, Layout
from gradledger_server.machine.sync import policy as sync
from gradledger_server.machine.tables import (
    DeclaredTable,
    expand_table,
    require_room,
    require_rule_by_row,
    require_transforms_by_row,
)
from gradledger_server.optim import catalog, chain, transform_spec
from gradledger_server.optim.schedules.catalog import expand_schedule

PARAMETER_DTYPES = ("F32", "F64")
MAX_TENSORS = 20_000
MAX_NAME_BYTES = 512
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Group:
    """The tensors whose names match `match`, and how they are optimized. The first match wins."""

    match: str
    optimizer: Json
    schedule: Json
    transforms: Json

    @property
    def slot_starts(self) -> Mapping[str, float]:
        """Its tensors' slots, in order, with the number their elements start from."""
        return chain.slot_starts(self.optimizer, self.transforms)

    def slot_shapes(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        """The shape of each slot that a tensor of this shape has."""
        return chain.slot_shapes(self.optimizer, self.transforms, shape)


@dataclass(frozen=True, slots=True)
class Spec:
    """`groups` end with the model's own optimizer under the pattern "*"."""

    groups: tuple[Group, ...]
    layout: Layout
    sync: sync.Policy
    guard: guard.Policy
    json: Json

    @property
    def transforms(self) -> Json:
        """The model's own."""
        own: Json = self.json["transforms"]
        return own


def read(expanded: Json) -> Spec:
    """The typed form of an expanded spec, as `expand` wrote it."""
    everywhere = expanded["transforms"]
    groups = tuple(
        Group(
            g["match"], g["optimizer"], g["schedule"], transform_spec.effective(g["transforms"], everywhere)
        )
        for g in (*expanded["groups"], {"match": "*", **expanded})
    )
    dense, tables = [], []
    for name, facts in expanded["parameters"].items():
        declared = (name, tuple(facts["shape"]), facts["dtype"], _group_of(name, groups))
        if "rows" in facts:
            tables.append(DeclaredTable(*declared, facts["rows"], facts.get("init")))
        else:
            dense.append(Declared(*declared))
    rounds, rails = sync.Policy.read(expanded["sync"]), guard.Policy.read(expanded["guard"])
    return Spec(groups, Layout(dense, tables), rounds, rails, expanded)


def expand(
    given: Json,
    parameters: Mapping[str, tuple[tuple[int, ...], str]],
    tables: Mapping[str, Json] | None = None,
) -> Spec:
    """Writes out every default of a request's spec.

    `parameters` maps each tensor's name to its shape and dtype, `tables` those that are tables to their
    `rows` and `init`. Raises InvalidSpec or InvalidName, naming
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
    tables = tables or {}
    base, transforms = given.get("optimizer") or {}, given.get("transforms") or {}
    expanded = {
        "optimizer": catalog.expand_optimizer(base, where="optimizer"),
        "schedule": expand_schedule(given.get("schedule"), where="schedule"),
        "transforms": transform_spec.expand(transforms, where="transforms"),
        "groups": [
            _expand_group(group, base, given.get("schedule"), transforms, f"groups[{index}]")
            for index, group in enumerate(given.get("groups") or ())
        ],
        "sync": sync.expand(given.get("sync")),
        "guard": guard.expand(given.get("guard")),
        "parameters": {
            name: {
                "shape": list(shape),
                "dtype": dtype,
                **expand_table(tables.get(name, {}), name, shape, dtype),
            }
            for name, (shape, dtype) in sorted(parameters.items())
        },
    }
    spec = read(expanded)
    for index, group in enumerate(spec.groups):
        where = "schedule" if index == len(spec.groups) - 1 else f"groups[{index}].schedule"
        catalog.refuse_schedule(group.optimizer, group.schedule, where=where)
    _refuse_idle_groups(spec)
    _refuse_unfit_tensors(spec)
    sync.require_fit(spec.sync, spec.transforms, tables=bool(spec.layout.tables))
    require_room(spec.layout.tables)
    for table in spec.layout.tables.values():
        group = spec.groups[table.group]
        require_rule_by_row(table.name, group.optimizer["rule"])
        require_transforms_by_row(table.name, group.transforms)
    return spec


def check_model_name(name: str) -> None:
    """Raises InvalidName unless `name` can name a model."""
    if not MODEL_NAME.fullmatch(name):
        raise InvalidName(
            f"model name {name[:140]!r} is not allowed",
            hint="1 to 128 ASCII letters, digits, '.', '_' or '-', beginning with a letter or digit.",
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
            hint="Master weights are F32 or F64; gradients may also be F16, BF16 or I8.",
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


def _expand_group(group: Json, base: Json, schedule: Any, transforms: Json, where: str) -> dict[str, Any]:
    optimizer = overlay(base, group.get("optimizer") or {}, f"{where}.optimizer")
    own = group.get("schedule")
    return {
        "match": group["match"],
        "optimizer": catalog.expand_optimizer(optimizer, where=f"{where}.optimizer"),
        "schedule": expand_schedule(own if own is not None else schedule, where=f"{where}.schedule"),
        "transforms": transform_spec.expand_group(
            group.get("transforms") or {}, transforms, where=f"{where}.transforms"
        ),
    }


def overlay(base: Json, change: Json, where: str) -> dict[str, Any]:
    """What differs, over what is there; another rule or preset starts from its own defaults."""
    base = catalog.own_names(base, where="optimizer")
    change = catalog.own_names({"rule": base["rule"], **change}, where=where)
    same_rule = change.get("rule", base.get("rule")) == base.get("rule")
    same_preset = change.get("preset", base.get("preset")) == base.get("preset")
    return {**base, **change} if same_rule and same_preset else dict(change)


def _group_of(name: str, groups: Sequence[Group]) -> int:
    return next(index for index, group in enumerate(groups) if fnmatchcase(name, group.match))


def grouped(spec: Spec) -> list[Declared | DeclaredTable]:
    """Every parameter, in wire order."""
    return [*(place.tensor for place in spec.layout.places), *spec.layout.tables.values()]


def _refuse_idle_groups(spec: Spec) -> None:
    used = {declared.group for declared in grouped(spec)}
    for index, group in enumerate(spec.groups[:-1]):
        if index not in used:
            raise InvalidSpec(
                f"groups[{index}].match {group.match!r} takes no tensor",
                field=f"groups[{index}].match",
                hint="Patterns are shell globs over whole tensor names, and the first match wins.",
            )


def _refuse_unfit_tensors(spec: Spec) -> None:
    for place in spec.layout.places:
        tensor = place.tensor
        optimizer = spec.groups[tensor.group].optimizer
        if (reason := catalog.refusal(optimizer, tensor.shape)) is not None:
            name = (
                f"groups[{tensor.group}]" if tensor.group < len(spec.groups) - 1 else "the model's optimizer"
            )
            raise InvalidSpec(
                f"parameters.{tensor.name} {reason}; it falls to {name}, rule {optimizer['rule']}",
                field=f"parameters.{tensor.name}",
                hint=f"Give it a group of its own, such as "
                f'{{"match": "{tensor.name}", "optimizer": {{"rule": "adamw"}}}}; the first match wins.',
            )
