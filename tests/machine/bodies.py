"""Tensor bodies and models made by hand, so that a test can choose order, dtype and alignment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Create, Json, Placement, Push, Tensors, Upload
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.device import Device
from gradledger_server.machine import spec as specs
from gradledger_server.machine import views
from gradledger_server.machine.apply import apply, begin
from gradledger_server.machine.gradient import gather, norm
from gradledger_server.machine.model import Model
from gradledger_server.machine.receipts import Receipt

Arrays = Mapping[str, NDArray[Any]]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPE_NAMES = {
    np.dtype("f2"): "F16",
    BFLOAT16: "BF16",
    np.dtype("f4"): "F32",
    np.dtype("f8"): "F64",
    np.dtype("i8"): "I64",
    np.dtype("i1"): "I8",
}
NUMPY = CpuDevice(compiled=False)


def body(arrays: Arrays, *, lead_bytes: int = 64) -> Tensors:
    """The arrays back to back in the order given, behind `lead_bytes` of no meaning, as a header is."""
    table, end = {}, 0
    for name, array in arrays.items():
        table[name] = Placement(DTYPE_NAMES[array.dtype], array.shape, end, end + array.nbytes)
        end += array.nbytes
    block = Blocks().take(lead_bytes + end)
    for name, array in arrays.items():
        place = table[name]
        block[lead_bytes + place.start : lead_bytes + place.stop] = np.frombuffer(array.tobytes(), np.uint8)
    payload = block.data
    return Tensors(table, payload, payload[lead_bytes:])


def spec(
    shapes: Mapping[str, tuple[int, ...]], *, dtypes: Mapping[str, str] | None = None, **given: Any
) -> Json:
    """An expanded spec; tensors are F32 unless `dtypes` says otherwise."""
    given.setdefault("optimizer", {"rule": "sgd", "lr": 0.5})
    chosen = dtypes or {}
    return specs.expand(
        given, {name: (shape, chosen.get(name, "F32")) for name, shape in shapes.items()}
    ).json


def model_of(values: Arrays, *, blocks: Blocks | None = None, device: Device = NUMPY, **given: Any) -> Model:
    """A model that begins with these values, on plain NumPy unless another device is named."""
    shapes = {name: array.shape for name, array in values.items()}
    dtypes = {name: DTYPE_NAMES[array.dtype] for name, array in values.items()}
    entry = Create(spec(shapes, dtypes=dtypes, **given), body(values), "first", 0)
    return begin(entry, device, blocks or Blocks())


def push(model: Model, gradient: Arrays, *, offset: int | None = None, **facts: Any) -> Receipt:
    """Applies a gradient as the log would; the receipt."""
    return push_body(model, body(gradient), offset=offset, **facts)


def push_body(model: Model, tensors: Tensors, *, offset: int | None = None, **facts: Any) -> Receipt:
    """Applies a gradient whose body the test has made itself."""
    length = norm(model.layout, gather(model.layout, tensors, model.blocks), NUMPY)
    named: dict[str, Any] = {"worker": None, "sequence": None, "key": None, "base": None} | facts
    entry = Push(
        tensors,
        named.pop("digest", "d"),
        weight=named.pop("weight", 1.0),
        grad_norm=length,
        durability="memory",
        at_ms=0,
        **named,
    )
    receipt = apply(model, model.step + 2 if offset is None else offset, entry)
    assert receipt is not None
    return receipt


def upload(model: Model, values: Arrays, digest: str = "u") -> None:
    """Applies an upload."""
    assert apply(model, model.step + 2, Upload(body(values), digest, 0)) is None


def weights_of(model: Model, view: str = views.TRAIN) -> dict[str, NDArray[Any]]:
    """The current parameters as the view shows them, copied, by name."""
    block, found = views.block(model, view), {}
    for place in model.layout.places:
        start, stop = model.layout.byte_range(place.tensor.name)
        dtype = model.layout.arenas[place.arena].numpy_dtype
        found[place.tensor.name] = block[start:stop].view(dtype).reshape(place.tensor.shape).copy()
    return found


def slots_of(model: Model) -> dict[str, NDArray[Any]]:
    """Every slot of every tensor, copied, as `<slot>/<name>`."""
    return {
        f"{slot}/{place.tensor.name}": values[
            model.slot_places[place.arena].here(slot, place.index, place.index + 1)
        ]
        .reshape(model.slot_places[place.arena].shape(slot, place.index))
        .copy()
        for place in model.layout.places
        for slot, values in zip(model.slot_places[place.arena].names, model.slots[place.arena], strict=True)
    }


def f32(*numbers: float) -> NDArray[np.float32]:
    return np.array(numbers, np.float32)


def noise(shape: tuple[int, ...], seed: int, dtype: Any = np.float32) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
