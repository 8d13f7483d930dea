"""Processes that belong together: started, watched, replaced when they die, and ended together."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from gradledger_server.errors import GradledgerError

log = structlog.get_logger()

Process = subprocess.Popen[bytes]

POLL_S = 0.1
YOUNG_S = 30.0  # who dies sooner may have died of its start
FIRST_PAUSE_S = 0.1  # doubled with each young death
YOUNG_DEATHS = 5  # of one place, in a row, before all is given up


@dataclass(slots=True)
class _Place:
    """One of the processes, over its lives. Without a `process` the next life begins at `due_at`."""

    process: Process | None = None
    born_at: float = 0.0
    due_at: float = 0.0
    young_deaths: int = 0

    def bury(self, now: float) -> None:
        """Its process has died: when the next one comes."""
        young = now - self.born_at < YOUNG_S
        self.young_deaths = self.young_deaths + 1 if young else 0
        self.process, self.due_at = None, now + FIRST_PAUSE_S * 2.0**self.young_deaths


class Supervisor:
    """Keeps `count` processes, which `start` makes, given a place: 0 to `count` - 1.

    `buried` is told the place and the process id of each that has died.
    """

    def __init__(
        self,
        start: Callable[[int], Process],
        count: int,
        buried: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self._start, self._buried = start, buried
        self._places = [_Place() for _ in range(count)]
        self._stopping = False

    def stop(self) -> None:
        """Makes `run` return soon. A signal handler may call it."""
        self._stopping = True

    def run(self, patience_s: float) -> None:
        """Starts all, in this thread, and watches them until `stop`; then they get SIGTERM and `patience_s`.

        Raises GradledgerError if one of them keeps dying as soon as it is started.
        """
        try:
            while not self._stopping:
                for number, place in enumerate(self._places):
                    self._tend(number, place, time.monotonic())
                time.sleep(POLL_S)
        finally:
            self._end(patience_s)

    def _tend(self, number: int, place: _Place, now: float) -> None:
        if place.process is None and now >= place.due_at:
            place.process, place.born_at = self._start(number), now
        elif place.process is not None and (status := place.process.poll()) is not None:
            log.warning("a service process died", pid=place.process.pid, status=status)
            self._buried(number, place.process.pid)
            place.bury(now)
            if place.young_deaths == YOUNG_DEATHS:
                raise GradledgerError(
                    f"a service process died {YOUNG_DEATHS} times as soon as it was started, at last with "
                    f"status {status}",
                    hint="Read what it said above; with --workers 1 there is only one to look at.",
                )

    def _end(self, patience_s: float) -> None:
        processes = [place.process for place in self._places if place.process is not None]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + patience_s
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("a service process does not end and is killed", pid=process.pid)
                process.kill()
                process.wait()
