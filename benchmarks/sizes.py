"""A push and pull of every size beside the bytes on a bare socket and one pass of the kernel."""

from __future__ import annotations

from benchmarks import limits
from benchmarks.measure import Plan, Report, take_turns, timed
from benchmarks.subject import Pusher, begin, require_steps, started

TITLE = "Pushes of every size"
SIZES = tuple(1 << power for power in range(12, 25, 2))  # bytes: 4 KiB to 16 MiB
LIMIT = ("TCP both ways", "one kernel pass")
MOST_BYTES = 1 << 30  # pushed of each size


def run(plan: Plan) -> Report:
    """One Adam model of each size in one service, one worker, one connection, durability `memory`."""
    report = Report("sizes", TITLE)
    with started(plan, "--durability", "memory") as service:
        for nbytes in SIZES[: plan.pick(len(SIZES), 2)]:
            model, turns = f"size{nbytes}", plan.pick(min(400, MOST_BYTES // nbytes), 3)
            begin(service, model, nbytes // 4)
            pusher = Pusher(service, nbytes // 4, model)
            with limits.tcp(nbytes) as tcp:
                bare = dict(zip(LIMIT, (tcp, limits.kernel(nbytes // 4)), strict=True))
                cases = bare | {"push": timed(pusher.push)}
                samples = take_turns(cases, turns, warmups=plan.pick(20, 1))
            require_steps(service, pusher.sequence, model)
            pusher.close()
            label = f"{nbytes >> 10:,} KiB Adam, durability memory"
            report.samples[label] = dict(samples.seconds)
            note = f"p90 {samples.quantile(0.9, 'push') * 1e3:.1f} ms"
            report.figures.append(samples.figure(label, "push", LIMIT, note=note))
    return report
