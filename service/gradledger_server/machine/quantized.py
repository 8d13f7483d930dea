"""Gradients as whole numbers: `w` I8 beside `w#scale` F32 [⌈n / 256⌉], a scale for each block of elements.

Flat element i (row-major) stands for w[i] · scale[⌊i / 256⌋] (dtypes.dequantize). The log keeps both tensors
as they came, and each replay multiplies anew: the product is the same bits everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from gradledger_server.errors import WrongScale
from gradledger_server.machine.placements import require_dtype, require_shape

DTYPE = "I8"


def numbers(
    tensors: Tensors, name: str, target: np.dtype[Any], out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """A checked tensor's numbers as a flat array of `target`, in `out` if given; else a view if possible."""
    dtype = tensors.table[name].dtype
    if dtype == DTYPE:
        return dequantize(tensors[name], tensors[name + SCALE_SUFFIX], target, out)
    return widen(tensors[name], dtype, target, out)


def check(tensors: Tensors, names: Sequence[str]) -> None:
    """Raises WrongScale, WrongDtype or WrongShape unless each of these I8 tensors has its scales.

    A scale may be NaN or infinite, and so is every number of its block then: they are found where numbers
    are measured, whatever they came in.
    """
    for name in names:
        _require_scales(tensors, name)
    joined = b"".join(tensors[name + SCALE_SUFFIX] for name in names)
    if _negative(np.frombuffer(joined, NUMPY_DTYPE["F32"])).any():
        for name in names:
            _refuse_negative(tensors, name)


def require_scaled(tensors: Tensors, scales: str) -> None:
    """Raises WrongScale unless an I8 tensor stands beside its `scales`."""
    name = scales.removesuffix(SCALE_SUFFIX)
    scaled = tensors.table.get(name)
    if scaled is None or scaled.dtype != DTYPE:
        got = "not in the body" if scaled is None else scaled.dtype
        raise WrongScale(f"{scales!r} has scales for {name!r}, which is {got}; expected {DTYPE}", tensor=name)


def _require_scales(tensors: Tensors, name: str) -> None:
    beside = name + SCALE_SUFFIX
    sent = tensors.table.get(beside)
    if sent is None:
        raise WrongScale(f"tensor {name!r} is {DTYPE}, but {beside!r} is not in the body", tensor=name)
    place = tensors.table[name]
    elements = place.stop - place.start  # of one byte each
    expected = (blocks_of(elements),)
    require_dtype(beside, sent, ("F32",))
    if sent.shape != expected:
        why = f"a scale for each {SCALE_BLOCK} of the {elements} elements of {name!r}"
        require_shape(beside, sent, expected, why)


def _negative(scales: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which have a minus sign, -0 and -inf included; that of a NaN means nothing."""
    return np.signbit(scales) & ~np.isnan(scales)


def _refuse_negative(tensors: Tensors, name: str) -> None:
    scales = np.frombuffer(tensors[name + SCALE_SUFFIX], NUMPY_DTYPE["F32"])
    if (negative := _negative(scales)).any():
        block = int(np.argmax(negative))
        raise WrongScale(
            f"{name + SCALE_SUFFIX}[{block}] is {float(scales[block])}; a scale has no minus sign",
            tensor=name,
            index=[block],
        )
