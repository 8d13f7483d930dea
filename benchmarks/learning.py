"""What a mode costs and gains: the digits learnt with equally many gradients, one worker being slow."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.trainee import Task, work
from gradledger import Client, Model
from gradledger_server.demo import digits
from tests.service import Service

WORKERS = 4
FAST_S, SLOW_S = 0.010, 0.040  # what a gradient takes the three fast ones, and the slow one
LR = 0.1  # of one gradient; a mean of n gradients is worth n of them (Goyal et al. 2017)
GIVE_UP_S = 120.0

Name = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What came of a mode. `fates` counts gradients; `staleness` those that counted, by their staleness."""

    lr: float
    accuracy: float
    seconds: float
    steps: int
    fates: Counter[str]
    staleness: Counter[int]
    up_bytes: int
    down_bytes: int

    @property
    def gradients(self) -> int:
        return self.fates.total()


def learn(service: Service, sync: Mapping[str, Any], gradients_per_step: int, gradients: int) -> Learnt:
    """Trains a model in this mode with so many gradients, and reads from its events what happened."""
    train, test = digits.load()
    lr = LR * gradients_per_step
    with Client(service.url) as client:
        name = f"digits-{sync['mode']}"
        model = client.create(name, digits.initial(), {"rule": "sgd", "lr": lr}, sync=dict(sync))
        waits = sync["mode"] not in ("async", "buffered")
        pace = [FAST_S] * (WORKERS - 1) + [SLOW_S]
        tasks = [
            Task(service.url, name, index, takes_s, waits, train.every(WORKERS, index))
            for index, takes_s in enumerate(pace)
        ]
        up_bytes, down_bytes = _run(tasks, gradients)
        accuracy = digits.accuracy(model.pull(), test)
        seconds, steps, fates, staleness = _story(model)
    return Learnt(lr, accuracy, seconds, steps, fates, staleness, up_bytes, down_bytes)


def _run(tasks: list[Task], gradients: int) -> tuple[int, int]:
    """The bytes that all of them sent and received."""
    processes = multiprocessing.get_context("spawn")
    tickets, start, told = (
        processes.Value("i", gradients),
        processes.Barrier(len(tasks)),
        processes.SimpleQueue(),
    )
    crew = [processes.Process(target=work, args=(task, tickets, start, told), daemon=True) for task in tasks]
    for process in crew:
        process.start()
    for process in crew:
        process.join(GIVE_UP_S)
        assert process.exitcode == 0, f"{process.name} ended with {process.exitcode}"
    sums = [told.get() for _ in crew]
    return sum(up for up, _ in sums), sum(down for _, down in sums)


def _story(model: Model) -> tuple[float, int, Counter[str], Counter[int]]:
    """Seconds from the first step to the last, steps, fates, and staleness of what counted."""
    model.configure(optimizer={"lr": 0.0})  # the end of the story
    times_ms: list[int] = []
    fates: Counter[str] = Counter()
    staleness: Counter[int] = Counter()
    with model.events(after=0) as events:
        for event in events:
            assert event.kind != "reset", "the story is longer than what the service holds"
            if event.kind == "step":
                times_ms.append(event.facts["at_ms"])
                fates.update(each["fate"] for each in event.facts["gradients"])
                staleness.update(each["staleness"] for each in event.facts["gradients"])
            elif event.kind == "late":
                fates["late"] += 1
            elif event.kind == "configure":
                return (times_ms[-1] - times_ms[0]) / 1000, len(times_ms), fates, staleness
    raise AssertionError("the model is gone")
