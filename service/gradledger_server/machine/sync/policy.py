"""The `sync` object of a spec: two numbers, `slack` and `take`, and what happens to the late.

    mode      slack  take
    async     none   1        every gradient counts at once
    ssp       s      1        a worker s pushes ahead of the slowest waits for it
    bsp       0      all      one gradient of every member makes a step
    backup    0      k        the first k members of a round; the others are late
    buffered  none   k        any k gradients, whoever sent them
    quorum    0      all      all, or at least `quorum` once the grace window is over (pace.py, unless given)

slack: how many pushes a worker may be ahead of the slowest (none: any number). take: gradients per step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gradledger_server.entries import Json
from gradledger_server.errors import InvalidSpec
from gradledger_server.machine.fields import choice, object_of, real, whole
from gradledger_server.machine.sync.merge import Merge, expand_merge
from gradledger_server.optim.expansion import as_json, missing, wrong

ALL = "all"
ADAPTIVE = "adaptive"
MAX_WORKERS = 10_000
MAX_HISTORY = 64
DAY_S = 86_400

# What a mode fixes, and what has to be said with it.
_FIXED: Mapping[str, Mapping[str, Any]] = {
    "async": {"take": 1, "slack": None, "quorum": None, "grace_ms": None},
    "ssp": {"take": 1, "quorum": None, "grace_ms": None},
    "bsp": {"take": ALL, "slack": 0, "quorum": None, "grace_ms": None},
    "backup": {"slack": 0, "quorum": None, "grace_ms": None},
    "buffered": {"slack": None, "quorum": None, "grace_ms": None},
    "quorum": {"take": ALL, "slack": 0},
}
_NEEDED = {"ssp": ("slack",), "backup": ("take",), "buffered": ("take",), "quorum": ("quorum",)}
_MODE_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "backup": {"late": "drop"},
    "quorum": {"grace_ms": ADAPTIVE},
}
MODES = tuple(_FIXED)


@dataclass(frozen=True, slots=True)
class Staleness:
    """What becomes of a gradient computed from older parameters; tau is the number of steps since.

    `max`: one with a larger tau is refused. `scale` a: lr is multiplied by (1 + tau)^-a (Zhang et al. 2015
    with a = 1). `compensate` lambda: g + lambda g g (w - w_base) takes its place (Zheng 2017, DC-ASGD),
    while w_base is among the last `history` steps.
    """

    max: int | None
    scale: float
    compensate: float
    history: int


@dataclass(frozen=True, slots=True)
class Policy:
    """An expanded `sync`. `workers` None: the members are whoever holds a lease."""

    mode: str
    workers: int | None
    take: int | Literal["all"]
    slack: int | None
    quorum: int | None
    grace_ms: int | Literal["adaptive"] | None
    late: str  # "apply" or "drop": a gradient from before the round
    lease_s: float
    aggregate: Merge
    staleness: Staleness

    @classmethod
    def read(cls, expanded: Json) -> Policy:
        plain = {name: value for name, value in expanded.items() if name not in ("aggregate", "staleness")}
        return cls(
            **plain, aggregate=Merge(**expanded["aggregate"]), staleness=Staleness(**expanded["staleness"])
        )

    @property
    def immediate(self) -> bool:
        """Whether no push ever waits."""
        return self.take == 1 and self.slack is None

    @property
    def in_rounds(self) -> bool:
        """Whether every member gives one gradient per step."""
        return self.slack == 0 and self.take != 1

    @property
    def lease_ms(self) -> int:
        return round(self.lease_s * 1000)


def expand(given: object) -> dict[str, Any]:
    """The `sync` object with every field; a bare mode stands for an object. Expanding twice changes nothing.

    Raises InvalidSpec.
    """
    fields = object_of("sync", {"mode": given} if isinstance(given, str) else given, ("mode", *_CHECKS))
    mode = choice("sync.mode", fields.get("mode", "async"), MODES)
    for name, value in _FIXED[mode].items():
        if fields.get(name, value) != value:
            raise wrong(f"sync.{name}", fields[name], f"{as_json(value)} in mode {mode!r}")
    for name in _NEEDED.get(mode, ()):
        if fields.get(name) is None:
            raise missing(f"sync.{name}", f"a number, which mode {mode!r} needs")
    defaults = _MODE_DEFAULTS.get(mode, {})
    said = {name: value for name, value in fields.items() if value is not None or name not in defaults}
    asked = {**_DEFAULTS, **defaults, **said, **_FIXED[mode]}
    expanded = {"mode": mode, **{name: check(f"sync.{name}", asked[name]) for name, check in _CHECKS.items()}}
    _require_sense(expanded)
    return expanded


def require_fit(policy: Policy, transforms: Json, *, tables: bool) -> None:
    """Raises InvalidSpec for ways of counting pushes that do not go with the rest of the spec."""
    if "accumulate" in transforms and not policy.immediate:
        raise InvalidSpec(
            f"accumulate makes a step of several pushes, and so does mode {policy.mode!r}",
            field="transforms.accumulate",
            hint='Take mode "buffered" with take, or mode "async" with accumulate.',
        )
    if policy.staleness.compensate and policy.take != 1:
        raise InvalidSpec(
            f"compensation is for pushes that count alone; in mode {policy.mode!r} they count together",
            field="sync.staleness.compensate",
            hint="Modes async and ssp can compensate.",
        )
    if tables and policy.aggregate.name not in ("mean", "sum"):
        raise InvalidSpec(
            f"aggregate {policy.aggregate.name!r} needs every push's gradient for every row of a table",
            field="sync.aggregate.name",
            hint="With tables there are mean and sum.",
        )


def _require_sense(sync: Mapping[str, Any]) -> None:
    """What is right field by field and wrong together."""
    workers, aggregate = sync["workers"], Merge(**sync["aggregate"])
    for name in ("take", "quorum"):
        if (
            isinstance(sync[name], int)
            and workers is not None
            and sync["slack"] == 0
            and sync[name] > workers
        ):
            raise wrong(f"sync.{name}", sync[name], f"at most sync.workers, which is {workers}")
    together = sync["quorum"] or (workers if sync["take"] == ALL else sync["take"])
    if together is not None and together < aggregate.fewest:
        raise wrong(
            "sync.aggregate",
            aggregate.name,
            f"an aggregate for steps of {together}; this one needs {aggregate.fewest} gradients",
        )
    if sync["staleness"]["compensate"] and not sync["staleness"]["history"]:
        raise wrong(
            "sync.staleness.history", 0, "at least 1: the steps whose parameters are kept to compare with"
        )


def _grace(where: str, value: object) -> int | str | None:
    if value is None or value == ADAPTIVE:
        return ADAPTIVE if value else None
    if type(value) is not int or not 0 <= value <= DAY_S * 1000:
        raise wrong(where, value, f'a whole number from 0 to {DAY_S * 1000}, or "{ADAPTIVE}"')
    return value


def _staleness(where: str, given: object) -> dict[str, Any]:
    fields = object_of(where, given, ("max", "scale", "compensate", "history"))
    return {
        "max": whole(f"{where}.max", fields.get("max"), 0, 2**31, optional=True),
        "scale": real(f"{where}.scale", fields.get("scale", 0.0), 0.0, 1.0),
        "compensate": real(f"{where}.compensate", fields.get("compensate", 0.0), 0.0, 100.0),
        "history": whole(f"{where}.history", fields.get("history", 0), 0, MAX_HISTORY),
    }


_DEFAULTS: Mapping[str, Any] = {
    "workers": None,
    "take": 1,
    "slack": None,
    "quorum": None,
    "grace_ms": None,
    "late": "apply",
    "lease_s": 30.0,
    "aggregate": None,
    "staleness": None,
}
_CHECKS: Mapping[str, Any] = {
    "workers": lambda where, value: whole(where, value, 1, MAX_WORKERS, optional=True),
    "take": lambda where, value: value if value == ALL else whole(where, value, 1, MAX_WORKERS),
    "slack": lambda where, value: whole(where, value, 0, 2**31, optional=True),
    "quorum": lambda where, value: whole(where, value, 1, MAX_WORKERS, optional=True),
    "grace_ms": lambda where, value: _grace(where, value),
    "late": lambda where, value: choice(where, value, ("apply", "drop")),
    "lease_s": lambda where, value: real(where, value, 0.1, DAY_S),
    "aggregate": expand_merge,
    "staleness": _staleness,
}
