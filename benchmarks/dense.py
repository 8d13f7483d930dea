"""A large dense push and pull beside the bytes on a bare socket and one pass of the kernel."""

from __future__ import annotations

from benchmarks import limits
from benchmarks.measure import Case, Plan, Report, take_turns, timed
from benchmarks.subject import Pusher, require_steps, serving

TITLE = "Dense push and pull"
GOALS = {"memory": 2.0, "everysec": None, "fsync": None}
WRITES = {"memory": (), "everysec": ("one write",), "fsync": ("one write with fsync",)}


def run(plan: Plan) -> Report:
    """One Adam model of 64 MiB, one worker, one connection; for every durability."""
    report = Report("dense", TITLE)
    nbytes = plan.pick(64 << 20, 1 << 20)
    with limits.tcp(nbytes) as tcp:
        shared = {"TCP both ways": tcp, "one kernel pass": limits.kernel(nbytes // 4)}
        for durability in GOALS:
            if plan.quick and durability == "everysec":
                continue  # the other two find out whether it works
            _measure(plan, report, durability, nbytes, shared)
    return report


def _measure(plan: Plan, report: Report, durability: str, nbytes: int, shared: dict[str, Case]) -> None:
    bounds = dict(shared)
    for write in WRITES[durability]:
        bounds[write] = limits.disk(plan.directory, nbytes, flushed=durability == "fsync")
    with serving(plan, durability, nbytes // 4) as service:
        pusher = Pusher(service, nbytes // 4)
        # A snapshot of the state follows every dozen pushes: the turns cover several.
        samples = take_turns(bounds | {"push": timed(pusher.push)}, plan.pick(30, 3), warmups=3)
        require_steps(service, pusher.sequence)
        pusher.close()
    report.samples[durability] = dict(samples.seconds)
    report.figures.append(
        samples.figure(
            f"{nbytes >> 20} MiB Adam, durability {durability}",
            "push",
            tuple(bounds),
            goal=GOALS[durability],
            note=f"p90 {samples.quantile(0.9, 'push') * 1e3:.0f} ms",
        )
    )
