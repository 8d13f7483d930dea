"""Memory that is only promised: an array of zeros whose pages are claimed when they are first written."""

from __future__ import annotations

import mmap
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGE_BYTES = 32 << 20  # smaller arrays would take more huge pages than they have use for

# Without it Linux refuses to promise more than it has, though most of a table may never be touched. The
# number is Linux' own on x86 and ARM; Python 3.11 does not name it yet.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


def reserved(count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """`count` zeros, page-aligned; given back to the system with the last view of them."""
    nbytes = max(count, 1) * dtype.itemsize
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    if nbytes >= _LARGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        # Rows are reached in no order: with small pages half the time goes into finding where they lie.
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype, count)
