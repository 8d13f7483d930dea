"""A receipt: what became of a push."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from gradledger.errors import MalformedAnswer


@dataclass(frozen=True, slots=True)
class Receipt:
    """Every push gets one, and a repeated push gets the same one again with `replayed` set."""

    fate: (
        str  # "applied" or "accumulated"; in other modes "merged", "waiting", "late", "repeated", "rejected";
        # left out by a guard rail: "skipped", "outlier", "quarantined"
    )
    step: int  # the model's step this push made; if it was accumulated, the last one made
    epoch: str | None = None  # names this life of the model, until it is deleted
    offset: int | None = None  # the place in the model's log
    base: int | None = None  # the step the gradient was computed at
    staleness: int | None = None  # steps made by others since `base`
    lr: float | None = None  # the learning rate used
    clip_factor: float | None = None  # 1.0 if nothing was clipped
    grad_norm: float | None = None  # Euclidean, before clipping
    durability: str | None = None  # "fsync", "everysec" or "memory"
    worker: str | None = None
    sequence: int | None = None
    round: int | None = None  # the number of the round it counted in, if it counted with others
    zeroed: int = 0  # how many of its numbers were not finite and count as 0
    replayed: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)  # what a newer service says besides
    # Where this answer's time went, in milliseconds: the service's stops, then `read`, the body's way here.
    timing_ms: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_json(cls, members: Any, timing_ms: Mapping[str, float] | None = None) -> Receipt:
        """Takes the members this client knows, and keeps the others in `extra`."""
        if not isinstance(members, dict) or not {"fate", "step"} <= members.keys():
            raise MalformedAnswer(f"this is not a receipt: {members!r}")
        extra = {name: members[name] for name in members.keys() - _MEMBERS}
        known = {name: members[name] for name in members.keys() - extra.keys()} if extra else members
        return cls(**known, extra=extra, timing_ms={} if timing_ms is None else timing_ms)


_MEMBERS = {each.name for each in fields(Receipt)} - {"extra", "timing_ms"}
