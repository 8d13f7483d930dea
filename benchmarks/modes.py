"""The modes beside each other: what the same gradients come to, and what a death costs."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.dead_time import LIVING, Pauses, deaths
from benchmarks.learning import FAST_S, LR, SLOW_S, WORKERS, Learnt, learn
from benchmarks.measure import Grid, Plan, Report
from tests.service import Service

TITLE = "Training modes"
LEASE_S = 1.0
GRACE_MS = 10
# Each mode, and how many gradients its steps have in the run with the digits.
MODES: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "async": ({}, 1),
    "ssp": ({"slack": 3}, 1),
    "bsp": ({}, WORKERS),
    "backup": ({"take": WORKERS - 1}, WORKERS - 1),
    "buffered": ({"take": WORKERS}, WORKERS),
    "quorum": ({"quorum": WORKERS - 1, "grace_ms": GRACE_MS}, WORKERS - 1),
}
STALEST = 3  # columns of the histogram before "and more"
LEARNING = (
    "mode",
    "lr",
    "test accuracy",
    "steps/s",
    "gradients/s",
    *(f"τ = {tau}" for tau in range(STALEST)),
    f"τ ≥ {STALEST}",
    "largest τ",
    "MB up",
    "MB down",
    "late",
    "rejected",
)
DYING = (
    "mode",
    "usual pause",
    "SIGKILL to the next step",
    "longest pause after it",
    "the longest of all",
    "lease",
)


def run(plan: Plan) -> Report:
    """The digits in every mode, then deaths in every mode; durability `fsync`."""
    report = Report("modes", TITLE)
    gradients, dying = plan.pick(1600, 40), plan.pick(5, 1)
    modes = {"bsp": MODES["bsp"]} if plan.quick else MODES
    learning, pausing = Grid(LEARNING, []), Grid(DYING, [])
    # The whole story stays in the log while a figure is read from it.
    with Service(plan.directory / "service", GRADLEDGER_SNAPSHOT_QUIET_S="600") as service:
        for mode, (numbers, per_step) in modes.items():
            learnt = learn(service, {"mode": mode, **numbers}, per_step, gradients)
            report.samples[f"{mode}: gradients by staleness"] = {
                str(tau): [float(count)] for tau, count in sorted(learnt.staleness.items())
            }
            learning.rows.append(_learnt(mode, numbers, learnt))
        for mode, (numbers, _) in modes.items():
            pauses = deaths(service, plan.directory, {"mode": mode, "lease_s": LEASE_S, **numbers}, dying)
            report.samples[f"{mode}: seconds"] = {
                "to the next step": pauses.until_next,
                "longest pause": pauses.longest,
                "usual pause": pauses.usual,
            }
            pausing.rows.append(_paused(mode, pauses))
    report.grids += [learning, pausing]
    report.notes += _notes(gradients, dying)
    return report


def _learnt(mode: str, numbers: Mapping[str, Any], learnt: Learnt) -> tuple[str, ...]:
    counted = learnt.staleness.total()
    below = [learnt.staleness[tau] for tau in range(STALEST)]
    shares = [_percent(part, counted) for part in (*below, counted - sum(below))]
    return (
        _called(mode, numbers),
        f"{learnt.lr:.1f}",
        f"{learnt.accuracy:.3f}",
        f"{learnt.steps / learnt.seconds:.0f}",
        f"{learnt.gradients / learnt.seconds:.0f}",
        *shares,
        str(max(learnt.staleness)),
        f"{learnt.up_bytes / 1e6:.1f}",
        f"{learnt.down_bytes / 1e6:.1f}",
        *(_percent(learnt.fates[fate], learnt.gradients) for fate in ("late", "rejected")),
    )


def _paused(mode: str, pauses: Pauses) -> tuple[str, ...]:
    seconds = (median(pauses.usual), median(pauses.until_next), median(pauses.longest), max(pauses.longest))
    return (f"`{mode}`", *(f"{each * 1e3:.0f} ms" for each in seconds), f"{LEASE_S * 1e3:.0f} ms")


def _called(mode: str, numbers: Mapping[str, Any]) -> str:
    return ", ".join([f"`{mode}`", *(f"{name} {value}" for name, value in numbers.items())])


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _notes(gradients: int, dying: int) -> list[str]:
    return [
        f"Above: {WORKERS} worker processes and {gradients} gradients of 32 images in every mode, whoever "
        f"makes them; a gradient takes {FAST_S * 1e3:.0f} ms, the slow worker's {SLOW_S * 1e3:.0f} ms. "
        f"The rule is `sgd` with lr = {LR} times the gradients of a step. One image of the test is 0.003 of "
        "accuracy. Staleness is that of the gradients that counted; late and rejected are shares of all; MB "
        "are those of the bodies alone.",
        f"Below: {dying} of {LIVING + dying} workers are killed one after the other, at moments of chance. "
        "The pauses are those between steps: medians over the deaths, but for the longest of all.",
    ]
