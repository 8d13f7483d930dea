"""What was made and asked for last: any number of models must not fill the memory with kernels.

A compiled kernel takes about a megabyte, and clients can think of specs without end. Whoever uses a kernel
holds it, so one that is dropped here lives as long as it runs; asked for again, it is made anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

KERNELS = 128

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """At most `most` values by key, each made by `make` when it is first asked for. Safe between threads."""

    def __init__(self, make: Callable[[K], V], most: int) -> None:
        self._make, self._most = make, most
        self._values: OrderedDict[K, V] = OrderedDict()
        self._looking, self._making = threading.Lock(), threading.Lock()

    def __call__(self, key: K) -> V:
        """The value of this key; what is made already is not kept waiting by what is being made."""
        if (value := self._look(key)) is not None:
            return value
        with self._making:
            if (value := self._look(key)) is None:
                value = self._make(key)
                self._keep(key, value)
            return value

    def __len__(self) -> int:
        return len(self._values)

    def _look(self, key: K) -> V | None:
        with self._looking:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def _keep(self, key: K, value: V) -> None:
        with self._looking:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
