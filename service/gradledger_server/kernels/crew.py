"""A few threads that share a row of parts between them; the caller is one of the crew."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


class Crew:
    """`threads` counts the caller; None means the processors this process may use."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or _processors()
        self._others = ThreadPoolExecutor(max(1, self.threads - 1), thread_name_prefix="kernel")

    def spread(self, work: Callable[[int, int], object], parts: Iterable[tuple[int, int]]) -> None:
        """Call `work(start, stop)` once for every part, on whichever thread is free, and wait for all.

        The work must release the GIL to gain anything. If the others are busy for somebody else, the caller
        does it alone.
        """
        waiting = deque(parts)

        def drain() -> None:
            while True:
                try:
                    start, stop = waiting.popleft()
                except IndexError:
                    return
                work(start, stop)

        drains = [self._others.submit(drain) for _ in range(min(self.threads, len(waiting)) - 1)]
        drain()
        for future in drains:
            if not future.cancel():
                future.result()


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
