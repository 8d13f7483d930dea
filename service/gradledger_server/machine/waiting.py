"""What waits, as tensors of an image: pushes whose round is open, and the weights of earlier steps.

    waiting/<offset>/<name>     a waiting push's gradient for a tensor, `<name>#rows` for the rows of a table
    past/<step>/<name>          the weights of that step

Pushes stay in the order of the log, and their facts go beside the tensors as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradledger_server.entries import Push, Tensors
from gradledger_server.machine.gradient import Stretch, gather
from gradledger_server.machine.model import Model
from gradledger_server.machine.row_gradient import Touched

Shaped = tuple[str, str, tuple[int, ...]]
Part = np.ndarray[Any, Any]

_FACTS = [name for name in Push._fields if name != "tensors"]


def image(model: Model) -> Iterator[tuple[Shaped, Part]]:
    """Named tensors and their bytes; views, for nothing here is ever written again."""
    for offset, (_, gradient) in model.held.items():
        for part in gradient:
            for (name, dtype, shape), values in _named(model, part):
                yield (f"waiting/{offset}/{name}", dtype, shape), values
    for step, block in model.past.blocks.items():
        for name, dtype, shape in model.layout.signature:
            start, stop = model.layout.byte_range(name)
            yield (f"past/{step}/{name}", dtype, shape), block[start:stop]


def facts(model: Model) -> list[Any]:
    """The waiting pushes without their tensors: [[offset, [tensor …], {fact …}] …]."""
    return [
        [
            offset,
            [name for part in gradient for (name, _, _), _ in _named(model, part)],
            {name: getattr(push, name) for name in _FACTS} | {"grad_norm": repr(push.grad_norm)},
        ]
        for offset, (push, gradient) in model.held.items()
    ]


def restore(model: Model, held: list[Any], past: list[int], tensors: Tensors) -> None:
    """Takes back what `image` and `facts` gave."""
    for offset, names, told in held:
        table = {name: tensors.table[f"waiting/{offset}/{name}"] for name in names}
        brought = Tensors(table, memoryview(b""), tensors.data)
        push = Push(tensors=brought, **{**told, "grad_norm": float(told["grad_norm"])})  # it may be NaN
        model.held[offset] = push, gather(model.layout, brought, model.blocks)
    for step in past:
        block = model.blocks.take(model.layout.nbytes)
        for name, _, _ in model.layout.signature:
            start, stop = model.layout.byte_range(name)
            block[start:stop] = np.frombuffer(tensors[f"past/{step}/{name}"], np.uint8)
        model.past.blocks[step] = block


def _named(model: Model, part: Stretch | Touched) -> Iterator[tuple[Shaped, Part]]:
    if isinstance(part, Touched):
        count = part.values.size // part.table.width
        shape = (count, *part.table.shape[1:])
        yield (part.table.name, part.table.dtype, shape), part.values.view(np.uint8)
        if part.rows is not None:
            yield (part.table.ids_name, "I64", (count,)), part.rows.view(np.uint8)
        return
    for place in model.layout.places[part.run.first : part.run.last]:
        values = part.values[place.start - part.run.start : place.stop - part.run.start]
        yield (place.tensor.name, place.tensor.dtype, place.tensor.shape), values.view(np.uint8)
