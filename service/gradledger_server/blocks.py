"""Recycled, page-aligned blocks of bytes: request bodies and parameters live in them.

Fresh memory costs a page fault per 4 KiB, which at 64 MiB is as long as the optimizer's own pass, so a block
goes back to the shelf when its last view is gone. Nobody has to say so: every array and memoryview made
from a block keeps it alive, and its finalizer shelves it. A download that takes an hour therefore keeps
its own step's bytes, and nobody writes into them.

A device that moves bytes from and to them by itself has their pages locked (`lock_in_place`), once for each
piece of memory and not for each use of it.

The shelf is no second peak: in use and shelved together, no more is held than was lately in use at once, or
`keep_bytes` if that is more. Whoever needs a size that is not there pushes out what was used longest ago.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.uint8]
Unlock = Callable[[], None]

_PAGE_BYTES = mmap.PAGESIZE
_HUGE_PAGE_BYTES = 2 << 20
_LOCKING = threading.Lock()


class _Pages(mmap.mmap):
    """Fresh memory. Whoever has locked it is told before the system gets it back."""

    held = False  # in place, or it was tried in vain
    unlock: Unlock | None = None

    def __del__(self) -> None:
        if self.unlock is not None:
            self.unlock()


class Blocks:
    """A shelf of memory by size. Thread-safe. `shelved_bytes` is what idles on it now."""

    def __init__(self, keep_bytes: int = 512 << 20) -> None:
        self._keep_bytes = keep_bytes
        self._shelf: OrderedDict[int, list[_Pages]] = OrderedDict()  # the size used last comes last
        self._returned: deque[_Pages] = deque()
        self._lock = threading.Lock()
        self.shelved_bytes = 0
        self._used_bytes = 0
        self._most_bytes = self._most_before = 0  # in use at once, since and before the last `age`

    def take(self, nbytes: int) -> Block:
        """A writable uint8 array of `nbytes`, page-aligned, its contents arbitrary."""
        size = -(-max(nbytes, 1) // _PAGE_BYTES) * _PAGE_BYTES
        with self._lock:
            self._put_away()
            memory = self._pop(size)
            self._used_bytes += size
            self._most_bytes = max(self._most_bytes, self._used_bytes)
            dropped = self._push_out()
        dropped.clear()  # which may take long, and not while others wait
        if memory is None:
            memory = self._fresh(size)
        # The array's base is the mapping, not another array, so NumPy hangs every later view on this array
        # itself and the finalizer below fires only when the last of them is gone.
        block: Block = np.frombuffer(memory, np.uint8, nbytes)
        weakref.finalize(block, self._give_back, memory).atexit = False
        return block

    def age(self) -> None:
        """Forgets what was in use before the last call. To be called every minute or so."""
        with self._lock:
            self._put_away()
            self._most_bytes, self._most_before = self._used_bytes, self._most_bytes
            dropped = self._push_out()
        dropped.clear()

    def clear(self) -> None:
        """Gives everything on the shelf back to the system."""
        with self._lock:
            self._put_away()
            dropped, self._shelf = self._shelf, OrderedDict()
            self.shelved_bytes = 0
            self._most_bytes = self._most_before = self._used_bytes
        dropped.clear()

    def _give_back(self, memory: _Pages) -> None:
        # A finalizer may run anywhere, even on the thread that holds the lock: then the next call sees to it.
        self._returned.append(memory)
        if self._lock.acquire(blocking=False):
            try:
                self._put_away()
            finally:
                self._lock.release()

    def _fresh(self, size: int) -> _Pages:
        try:
            memory = _Pages(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except BaseException:
            with self._lock:
                self._used_bytes -= size
            raise
        if size >= _HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        return memory

    def _put_away(self) -> None:
        while self._returned:
            memory = self._returned.popleft()
            size = len(memory)
            self._shelf.setdefault(size, []).append(memory)
            self._shelf.move_to_end(size)
            self._used_bytes -= size
            self.shelved_bytes += size

    def _pop(self, size: int) -> _Pages | None:
        shelved = self._shelf.get(size)
        if not shelved:
            return None
        self.shelved_bytes -= size
        memory = shelved.pop()
        if not shelved:
            del self._shelf[size]
        return memory

    def _push_out(self) -> list[_Pages | None]:
        most, dropped = max(self._keep_bytes, self._most_bytes, self._most_before), []
        while self._shelf and self._used_bytes + self.shelved_bytes > most:
            dropped.append(self._pop(next(iter(self._shelf))))
        return dropped


def lock_in_place(view: NDArray[Any], lock: Callable[[int, int], Unlock | None]) -> None:
    """Has the memory of the block that is viewed locked by `lock(address, nbytes)`, if it is not yet.

    It stays so as long as the block's memory lives. Memory of others is left alone.
    """
    pages: Any = view
    while isinstance(pages, np.ndarray | memoryview):
        pages = pages.base if isinstance(pages, np.ndarray) else pages.obj
    if not isinstance(pages, _Pages) or pages.held:
        return
    with _LOCKING:
        if not pages.held:
            pages.unlock = lock(ctypes.addressof(ctypes.c_char.from_buffer(pages)), len(pages))
            pages.held = True
