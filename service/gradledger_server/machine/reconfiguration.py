"""A spec changes: what may, while the model lives, and what would need other slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradledger_server.entries import Json
from gradledger_server.errors import InvalidSpec
from gradledger_server.machine.spec import Group, Spec, expand, grouped, overlay
from gradledger_server.optim import catalog, transform_spec
from gradledger_server.optim.transforms import AVERAGES


def reconfigure(spec: Spec, change: Json) -> Spec:
    """The spec after a PATCH: `optimizer` and `transforms` overlay the present ones, `schedule` and `groups`
    replace.

    A group follows the model in whatever it did not have otherwise.

    Raises InvalidSpec if the change would need other slots or move a tensor to another arena.
    """
    present = spec.json
    optimizer = overlay(present["optimizer"], change.get("optimizer") or {}, "optimizer")
    schedule = change["schedule"] if "schedule" in change else present["schedule"]
    transforms = transform_spec.overlay(present["transforms"], change.get("transforms") or {})
    given = {"optimizer": optimizer, "schedule": schedule, "transforms": transforms}
    for name in ("sync", "guard"):
        given[name] = change[name] if change.get(name) is not None else present[name]
    given["groups"] = change["groups"] if "groups" in change else _following(present, given)
    declared = {name: (tuple(f["shape"]), f["dtype"]) for name, f in present["parameters"].items()}
    after = expand(given, declared, present["parameters"])
    for was, now in zip(grouped(spec), grouped(after), strict=True):
        before_rule = spec.groups[was.group].optimizer["rule"]
        after_rule = after.groups[now.group].optimizer["rule"]
        if was != now or before_rule != after_rule:
            raise InvalidSpec(
                f"the change gives tensor {was.name!r} another rule or group "
                f"({before_rule} in group {was.group} → {after_rule} in group {now.group})",
                field="groups" if before_rule == after_rule else "optimizer.rule",
                hint="Slots belong to a rule: create a new model from the parameters to change it.",
            )
        _refuse_other_slots(spec.groups[was.group], after.groups[now.group], was.shape)
    _refuse_other_accumulation(spec, after)
    return after


def _refuse_other_slots(before: Group, after: Group, shape: tuple[int, ...]) -> None:
    """Slots are made, and filled, when a model is created; so they are those of a tensor of this shape."""
    held, asked = before.slot_starts, after.slot_starts
    if held != asked:
        averages = (held.keys() ^ asked.keys()) & set(AVERAGES.values())
        raise InvalidSpec(
            f"the change would {_difference(held, asked)} for the tensors of {before.match!r}; slots are "
            "fixed when a model is created",
            field="transforms" if averages else "optimizer",
            hint="Slots are made with the model, also those of "
            f"{', '.join(AVERAGES)}: create a new model from the parameters to change them.",
        )
    if before.slot_shapes(shape) != after.slot_shapes(shape):
        raise InvalidSpec(
            f"the change gives tensors of shape {list(shape)} slots of other shapes: "
            f"{before.slot_shapes(shape)} → {after.slot_shapes(shape)}",
            field="optimizer",
            hint="Slots are kept as they were created: create a new model from the parameters.",
        )
    if catalog.rate_is_fixed(before.optimizer) and before.optimizer["lr"] != after.optimizer["lr"]:
        raise InvalidSpec(
            f"the change moves the lr of the tensors of {before.match!r} from {before.optimizer['lr']:g} to "
            f"{after.optimizer['lr']:g}, which rule {before.optimizer['rule']!r} does not allow",
            field="optimizer.lr",
            hint="The learning rate of this rule is part of what its slots mean: create a new model.",
        )


def _difference(held: Mapping[str, float], asked: Mapping[str, float]) -> str:
    """What would become of the slots: such as `remove slot ema`."""
    both = [slot for slot in held if slot in asked and held[slot] != asked[slot]]
    return ", ".join(
        (
            *(f"remove slot {slot}" for slot in held if slot not in asked),
            *(f"add slot {slot}" for slot in asked if slot not in held),
            *(f"start slot {slot} from {asked[slot]:g} instead of {held[slot]:g}" for slot in both),
        )
    )


def _refuse_other_accumulation(before: Spec, after: Spec) -> None:
    """What is accumulated is state too, and there before the first push."""
    if ("accumulate" in before.transforms) != ("accumulate" in after.transforms):
        raise InvalidSpec(
            "the change would begin to accumulate pushes, or end it and lose those that wait",
            field="transforms.accumulate",
            hint="Set every to 1 to end it, or create a new model from the parameters.",
        )


def _following(present: Json, given: Json) -> list[dict[str, Any]]:
    """The present groups, changed where they had what the model's own optimizer had."""
    before, optimizer = present["optimizer"], given["optimizer"]
    return [
        {
            "match": group["match"],
            "optimizer": {
                name: optimizer.get(name, value) if before.get(name) == value else value
                for name, value in group["optimizer"].items()
            },
            "schedule": given["schedule"] if group["schedule"] == present["schedule"] else group["schedule"],
            "transforms": transform_spec.following(
                group["transforms"], present["transforms"], given["transforms"]
            ),
        }
        for group in present["groups"]
    ]
