"""What a push costs in a service of many models beside one in a service of one."""

from __future__ import annotations

import time
from itertools import cycle

from benchmarks.connection import Connection
from benchmarks.crowd import Crowd
from benchmarks.limits import repeated
from benchmarks.many import begin_many
from benchmarks.measure import Case, Plan, Report, take_turns, timed
from benchmarks.subject import HEADERS, Worker, body, require_steps, started
from tests.service import Service

TITLE = "Cost by the number of models"
GOAL = 1.1
ELEMENTS = 1024
ROW = 500  # pushes in one sample: half a second or more, so that what the service does meanwhile is in it
SETTLE_S = 3  # after which a model that is not pushed to any more has been saved
ALONE = "the only model of a service"


def run(plan: Plan) -> Report:
    """4 KiB of Adam, durability `memory`, one worker and one connection; 1 and 10,000 models."""
    report = Report("models", TITLE)
    count, row = plan.pick(10_000, 50), plan.pick(ROW, 20)
    with (
        started(plan, "--durability", "memory") as small,
        started(plan, "--durability", "memory") as large,
    ):
        only, many = _workers(small, 1), _workers(large, count)
        settle_s = plan.pick(SETTLE_S, 0)
        cases = {
            ALONE: _after_a_pause(_pushing(small, only, row), settle_s),
            "one": _pushing(large, many[:1], row),
            "any": _sustained(_pushing(large, many, row), settle_s),
        }
        samples = take_turns(cases, plan.pick(10, 2), warmups=1)
        for service, worker in [(small, only[0]), *((large, worker) for worker in many)]:
            require_steps(service, worker.sequence, worker.model)
    report.samples["push"] = dict(samples.seconds)
    for case, label in {"one": "always the same of", "any": "each push to another of"}.items():
        report.figures.append(
            samples.figure(f"4 KiB Adam, {label} {count:,} models", case, (ALONE,), goal=GOAL)
        )
    return report


def _workers(service: Service, count: int) -> list[Worker]:
    """One of each new model, after its first push."""
    gradient = body(ELEMENTS, 9)
    workers = [Worker("w", gradient, f"m{i}") for i in range(count)]
    begin_many(service, [worker.model for worker in workers], ELEMENTS)
    waiting = iter(workers)
    with Crowd(service.port, [lambda: next(waiting).request()]) as crowd:
        crowd.run(count)
    return workers


def _after_a_pause(case: Case, pause_s: float) -> Case:
    """The case once the models of the case before have been saved, at nobody's cost."""

    def after() -> float:
        time.sleep(pause_s)
        return case()

    return after


def _sustained(case: Case, lead_s: float) -> Case:
    """The case after so many seconds of it, so that models pushed to before are saved beside it."""

    def sustained() -> float:
        begun = time.perf_counter()
        while time.perf_counter() - begun < lead_s:
            case()
        return case()

    return sustained


def _pushing(service: Service, workers: list[Worker], row: int) -> Case:
    """The mean of a row of pushes, by these workers in turn."""
    waiting = cycle(workers)
    connection = Connection(service.port, len(workers[0].gradient))

    def push() -> None:
        worker = next(waiting)
        connection.request("POST", worker.target(), HEADERS, worker.gradient)

    pushes = repeated(timed(push), row)
    return lambda: pushes() / row
