"""What a push costs behind a long history beside one behind a short one."""

from __future__ import annotations

from benchmarks.inside import begun, push, stored
from benchmarks.measure import Plan, Report, take_turns, timed
from benchmarks.subject import Pusher, require_steps, started

TITLE = "Cost by the length of history"
GOAL = 1.1
ELEMENTS = 1024
SAVED_ENTRIES = 10_000  # the service saves a model and trims its log after so many
AT_ONCE = 250


def run(plan: Plan) -> Report:
    """4 KiB of Adam, durability `memory`; models of 10 and of 1,000,000 entries in one service."""
    report = Report("history", TITLE)
    lengths = {"short": 10, "long": plan.pick(1_000_000, 1000)}
    with stored(plan) as (store, url):
        for name, pushes in lengths.items():
            hot = begun(store, name, ELEMENTS)
            for first in range(1, pushes + 1, SAVED_ENTRIES):
                push(hot, ELEMENTS, range(first, min(first + SAVED_ENTRIES, pushes + 1)), AT_ONCE)
                hot.save()
        with started(plan, "--redis-url", url) as service:
            pushers = {name: Pusher(service, ELEMENTS, name) for name in lengths}
            for name, pushes in lengths.items():
                pushers[name].sequence = pushes
            short = f"behind {lengths['short']} entries"
            cases = {short: timed(pushers["short"].push), "long": timed(pushers["long"].push)}
            samples = take_turns(cases, plan.pick(40, 3), warmups=plan.pick(100, 5), row=plan.pick(50, 10))
            for pusher in pushers.values():
                require_steps(service, pusher.sequence, pusher.model)
                pusher.close()
    report.samples["push"] = dict(samples.seconds)
    label = f"4 KiB Adam, behind {lengths['long']:,} entries"
    report.figures.append(samples.figure(label, "long", (short,), goal=GOAL))
    return report
