"""Scratch memory on a device: arrays that live for one call and are lent again afterwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradledger_server.kernels.device import Array, Device


class Scratch:
    """As many arrays as were ever lent at once, each as large as the largest; fresh memory costs page faults.

    Safe to use from several threads.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._idle: deque[Array] = deque()

    @contextmanager
    def borrowed(self, number: int, count: int, dtype: np.dtype[Any]) -> Iterator[list[Array]]:
        """`number` arrays of `count` elements, their contents arbitrary."""
        nbytes = count * dtype.itemsize
        blocks = [self._block(nbytes) for _ in range(number)]
        try:
            yield [block[:nbytes].view(dtype) for block in blocks]
        finally:
            self._idle.extend(blocks)

    def _block(self, nbytes: int) -> Array:
        try:
            block = self._idle.pop()
        except IndexError:
            return self._device.empty(nbytes, np.uint8)
        return block if block.size >= nbytes else self._device.empty(nbytes, np.uint8)
