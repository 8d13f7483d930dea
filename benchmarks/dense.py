"""A large dense push and pull beside the bytes on a bare socket and one pass of the kernel."""

from __future__ import annotations

from benchmarks import limits
from benchmarks.measure import Case, Plan, Report, take_turns, timed
from benchmarks.subject import Pusher, require_steps, serving

TITLE = "Dense push and pull"
GOAL = 1.5
WRITES = {"memory": (), "everysec": ("one write",), "fsync": ("one write with fsync",)}
TURNS = {64 << 20: 30, 256 << 20: 12}
FIRST = 12  # pushes or so until the first snapshot: the log only grows, into memory the server never had


def run(plan: Plan) -> Report:
    """One Adam model of 64 MiB and one of 256 MiB, one worker, one connection; for every durability."""
    report = Report("dense", TITLE)
    for nbytes, turns in ({1 << 20: 3} if plan.quick else TURNS).items():
        with limits.tcp(nbytes) as tcp:
            shared = {"TCP both ways": tcp, "one kernel pass": limits.kernel(nbytes // 4)}
            for durability in WRITES:
                if plan.quick and durability != "fsync":
                    continue  # the one with the most in it finds out whether it works
                _measure(plan, report, (durability, nbytes, turns), shared)
    return report


def _measure(plan: Plan, report: Report, wanted: tuple[str, int, int], shared: dict[str, Case]) -> None:
    durability, nbytes, turns = wanted
    bounds = dict(shared)
    for write in WRITES[durability]:
        bounds[write] = limits.disk(plan.directory, nbytes, flushed=durability == "fsync")
    with serving(plan, durability, nbytes // 4) as service:
        pusher = Pusher(service, nbytes // 4)
        cases = bounds | {"push": timed(pusher.push)}
        first = take_turns(cases, plan.pick(FIRST, 1), warmups=1)
        # From now on a snapshot of the state follows every dozen pushes.
        later = take_turns(cases, turns, warmups=plan.pick(2, 0))
        require_steps(service, pusher.sequence)
        pusher.close()
    label = f"{nbytes >> 20} MiB Adam, durability {durability}"
    for samples, name, goal in ((later, label, GOAL), (first, f"{label}, the first dozen", None)):
        report.samples[name] = dict(samples.seconds)
        note = f"p90 {samples.quantile(0.9, 'push') * 1e3:.0f} ms"
        report.figures.append(samples.figure(name, "push", tuple(bounds), goal=goal, note=note))
