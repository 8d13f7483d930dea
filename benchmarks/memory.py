"""What the service keeps in memory beside what it has to: at rest, and while large pushes come at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from benchmarks.crowd import Crowd
from benchmarks.footprint import Footprint
from benchmarks.measure import Figure, Plan, Report
from benchmarks.subject import MODEL, Worker, begin, body, require_steps, started
from tests.service import Service

TITLE = "Memory"
GOAL = 1.2
WORKERS = 8
KEPT = "parameters + slots + one published copy"
QUIET_S = 3.5  # after which the service has saved the model and given recycled memory back


def run(plan: Plan) -> Report:
    """64 MiB of Adam, 8 workers that push at once, durability `memory`."""
    report = Report("memory", TITLE)
    nbytes = plan.pick(64 << 20, 1 << 20)
    with started(plan, "--durability", "memory") as service:
        _warm_up(service)
        assert service.process is not None
        footprint = Footprint(service.process.pid)
        empty = footprint.now
        begin(service, MODEL, nbytes // 4)
        workers = [Worker(f"w{i}", body(nbytes // 4, 9)) for i in range(WORKERS)]
        turns = [_turn(plan, service, footprint, workers) for _ in range(plan.pick(5, 1))]
        require_steps(service, sum(worker.sequence for worker in workers))
    at_rest, at_most = [rest - empty for rest, _ in turns], [most - empty for _, most in turns]
    report.samples["bytes"] = {
        "empty": [empty],
        "at rest": [*map(float, at_rest)],
        "under load": [*map(float, at_most)],
    }
    kept, bodies = 4 * nbytes, WORKERS * nbytes
    size = f"{nbytes >> 20} MiB Adam"
    report.figures.append(_figure(f"{size}, at rest", at_rest, KEPT, kept))
    report.figures.append(
        _figure(f"{size}, {WORKERS} pushes at once", at_most, f"{KEPT} + the bodies in flight", kept + bodies)
    )
    report.notes.append(f"The process without the model, {empty >> 20} MiB, is subtracted.")
    return report


def _turn(plan: Plan, service: Service, footprint: Footprint, workers: Sequence[Worker]) -> tuple[int, int]:
    """The bytes of the process at rest after pushes, and at most while they came."""
    footprint.forget()
    with Crowd(service.port, [worker.request for worker in workers]) as crowd:
        crowd.run(plan.pick(4, 2) * WORKERS)
    highest = footprint.highest
    time.sleep(QUIET_S)
    return footprint.now, highest


def _warm_up(service: Service) -> None:
    """One push of a tiny model: what is imported and compiled only once is there, and not the model's."""
    begin(service, "tiny", 1)
    tiny = Worker("w", body(1, 9), "tiny")
    with Crowd(service.port, [tiny.request]) as crowd:
        crowd.run(1)


def _figure(label: str, measured: Sequence[int], limit: str, bound: int) -> Figure:
    amount = median(measured)
    return Figure(label, amount, limit, bound, amount / bound, GOAL, unit="bytes")
