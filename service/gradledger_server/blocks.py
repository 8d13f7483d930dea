"""Recycled, page-aligned blocks of bytes: request bodies and parameters live in them.

Fresh memory costs a page fault per 4 KiB, which at 64 MiB is as long as the optimizer's own pass, so a block
goes back to the shelf when its last view is gone. Nobody has to say so: every array and memoryview made
from a block keeps it alive, and its finalizer shelves it. A download that takes an hour therefore keeps
its own step's bytes, and nobody writes into them.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.uint8]

_PAGE_BYTES = mmap.PAGESIZE
_HUGE_PAGE_BYTES = 2 << 20


class Blocks:
    """A shelf of memory by size. Thread-safe. `shelved_bytes` is what idles on it now."""

    def __init__(self, keep_bytes: int = 512 << 20) -> None:
        self._keep_bytes = keep_bytes
        self._shelf: dict[int, list[mmap.mmap]] = defaultdict(list)
        self._lock = threading.RLock()  # a finalizer may run on the thread that holds it
        self.shelved_bytes = 0

    def take(self, nbytes: int) -> Block:
        """A writable uint8 array of `nbytes`, page-aligned, its contents arbitrary."""
        size = -(-max(nbytes, 1) // _PAGE_BYTES) * _PAGE_BYTES
        with self._lock:
            shelved = self._shelf[size]
            memory = shelved.pop() if shelved else None
            if memory is not None:
                self.shelved_bytes -= size
        if memory is None:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if size >= _HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
                memory.madvise(mmap.MADV_HUGEPAGE)
        # The array's base is the mapping, not another array, so NumPy hangs every later view on this array
        # itself and the finalizer below fires only when the last of them is gone.
        block: Block = np.frombuffer(memory, np.uint8, nbytes)
        weakref.finalize(block, self._shelve, memory, size).atexit = False
        return block

    def _shelve(self, memory: mmap.mmap, size: int) -> None:
        with self._lock:
            if self.shelved_bytes + size <= self._keep_bytes:
                self._shelf[size].append(memory)
                self.shelved_bytes += size

    def clear(self) -> None:
        """Gives everything on the shelf back to the system."""
        with self._lock:
            self._shelf.clear()
            self.shelved_bytes = 0
