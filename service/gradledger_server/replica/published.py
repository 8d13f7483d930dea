"""What readers see of a model: one step's parameters, immutable, with the header that goes before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gradledger_server.blocks import Block
from gradledger_server.errors import ParametersMissing, TensorNotFound
from gradledger_server.machine.gradient import Gradient
from gradledger_server.machine.layout import Layout
from gradledger_server.machine.model import Model
from gradledger_server.machine.row_gradient import Rows, Touched
from gradledger_server.machine.tables import DeclaredTable
from gradledger_server.machine.views import TRAIN


class Published(NamedTuple):
    """One step's parameters: `block` holds all tensors in wire order and is never written again.

    Tables are not among them: nobody copies a table at each step. Their rows are read when asked for.
    `view` is the tag of what they are: those that train, or an average.
    """

    epoch: str
    step: int
    layout: Layout
    header: bytes
    block: Block
    missing: frozenset[str]
    view: str = TRAIN

    @property
    def etag(self) -> str:
        return self.etag_of(self.view)

    def etag_of(self, view: str) -> str:
        """The version of the view with that tag at this step: no cache takes one for the other."""
        return f'"{self.epoch}.{self.step}"' if view == TRAIN else f'"{self.epoch}.{view}.{self.step}"'

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Every tensor in wire order, as read-only views."""
        return {name: self.array(name) for name, _, _ in self.layout.signature}

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """One tensor as a read-only view; raises TensorNotFound."""
        place = self.layout.by_name.get(name)
        if place is None:
            raise TensorNotFound(f"the model has no tensor {name!r}", tensor=name)
        start, stop = self.layout.byte_range(name)
        dtype = self.layout.arenas[place.arena].numpy_dtype
        return self.block[start:stop].view(dtype).reshape(place.tensor.shape)

    def require_values(self) -> None:
        """Raises ParametersMissing while some tensors wait for their first upload."""
        if self.missing:
            some = ", ".join(sorted(self.missing)[:5])
            raise ParametersMissing(
                f"{len(self.missing)} of {len(self.layout.places)} tensors have no values yet: {some}",
                missing=sorted(self.missing)[:100],
            )


@dataclass(frozen=True, slots=True, eq=False)
class TableRows:
    """Some rows of a table at one step, [k, …] in the order of `ids`; of all rows if `ids` is None."""

    table: DeclaredTable
    ids: Rows | None
    values: np.ndarray[Any, Any]

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """As a body names them: the values under the table's name, and which rows they are beside it."""
        count = self.table.rows if self.ids is None else self.ids.size
        values = self.values.reshape(count, *self.table.shape[1:])
        return {self.table.name: values} | ({} if self.ids is None else {self.table.ids_name: self.ids})


def touched_rows(model: Model, gradient: Gradient) -> tuple[TableRows, ...]:
    """The rows of a gradient as they are now."""
    return tuple(
        TableRows(part.table, part.rows, model.tables[part.table.name].look(part.rows)())
        for part in gradient
        if isinstance(part, Touched)
    )
