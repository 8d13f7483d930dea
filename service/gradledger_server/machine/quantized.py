"""Gradients as whole numbers: `w` I8 beside `w#scale` F32 [⌈n / 256⌉], a scale for each block of elements.

Flat element i (row-major) stands for w[i] · scale[⌊i / 256⌋] (dtypes.dequantize). The log keeps both tensors
as they came, and each replay multiplies anew: the product is the same bits everywhere.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger_server.dtypes import (
    NUMPY_DTYPE,
    SCALE_BLOCK,
    SCALE_SUFFIX,
    blocks_of,
    dequantize,
    widen,
)
from gradledger_server.entries import Tensors
from gradledger_server.errors import NonFinite, WrongScale
from gradledger_server.machine.placements import require_dtype, require_shape

DTYPE = "I8"

_INFINITY = 0x7F800000  # as the bits of a float32


def numbers(
    tensors: Tensors, name: str, target: np.dtype[Any], out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """A checked tensor's numbers as a flat array of `target`, in `out` if given; else a view if possible."""
    dtype = tensors.table[name].dtype
    if dtype == DTYPE:
        return dequantize(tensors[name], tensors[name + SCALE_SUFFIX], target, out)
    return widen(tensors[name], dtype, target, out)


def require_scales(tensors: Tensors, name: str) -> None:
    """Raises WrongScale, WrongDtype, WrongShape or NonFinite unless I8 `name` has the scales it needs."""
    beside = name + SCALE_SUFFIX
    sent = tensors.table.get(beside)
    if sent is None:
        raise WrongScale(f"tensor {name!r} is {DTYPE}, but {beside!r} is not in the body", tensor=name)
    require_dtype(beside, sent, ("F32",))
    elements = prod(tensors.table[name].shape)
    why = f"a scale for each {SCALE_BLOCK} of the {elements} elements of {name!r}"
    require_shape(beside, sent, (blocks_of(elements),), why)
    scales = np.frombuffer(tensors[beside], NUMPY_DTYPE["F32"])
    # Read as unsigned, what is negative, infinite or no number is a large one: one pass finds them all.
    if scales.size and scales.view(np.uint32).max() >= _INFINITY:
        _refuse(name, scales)


def require_scaled(tensors: Tensors, scales: str) -> None:
    """Raises WrongScale unless an I8 tensor stands beside its `scales`."""
    name = scales.removesuffix(SCALE_SUFFIX)
    scaled = tensors.table.get(name)
    if scaled is None or scaled.dtype != DTYPE:
        got = "not in the body" if scaled is None else scaled.dtype
        raise WrongScale(f"{scales!r} has scales for {name!r}, which is {got}; expected {DTYPE}", tensor=name)


def _refuse(name: str, scales: NDArray[np.float32]) -> None:
    block = int(np.argmax(scales.view(np.uint32) >= _INFINITY))
    scale = f"{name + SCALE_SUFFIX}[{block}] is {float(scales[block])}"
    if np.isfinite(scales[block]):
        raise WrongScale(f"{scale}; a scale is never negative", tensor=name, index=[block])
    raise NonFinite(f"tensor {name!r} holds NaN or infinite numbers: {scale}", tensor=name, index=[block])
