"""Pushes while snapshots are written beside pushes of a service that writes none."""

from __future__ import annotations

import time

from benchmarks.measure import Plan, Report, take_turns, timed
from benchmarks.subject import MODEL, UNSAVED, Pusher, begin, require_steps, started
from tests.service import Service

TITLE = "Snapshots while pushing"
GOAL = 2.0
ROW = 24  # pushes: two snapshots' worth of log
WITHOUT = "the same without snapshots"


def run(plan: Plan) -> Report:
    """16 MiB of Adam, durability `memory`; a snapshot of the 48 MiB of state follows every dozen pushes."""
    report = Report("snapshots", TITLE)
    elements = plan.pick(16 << 20, 1 << 20) // 4
    with (
        started(plan, "--durability", "memory") as saving,
        started(plan, "--durability", "memory", **UNSAVED) as unsaved,
    ):
        begin(saving, MODEL, elements)
        pusher, anew = Pusher(saving, elements), Anew(unsaved, elements)
        cases = {WITHOUT: anew.push, "push": timed(pusher.push)}
        samples = take_turns(cases, plan.pick(12, 1), row=ROW)
        require_steps(saving, pusher.sequence)
        assert not _is_whole(saving, MODEL), "no snapshot was written"
        anew.end()
        pusher.close()
    report.samples["push"] = dict(samples.seconds)
    label = f"{elements >> 18} MiB Adam with snapshots"
    report.figures.append(samples.quantile_figure(0.99, label, "push", (WITHOUT,), goal=GOAL))
    report.figures.append(samples.quantile_figure(0.5, label, "push", (WITHOUT,)))
    return report


class Anew:
    """A worker of a service without snapshots, with another model for each row of pushes.

    One model's log would grow without end, into memory that nobody has touched before, and that would be
    the slower of the two for a reason of its own.
    """

    def __init__(self, service: Service, elements: int) -> None:
        self._service, self._elements, self._models = service, elements, 0
        self._pusher = self._begin()

    def push(self) -> float:
        """The seconds of one push; making a model is not among them."""
        if self._pusher.sequence >= ROW:
            self.end()
            self._pusher = self._begin()
        started = time.perf_counter()
        self._pusher.push()
        return time.perf_counter() - started

    def end(self) -> None:
        """Deletes the model, after a look at whether it did what it should."""
        model = self._pusher.model
        require_steps(self._service, self._pusher.sequence, model)
        assert _is_whole(self._service, model), "a snapshot was written"
        self._pusher.close()
        self._service.request("DELETE", f"/v1/models/{model}")

    def _begin(self) -> Pusher:
        self._models += 1
        begin(self._service, f"{MODEL}{self._models}", self._elements)
        return Pusher(self._service, self._elements, f"{MODEL}{self._models}")


def _is_whole(service: Service, model: str) -> bool:
    """Whether the log still holds its first entry, which no snapshot has replaced."""
    entries = service.request("GET", f"/v1/models/{model}/entries?limit=1").json["entries"]
    return bool(entries) and entries[0]["offset"] == 1
