"""Models of one table, `emb`, what is pushed to its rows, and all that is held of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Create, Json
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.machine import image
from gradledger_server.machine import spec as specs
from gradledger_server.machine.apply import begin
from gradledger_server.machine.image import Image
from gradledger_server.machine.model import Model
from gradledger_server.wire import safetensors
from tests.machine.bodies import NUMPY, push

SHAPE = (7, 3)


def table_spec(
    shape: tuple[int, ...] = SHAPE,
    dtype: str = "F32",
    rows: str = "lazy",
    init: Json | None = None,
    **given: Any,
) -> specs.Spec:
    given.setdefault("optimizer", {"rule": "sgd", "lr": 0.5})
    table = {"rows": rows, "init": {"name": "zeros"} if init is None else init}
    return specs.expand(given, {"emb": (shape, dtype)}, {"emb": table})


def table_model(*, device: CpuDevice = NUMPY, **given: Any) -> Model:
    """A model of one table, `emb`."""
    return begin(Create(table_spec(**given).json, None, None, 0), device, Blocks())


def touch(model: Model, rows: list[int], values: NDArray[Any]) -> None:
    push(model, {"emb": values, "emb#rows": np.array(rows, np.int64)})


def whole(model: Model) -> NDArray[Any]:
    table = model.tables["emb"]
    return table.look(None)().reshape(table.declared.shape)


def through_a_snapshot(model: Model) -> Model:
    taken = image.copy(model)
    parts = [safetensors.header(taken.tensors), *(part.tobytes() for part in taken.parts)]
    tensors = safetensors.decode(memoryview(b"".join(parts)), safetensors.OWN)
    return image.restore(taken.facts, tensors, model.device, Blocks())


def bits(taken: Image) -> list[Any]:
    return [taken.tensors, taken.facts, [part.tobytes() for part in taken.parts]]
