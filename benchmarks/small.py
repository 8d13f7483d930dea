"""A small push and pull beside a bare HTTP echo of the same bytes and one Redis round trip."""

from __future__ import annotations

from benchmarks import limits
from benchmarks.measure import Case, Figure, Plan, Report, Samples, take_turns, timed
from benchmarks.subject import Pusher, require_steps, serving

TITLE = "Small push and pull"
NBYTES = 4096
LIMITS = ("bare uvicorn echo", "one Redis round trip")
GOALS = {("memory", 0.5): 2.5}


def run(plan: Plan) -> Report:
    """4 KiB of Adam, one worker, one connection; at durability `memory` and `fsync`."""
    report = Report("small", TITLE)
    with limits.http(NBYTES) as echo, limits.valkey() as client:
        shared = dict(zip(LIMITS, (echo, limits.ping(client)), strict=True))
        _measure(plan, report, "memory", shared)
        if not plan.quick:
            write = limits.disk(plan.directory, NBYTES, flushed=True)
            _measure(plan, report, "fsync", shared | {"one write with fsync": write})
    return report


def _measure(plan: Plan, report: Report, durability: str, bounds: dict[str, Case]) -> None:
    with serving(plan, durability, NBYTES // 4) as service:
        pusher = Pusher(service, NBYTES // 4)
        cases = bounds | {"push": timed(pusher.push)}
        samples = take_turns(cases, plan.pick(40, 3), warmups=plan.pick(100, 5), row=plan.pick(50, 10))
        require_steps(service, pusher.sequence)
        pusher.close()
    report.samples[durability] = dict(samples.seconds)
    report.figures += [_figure(samples, durability, tuple(bounds), q) for q in (0.5, 0.99)]


def _figure(samples: Samples, durability: str, bounds: tuple[str, ...], q: float) -> Figure:
    """A quantile of all pushes beside the same quantile of the limits' sums."""
    measured, limit = samples.quantile(q, "push"), samples.quantile(q, *bounds)
    return Figure(
        f"4 KiB Adam, durability {durability}, p{q * 100:.0f}",
        measured,
        " + ".join(bounds),
        limit,
        measured / limit,
        GOALS.get((durability, q)),
    )
