"""What a spec says of its tables: parameters of which a push touches some rows, along the first axis.

    "emb": {"shape": [1000000, 64], "dtype": "F32", "rows": "lazy",
            "init": {"name": "normal", "mean": 0.0, "std": 0.01, "seed": 7}}

`rows` makes a parameter a table and says what a push does to it:

    lazy            only the rows of the push move, each by its own update count t: the first touch of a row
                    is a first step, however late it comes
    lazy_global_t   only the rows of the push move, all by the table's update count, as torch.SparseAdam does
    dense           every row moves at every push, those not in it with a gradient of 0; the cost is the
                    table's, so tables above `DENSE_BYTES` are refused

With `init` rows begin with values that any replica can compute, and nothing needs to be uploaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from gradledger_server.dtypes import ITEM_BYTES, NUMPY_DTYPE
from gradledger_server.entries import Json
from gradledger_server.errors import InvalidSpec
from gradledger_server.machine.initial import expand_initial
from gradledger_server.optim.catalog import ELEMENTWISE
from gradledger_server.optim.transforms import MODEL_WIDE

MODES = ("lazy", "lazy_global_t", "dense")
DENSE_BYTES = 64 << 20
ROWS = 1 << 28  # a table's index takes four bytes for each row there might be
BYTES = 1 << 38  # of a model's tables with every row seen: memory is promised for all of it, and slots
ROWS_OF_PUSH = 1 << 20
TRANSFORMS_BY_ROW = ("clip_global_norm", "clip_value")
SUFFIX = "#rows"


@dataclass(frozen=True, slots=True)
class DeclaredTable:
    """A table as the spec declares it. `initial` None: its values are uploaded."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    group: int  # index into the spec's groups
    mode: str  # one of MODES
    initial: Json | None

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def width(self) -> int:
        """Elements of a row."""
        return prod(self.shape[1:])

    @property
    def nbytes(self) -> int:
        """Of its values, with every row seen."""
        return self.rows * self.row_bytes

    @property
    def row_bytes(self) -> int:
        return self.width * ITEM_BYTES[self.dtype]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return NUMPY_DTYPE[self.dtype]

    @property
    def ids_name(self) -> str:
        """The tensor that goes beside the values of some rows and says which they are: I64 [k]."""
        return self.name + SUFFIX


Tables = Mapping[str, DeclaredTable]


def expand_table(given: Json, name: str, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """The `rows` and `init` of a parameter, written out; nothing for one that is no table.

    Raises InvalidSpec naming the field.
    """
    where = f"parameters.{name}"
    mode, initial = given.get("rows"), given.get("init")
    if mode is None:
        if initial is not None:
            raise InvalidSpec(
                f"{where}.init is given, but the parameter is no table",
                field=f"{where}.init",
                hint='Add "rows": "lazy" to make it one, or upload its values.',
            )
        return {}
    _require_size(where, mode, shape, dtype)
    if initial is None:
        return {"rows": mode}
    return {"rows": mode, "init": expand_initial(initial, where=f"{where}.init")}


def require_rule_by_row(table: str, rule: str) -> None:
    """Raises InvalidSpec for a rule that needs the whole tensor where a push brings some rows."""
    if rule not in ELEMENTWISE:
        raise InvalidSpec(
            f"rule {rule!r} needs whole tensors; {table!r} is a table, updated row by row",
            field="optimizer.rule",
            hint='Give it another: "groups": [{"match": "emb", "optimizer": {"rule": "adagrad"}}].',
        )


def require_transforms_by_row(table: str, transforms: Json) -> None:
    """Raises InvalidSpec for a transform that is not the same for a row alone as for the whole table."""
    for name in transforms:
        if name not in TRANSFORMS_BY_ROW:
            raise InvalidSpec(
                f"transform {name!r} needs whole tensors; {table!r} is a table, updated row by row",
                field=f"transforms.{name}",
                hint=f"Tables take {' and '.join(TRANSFORMS_BY_ROW)}; {_instead(table, name)}",
            )


def _instead(table: str, transform: str) -> str:
    if transform in MODEL_WIDE:
        return f"{transform} is about a whole push, so leave it out or keep the table in a model of its own."
    group = f'{{"match": "{table}", "transforms": {{"{transform}": null}}}}'
    return f"a group may do without another of the model's: {group}."


def require_room(tables: Tables) -> None:
    """Raises InvalidSpec if all tables together are more than can be promised memory."""
    nbytes = sum(table.nbytes for table in tables.values())
    if nbytes > BYTES:
        raise InvalidSpec(
            f"the tables take {nbytes} bytes with every row seen; at most {BYTES} are held for a model",
            field="parameters",
            hint="Split the model.",
        )


def _require_size(where: str, mode: str, shape: tuple[int, ...], dtype: str) -> None:
    nbytes = prod(shape) * ITEM_BYTES[dtype]
    if not shape or 0 in shape or shape[0] > ROWS or nbytes > BYTES:
        raise InvalidSpec(
            f"{where}: a table of shape {list(shape)} cannot be held",
            field=f"{where}.shape",
            hint=f"1 to {ROWS} rows along the first axis, no extent of 0, at most {BYTES} bytes of values.",
        )
    if mode == "dense" and nbytes > DENSE_BYTES:
        raise InvalidSpec(
            f"{where}: every push would move all {nbytes} bytes of the table; in mode dense at most "
            f"{DENSE_BYTES} are allowed",
            field=f"{where}.rows",
            hint='Choose "lazy", which moves the rows of the push.',
        )
