"""Memory for large answers, used again once the caller has let go of what was in it.

The system clears fresh pages one by one, which takes as long as a loopback takes to fill them. Who pushes in
a loop drops the parameters of one step for those of the next, so two blocks in turn are enough.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

LARGE_BYTES = 1 << 20  # below that, fresh memory is as good

Block = NDArray[np.uint8]


class Memory:
    """Where answers are received. Thread-safe. One block at most is kept for an answer to come."""

    def __init__(self) -> None:
        self._idle: deque[Block] = deque(maxlen=1)

    def take(self, nbytes: int) -> Block:
        """A writable array of arbitrary contents; nothing else uses its memory as long as it or a view of it
        is alive."""
        if nbytes < LARGE_BYTES:
            return np.empty(nbytes, np.uint8)
        memory = self._kept(nbytes)
        # Made from the buffer, not from the array: so views of it hold it, and it goes with the last of them.
        block = np.frombuffer(memory.data, np.uint8)
        weakref.finalize(block, self._idle.append, memory).atexit = False
        return block

    def clear(self) -> None:
        """Gives back to the system what is kept."""
        self._idle.clear()

    def _kept(self, nbytes: int) -> Block:
        try:
            kept = self._idle.pop()
        except IndexError:
            kept = np.empty(nbytes, np.uint8)
        return kept if kept.size == nbytes else np.empty(nbytes, np.uint8)
