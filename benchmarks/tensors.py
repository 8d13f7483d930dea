"""A model of many tensors beside one of the same bytes in a single tensor."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.measure import Plan, Report, take_turns, timed
from benchmarks.subject import Pusher, Tensors, begin, require_steps, started

TITLE = "Many tensors"
GOALS = {200: 1.15, 5000: 1.5}
ONE = "the same in one tensor"


def run(plan: Plan) -> Report:
    """64 MiB of Adam in 1, 200 and 5,000 tensors; one worker and one connection each, durability `memory`."""
    report = Report("tensors", TITLE)
    elements = plan.pick(64 << 20, 1 << 20) // 4
    wanted: dict[str, Tensors] = {ONE: elements}
    wanted |= {f"{elements >> 18} MiB in {count:,} tensors": divided(elements, count) for count in GOALS}
    with started(plan, "--durability", "memory") as service, ExitStack() as opened:
        pushers = {}
        for model, (label, tensors) in enumerate(wanted.items()):
            begin(service, f"m{model}", tensors)
            pushers[label] = Pusher(service, tensors, f"m{model}")
            opened.callback(pushers[label].close)
        cases = {label: timed(pusher.push) for label, pusher in pushers.items()}
        samples = take_turns(cases, plan.pick(25, 3), warmups=3)
        for pusher in pushers.values():
            require_steps(service, pusher.sequence, pusher.model)
    report.samples["push"] = dict(samples.seconds)
    for label, goal in zip(list(wanted)[1:], GOALS.values(), strict=True):
        report.figures.append(samples.figure(label, label, (ONE,), goal=goal))
    return report


def divided(elements: int, count: int) -> dict[str, int]:
    """So many tensors that have so many elements together."""
    edges = [elements * part // count for part in range(count + 1)]
    return {f"layer{part:04}.weight": edges[part + 1] - edges[part] for part in range(count)}
