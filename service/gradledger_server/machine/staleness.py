"""Delay compensation: what a stale gradient would be at the present weights, to first order.

    g + lambda g g (w - w_base)       Zheng et al. 2017, Asynchronous SGD with Delay Compensation, eq. 5

The weights of the last few steps are part of the state, so a replay compensates what the first run did.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradledger_server.blocks import Block
from gradledger_server.machine.gradient import Gradient, Stretch
from gradledger_server.machine.weights import Weights

if TYPE_CHECKING:
    from gradledger_server.machine.model import Model


Array = NDArray[Any]


class Past:
    """The published blocks of the last `kept` steps, by step. None is copied: none is written again."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.blocks: OrderedDict[int, Block] = OrderedDict()

    def remember(self, step: int, weights: Weights) -> None:
        """Keeps the weights of a step that is about to end."""
        if not self.kept:
            return
        self.blocks[step] = weights.publish()
        while len(self.blocks) > self.kept:
            self.blocks.popitem(last=False)

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self.blocks.values())


def compensated(model: Model, gradient: Gradient, base: int) -> Gradient:
    """The gradient carried over from the weights of step `base`; as it is, if those are held no more."""
    then, now = model.past.blocks.get(base), model.weights.publish()
    if then is None:
        return gradient
    strength = model.rounds.policy.staleness.compensate
    return [
        Stretch(part.run, _carried(model, part, _at(model, then, part), _at(model, now, part), strength))
        if isinstance(part, Stretch)
        else part
        for part in gradient
    ]


def _carried(model: Model, part: Stretch, then: Array, now: Array, strength: float) -> Array:
    carried: Array = model.blocks.take(part.values.nbytes).view(part.values.dtype)
    with np.errstate(all="ignore"):
        np.subtract(now, then, out=carried)
        np.multiply(carried, part.values, out=carried)
        np.multiply(carried, part.values, out=carried)
        np.multiply(carried, carried.dtype.type(strength), out=carried)
        np.add(carried, part.values, out=carried)
    return carried


def _at(model: Model, block: Block, part: Stretch) -> Array:
    """The weights a stretch is for, in a published block."""
    arena, item = model.layout.arenas[part.run.arena], part.values.dtype.itemsize
    first, last = (arena.offset + at * item for at in (part.run.start, part.run.stop))
    return block[first:last].view(part.values.dtype)
