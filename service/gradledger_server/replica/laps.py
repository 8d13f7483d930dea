"""Where a push's time goes, stop by stop.

    receive   the body arrives
    decode    it is read, checked and measured, its thread's turn included
    queue     it waits for its turn: for the model to be loaded or free, for a thread, and while the pushes
              committed together with it are applied
    append    the round trip to the ledger, shared with the pushes that wait together; of a small push that is
              applied meanwhile, what is left of it then
    apply     its own update, and what readers see of it; of a large push that is applied meanwhile, what is
              left of it when the ledger has answered
    wait      only in a round: it waits for others' pushes
    respond   the answer is made, up to its head; the body travels after that

Each lap ends where the next one begins, so they add up to the whole. What is done for several pushes together
takes each of them as long.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from time import perf_counter_ns
from typing import Literal, get_args

Stop = Literal["receive", "decode", "queue", "append", "apply", "wait", "respond"]
STOPS: tuple[Stop, ...] = get_args(Stop)


class Laps:
    """A stopwatch for one push. It begins to run when it is made; one thread at a time."""

    __slots__ = ("_laps_ns", "_since_ns")

    def __init__(self) -> None:
        self._laps_ns: dict[Stop, int] = {}
        self._since_ns = perf_counter_ns()

    def end(self, stop: Stop) -> None:
        """The time since the last lap ended was spent at this stop."""
        now_ns = perf_counter_ns()
        self._laps_ns[stop] = self._laps_ns.get(stop, 0) + now_ns - self._since_ns
        self._since_ns = now_ns

    @property
    def header(self) -> str:
        """A Server-Timing field: the stops in the order of the travel, in milliseconds."""
        laps_ns = self._laps_ns
        stops, form = _form(tuple(laps_ns))
        return form % tuple([laps_ns[stop] / 1e6 for stop in stops])


@lru_cache(maxsize=64)
def _form(ended: tuple[Stop, ...]) -> tuple[list[Stop], str]:
    """These stops in the order of the travel, and what to fill in their milliseconds."""
    stops = [stop for stop in STOPS if stop in ended]
    return stops, ", ".join(f"{stop};dur=%.3f" for stop in stops)


def end_all(laps: Iterable[Laps], stop: Stop) -> None:
    """What is done for several pushes at once takes each of them as long."""
    for each in laps:
        each.end(stop)
