"""Many readers while a writer pushes: the pulls beside a bare send, and the writer beside itself alone."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from itertools import repeat
from statistics import median

from benchmarks import limits
from benchmarks.connection import Parts, request_head
from benchmarks.crowd import Crowd
from benchmarks.measure import Case, Plan, Report, take_turns, timed
from benchmarks.subject import HEADERS, MODEL, Pusher, require_steps, serving

TITLE = "Pull fan-out"
READERS = 16
ROUNDS = 4  # of pulls in a turn, so that the writer makes several pushes meanwhile
SEND, BESIDE, ALONE = "raw TCP send of the same bytes", "the same beside a raw writer", "the writer alone"
RAW_ALONE = "the raw writer alone"


def run(plan: Plan) -> Report:
    """16 readers of 16 MiB that do not pause, and one writer, durability `memory`; and bare sockets."""
    report = Report("fanout", TITLE)
    nbytes = plan.pick(16 << 20, 1 << 20)
    with ExitStack() as opened:
        sender = opened.enter_context(limits.peer("send", str(nbytes)))
        both_ways = opened.enter_context(limits.tcp(nbytes))
        service = opened.enter_context(serving(plan, "memory", nbytes // 4))
        pusher = Pusher(service, nbytes // 4)
        opened.callback(pusher.close)
        raw = Fan(opened.enter_context(_readers(sender, "/")), both_ways)
        ours = Fan(
            opened.enter_context(_readers(service.port, f"/v1/models/{MODEL}/parameters")), timed(pusher.push)
        )
        cases = {SEND: raw.read, BESIDE: raw.read_beside, "raw writer": raw.written, RAW_ALONE: raw.write}
        cases |= {"readers": ours.read_beside, "writer": ours.written, ALONE: ours.write}
        samples = take_turns(cases, plan.pick(10, 2), warmups=1)
        require_steps(service, pusher.sequence)
    report.samples["fan-out"] = dict(samples.seconds)
    pulls, moved = f"{READERS} pulls of {nbytes >> 20} MiB beside a writer", READERS * nbytes
    report.figures += [
        samples.figure(pulls, "readers", (SEND,), goal=1.3, nbytes=moved),
        samples.figure(pulls, "readers", (BESIDE,), nbytes=moved),
        samples.figure(f"a push beside {READERS} readers", "writer", (ALONE,), goal=1.5),
        samples.figure(f"a raw writer beside {READERS} raw readers", "raw writer", (RAW_ALONE,)),
    ]
    return report


class Fan:
    """Readers, and a writer, each of whom can work alone or beside the other."""

    def __init__(self, readers: Crowd, write: Case) -> None:
        self.write = write
        self._readers, self._writes = readers, [0.0]

    def read(self) -> float:
        """The seconds until every reader has read once, while nobody writes."""
        return self._readers.run(ROUNDS * READERS) / ROUNDS

    def read_beside(self) -> float:
        """The same while the writer writes again and again."""
        over, self._writes = threading.Event(), []
        writer = threading.Thread(target=self._write_until, args=(over,))
        writer.start()
        try:
            return self.read()
        finally:
            over.set()
            writer.join()

    def written(self) -> float:
        """What a write took beside the readers, in the median."""
        return median(self._writes)

    def _write_until(self, over: threading.Event) -> None:
        """The last write is counted only if it is the only one: part of it had no readers beside it."""
        while not over.is_set():
            seconds = self.write()
            if not over.is_set() or not self._writes:
                self._writes.append(seconds)


def _readers(port: int, target: str) -> Crowd:
    parts: Parts = [request_head("GET", target, HEADERS, 0)]
    return Crowd(port, list(repeat(lambda: parts, READERS)))
