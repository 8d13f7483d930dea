"""The parameters in memory: one block in wire order. A published block is never written again.

A step writes the new weights into another block while readers still hold the old one, so one pull is one
step and a slow download neither sees a torn update nor delays the next push. Steps nobody has seen yet
are made in place. On a GPU the arenas live on the device and each publication copies them to a block; so it
does where they are so few that copying is sooner done than changing blocks, and there they stay for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradledger_server.blocks import Block, Blocks
from gradledger_server.kernels.device import Device
from gradledger_server.machine.layout import Layout
from gradledger_server.machine.reading import Run

Array = Any  # of the device


COPIED_BYTES = 64 << 10  # up to here a publication is a copy


class Weights:
    """`arenas` are the current values on the device, flat, in layout order; if they `stay`, the same ones."""

    def __init__(self, layout: Layout, device: Device, blocks: Blocks) -> None:
        self._layout = layout
        self._device = device
        self._blocks = blocks
        self._block = blocks.take(layout.nbytes)
        self._block[:] = 0
        self.stay = not device.on_host or layout.nbytes <= COPIED_BYTES
        self._frozen: Block | None = None  # the block as readers have it, once they do
        self.arenas: list[Array] = [device.to_device(view) for view in self._views(self._block)]

    def begin(self) -> list[Array]:
        """Where the next values go: the arenas themselves, or a fresh block if somebody may be reading."""
        if self.stay or self._frozen is None:
            return self.arenas
        self._block = self._blocks.take(self._layout.nbytes)
        return list(self._views(self._block))

    def finish(self, after: Sequence[Array], touched: Sequence[Run]) -> None:
        """Makes `after`, as begun, the current values; what no run touched is carried over."""
        if after is not self.arenas:
            for index, arena in enumerate(self._layout.arenas):
                cursor = 0
                for run in (*(r for r in touched if r.arena == index), Run(index, arena.size, 0, 0, 0)):
                    if cursor < run.start:
                        np.copyto(after[index][cursor : run.start], self.arenas[index][cursor : run.start])
                    cursor = run.stop
            self.arenas = list(after)
        self._frozen = None

    def publish(self) -> Block:
        """The current values as one read-only block in wire order; the same one until the next step."""
        if self._frozen is None and self._device.on_host and self.stay:
            self._frozen = np.frombuffer(self._block.tobytes(), np.uint8)
        if self._frozen is None:
            if not self._device.on_host:
                self._block = self._blocks.take(self._layout.nbytes)
                for view, arena in zip(self._views(self._block), self.arenas, strict=True):
                    self._device.to_host(arena, view)
            self._frozen = self._block.view()
            self._frozen.flags.writeable = False
        return self._frozen

    def _views(self, block: Block) -> list[np.ndarray[Any, Any]]:
        return [
            block[arena.offset : arena.offset + arena.nbytes].view(arena.numpy_dtype)
            for arena in self._layout.arenas
        ]
