"""Pushes on their way to become one step: the mean of each tensor's gradients in the present window.

    add, add, …   a window of `every` pushes
    close         their means, as one gradient; the next window begins

A push need not bring every tensor: a tensor's mean is over those pushes of the window that brought it, and
one that none brought is not updated. A window closes by the number of its pushes, whatever they weigh.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradledger_server.entries import Json
from gradledger_server.kernels.device import Array, Device
from gradledger_server.machine.gradient import Stretch, cut
from gradledger_server.machine.layout import Layout
from gradledger_server.machine.reading import Run
from gradledger_server.optim import chain

_MOST = np.finfo(np.float64).max


class Accumulation:
    """`means` lie like the parameters, in arenas; `weights[i]` is what tensor i's mean stands for so far."""

    def __init__(self, layout: Layout, device: Device) -> None:
        self._layout, self._device = layout, device
        self.means: list[Array] = [device.zeros(arena.size, arena.numpy_dtype) for arena in layout.arenas]
        self.weights: NDArray[np.float64] = np.zeros(len(layout.places))
        self.pushes = 0
        self._kernels = [device.kernel(chain.accumulation(), arena.numpy_dtype) for arena in layout.arenas]

    def add(self, gradient: Sequence[Stretch], weight: float) -> None:
        """Takes a push into the window."""
        for stretch in gradient:
            run, values = stretch.run, self._device.to_device(stretch.values)
            weights = self.weights[run.first : run.last]
            with np.errstate(over="ignore"):  # an infinite weight is no fact that JSON could keep
                np.minimum(weights + weight, _MOST, out=weights)
            for part in cut(self._layout, run, self.weights):
                mean = self.means[run.arena][part.start : part.stop]
                brought = values[part.start - run.start : part.stop - run.start]
                share = float(self.weights[part.first]) / weight  # n in the nth push of equal ones, exactly
                self._kernels[run.arena](mean, mean, brought, [], [share])
        self.pushes += 1

    def close(self) -> list[Stretch]:
        """The means of the tensors that were brought, in arena order. Valid until `clear`."""
        brought = self.weights > 0
        return [
            Stretch(run, self.means[run.arena][run.start : run.stop])
            for index, arena in enumerate(self._layout.arenas)
            for run in cut(self._layout, Run(index, 0, arena.size, arena.first, arena.last), brought)
            if brought[run.first]
        ]

    def clear(self) -> None:
        """Begins the next window."""
        for mean in self.means:
            mean[:] = 0
        self.weights[:] = 0
        self.pushes = 0

    def facts(self) -> Json:
        """What the means do not tell, as JSON for a snapshot."""
        return {"pushes": self.pushes, "weights": self.weights.tolist()}

    def restore(self, facts: Json) -> None:
        """Takes `facts` back; the means are filled by whoever has the tensors."""
        self.pushes = facts["pushes"]
        self.weights[:] = facts["weights"]

    @property
    def nbytes(self) -> int:
        return self._layout.nbytes
