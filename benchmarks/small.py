"""A small push and pull beside a bare HTTP echo of the same bytes and one Redis round trip."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks import limits
from benchmarks.measure import Case, Plan, Report, take_turns, timed
from benchmarks.subject import Pusher, body, require_steps, serving

TITLE = "Small push and pull"
NBYTES = 4096
LIMITS = ("bare uvicorn echo", "one Redis round trip")
GOALS = {("memory", 0.5): 2.0, ("memory", 0.99): 3.0}


def run(plan: Plan) -> Report:
    """4 KiB of Adam, one worker, one connection; at durability `memory` and `fsync`."""
    report = Report("small", TITLE)
    with ExitStack() as opened:
        echo = opened.enter_context(limits.http(NBYTES))
        client = opened.enter_context(limits.valkey())
        bare = opened.enter_context(limits.bare_push(client, body(NBYTES // 4, 9)))
        shared = dict(zip(LIMITS, (echo, limits.ping(client)), strict=True))
        _measure(plan, report, "memory", shared, bare)
        if not plan.quick:
            write = limits.disk(plan.directory, NBYTES, flushed=True)
            _measure(plan, report, "fsync", shared | {"one write with fsync": write})
    return report


def _measure(
    plan: Plan, report: Report, durability: str, bounds: dict[str, Case], bare: Case | None = None
) -> None:
    with serving(plan, durability, NBYTES // 4) as service:
        pusher = Pusher(service, NBYTES // 4)
        cases = bounds | {"push": timed(pusher.push)} | ({"bare": bare} if bare else {})
        samples = take_turns(cases, plan.pick(40, 3), warmups=plan.pick(100, 5), row=plan.pick(50, 10))
        require_steps(service, pusher.sequence)
        pusher.close()
    report.samples[durability] = dict(samples.seconds)
    label = f"4 KiB Adam, durability {durability}"
    for q in (0.5, 0.99):
        goal = GOALS.get((durability, q))
        report.figures.append(samples.quantile_figure(q, label, "push", tuple(bounds), goal=goal))
    if bare:
        hard_wired = samples.quantile_figure(0.5, "the same, hard-wired", "bare", tuple(bounds))
        report.figures.append(hard_wired)
