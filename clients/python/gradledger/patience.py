"""How long and how often one thing is tried: growing pauses, and an end."""

from __future__ import annotations

import random
import time

from gradledger.errors import GradledgerError

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0

# Not the module's own generator: who seeds that for a reproducible training must not see our retries in it.
_SPREAD = random.SystemRandom()


class Patience:
    """What is left of it for one thing. No try begins later than `for_s` after now; `tries` counts them."""

    def __init__(self, for_s: float) -> None:
        self.tries = 1
        self._last_start = time.monotonic() + for_s

    def spend(self, error: GradledgerError) -> None:
        """Sleeps until the next try is due. Raises the error if another one cannot help or is too late."""
        error.tries = self.tries
        pause_s = max(_pause_s(self.tries), error.retry_after_s)
        if not error.transient or time.monotonic() + pause_s > self._last_start:
            raise error
        time.sleep(pause_s)
        self.tries += 1


def _pause_s(tries: int) -> float:
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 10))
    return longest * _SPREAD.uniform(0.5, 1.0)  # spreads the retries of many workers
