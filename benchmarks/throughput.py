"""Small pushes per second of many workers at once, beside bare echoes under the same load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import cycle

from benchmarks import limits
from benchmarks.connection import Parts, request_head
from benchmarks.crowd import Crowd
from benchmarks.many import begin_many
from benchmarks.measure import Plan, Report, take_turns
from benchmarks.subject import Worker, begin, body, require_steps, started
from tests.service import Service

TITLE = "Pushes per second"
NBYTES = 4096
GOAL = 2.0  # of time over time: half as many pushes as echoes
CROWDS = (8, 64)
LIMIT = "bare uvicorn echo"


def run(plan: Plan) -> Report:
    """4 KiB of Adam from 8 and 64 connections to one model, and from 64 to 1,000 models."""
    report = Report("throughput", TITLE)
    gradient = body(NBYTES // 4, 9)
    connections, many = CROWDS[: plan.pick(2, 1)], plan.pick(1000, 20)
    with limits.peer("http") as echo, started(plan, "--durability", "memory") as service:
        for count in connections:
            begin(service, f"one{count}", NBYTES // 4)
            workers = [Worker(f"w{i}", gradient, f"one{count}") for i in range(count)]
            own = [[worker] for worker in workers]
            _measure(plan, report, f"4 KiB Adam, {count} workers, one model", (echo, service), own)
            require_steps(service, sum(worker.sequence for worker in workers), f"one{count}")
        workers = [Worker("w", gradient, f"many{i}") for i in range(many)]
        begin_many(service, [worker.model for worker in workers], NBYTES // 4)
        own = [workers[i :: connections[-1]] for i in range(connections[-1])]
        _measure(
            plan, report, f"4 KiB Adam, {connections[-1]} workers, {many:,} models", (echo, service), own
        )
        for worker in workers:
            require_steps(service, worker.sequence, worker.model)
    return report


def _measure(
    plan: Plan,
    report: Report,
    label: str,
    where: tuple[int, Service],
    workers: Sequence[Sequence[Worker]],
) -> None:
    """As many connections as there are rows of `workers`, which push in turn on their connection."""
    echo, service = where
    requests = plan.pick(2000, 50)
    with ExitStack() as opened:
        echoes = opened.enter_context(Crowd(echo, [_echo(NBYTES)] * len(workers)))
        pushes = opened.enter_context(Crowd(service.port, [in_turn(own) for own in workers]))
        cases = {LIMIT: lambda: echoes.run(requests), "push": lambda: pushes.run(requests)}
        samples = take_turns(cases, plan.pick(10, 2), warmups=1)
        note = f"generator busy {echoes.load:.0%} of an echo, {pushes.load:.0%} of a push"
    report.samples[label] = dict(samples.seconds)
    report.figures.append(samples.figure(label, "push", (LIMIT,), goal=GOAL, requests=requests, note=note))


def in_turn(workers: Iterable[Worker]) -> Callable[[], Parts]:
    """The workers' pushes one after the other, round and round."""
    waiting = cycle(workers)
    return lambda: next(waiting).request()


def _echo(nbytes: int) -> Callable[[], Parts]:
    parts: Parts = [request_head("POST", "/", "", nbytes), bytes(nbytes)]
    return lambda: parts
