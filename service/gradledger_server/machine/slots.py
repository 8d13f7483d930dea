"""Where the slots of one arena's tensors lie: a flat array per slot, tensor after tensor in wire order.

Most slots have their tensor's shape, so they lie as the weights do. Some have a shape of their own
(Adafactor's rows and columns), and a tensor may lack a slot that another has.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from math import prod

from gradledger_server.machine.layout import Arena, Layout
from gradledger_server.machine.spec import Group

_AS_WEIGHTS = ("param", "accumulated")  # what is kept of every tensor beside its slots

Shaped = tuple[str, str, tuple[int, ...]]


class SlotPlaces:
    """The places of one arena's slots; `names` are the slots in the rule's order."""

    def __init__(self, layout: Layout, arena: Arena, group: Group) -> None:
        self.names = tuple(group.slot_starts)
        self._first = arena.first
        self._tensors = layout.signature[arena.first : arena.last]
        self._dtype = arena.dtype
        self._shapes = [
            {**dict.fromkeys(_AS_WEIGHTS, shape), **group.slot_shapes(shape)} for _, _, shape in self._tensors
        ]
        self._edges = {
            name: list(accumulate((prod(s[name]) if name in s else 0 for s in self._shapes), initial=0))
            for name in (*_AS_WEIGHTS, *self.names)
        }

    def size(self, slot: str) -> int:
        """Elements of the slot's array."""
        return self._edges[slot][-1]

    def here(self, slot: str, first: int, last: int) -> slice:
        """Where the slot of tensors `first:last` (in wire order) lies in its array."""
        edges = self._edges[slot]
        return slice(edges[first - self._first], edges[last - self._first])

    def shape(self, slot: str, index: int) -> tuple[int, ...]:
        """The slot's shape for a tensor; (0,) if that tensor lacks it."""
        return self._shapes[index - self._first].get(slot, (0,))

    def has(self, slot: str, index: int) -> bool:
        """Whether a tensor has the slot."""
        return slot in self._shapes[index - self._first]

    def tensors(self, slot: str) -> Iterator[Shaped]:
        """(`<slot>/<name>`, dtype, shape) of every tensor that has the slot, back to back in its array."""
        for (name, dtype, _), shapes in zip(self._tensors, self._shapes, strict=True):
            if slot in shapes:
                yield f"{slot}/{name}", dtype, shapes[slot]
