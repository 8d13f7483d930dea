"""Numbers to work on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PAGE_BYTES = 4096


def noise(elements: int, seed: int) -> NDArray[np.float32]:
    """Seeded float32 noise of the size gradients have, starting on a page."""
    memory: NDArray[np.float32] = np.empty(elements + _PAGE_BYTES // 4, np.float32)
    first = -memory.__array_interface__["data"][0] % _PAGE_BYTES // 4
    values = memory[first : first + elements]
    np.random.default_rng(seed).standard_normal(out=values, dtype=np.float32)
    values *= np.float32(0.01)
    return values
