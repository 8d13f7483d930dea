"""Pushes to many models, served by several processes, beside the same in one process."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import NamedTuple

import psutil

from benchmarks.crowd import Crowd
from benchmarks.many import begin_many
from benchmarks.measure import Case, Plan, Report, take_turns
from benchmarks.subject import Worker, body, require_steps, started
from benchmarks.throughput import in_turn
from tests.service import Service

TITLE = "Several processes"
ONE = "one process"


class Load(NamedTuple):
    """Pushes of `nbytes`; the connections share the models out among themselves. `pushes` make a turn."""

    nbytes: int
    models: int
    connections: int
    pushes: int


LOADS = (Load(4 << 10, 200, 64, 2000), Load(256 << 10, 40, 16, 400), Load(1 << 20, 40, 16, 200))


def run(plan: Plan) -> Report:
    """Adam at durability `memory`; one process, and as many as there are cores, in turn."""
    report = Report("workers", TITLE)
    processes = os.cpu_count() or 1
    several = f"{processes} processes"
    for load in LOADS[: plan.pick(len(LOADS), 1)]:
        label = f"{load.nbytes >> 10:,} KiB Adam, {load.models} models, {load.connections} workers"
        with ExitStack() as opened:
            one, all_of_them = (_begin(plan, opened, count, load) for count in (1, processes))
            cases: dict[str, Case] = {ONE: one.run, several: all_of_them.run}
            samples = take_turns(cases, plan.pick(10, 2), warmups=plan.pick(2, 1))
            note = f"cores busy {one.busy:.0%} and {all_of_them.busy:.0%}"
        report.samples[label] = dict(samples.seconds)
        report.figures.append(samples.figure(label, several, (ONE,), requests=one.pushes, note=note))
    return report


def _begin(plan: Plan, opened: ExitStack, processes: int, load: Load) -> Served:
    """A service of so many processes, with the models, and everybody connected."""
    service = opened.enter_context(started(plan, "--durability", "memory", "--workers", str(processes)))
    workers = [Worker("w", body(load.nbytes // 4, 9), f"many{i}") for i in range(load.models)]
    begin_many(service, [worker.model for worker in workers], load.nbytes // 4)
    own = [in_turn(workers[i :: load.connections]) for i in range(load.connections)]
    crowd = opened.enter_context(Crowd(service.port, own))
    opened.callback(_require, service, workers)
    return Served(crowd, plan.pick(load.pushes, 50))


def _require(service: Service, workers: list[Worker]) -> None:
    for worker in workers:
        require_steps(service, worker.sequence, worker.model)


class Served:
    """The crowd's turns, and how much of them all cores were busy: service, Valkey and the crowd itself."""

    def __init__(self, crowd: Crowd, pushes: int) -> None:
        self._crowd, self.pushes = crowd, pushes
        self._busy_s = self._whole_s = 0.0

    def run(self) -> float:
        """A turn."""
        before = psutil.cpu_times()
        seconds = self._crowd.run(self.pushes)
        after = psutil.cpu_times()
        whole_s = sum(after) - sum(before)
        self._whole_s += whole_s
        self._busy_s += whole_s - (after.idle - before.idle) - (after.iowait - before.iowait)
        return seconds

    @property
    def busy(self) -> float:
        return self._busy_s / self._whole_s
