"""Gradients in fewer bytes: BF16 takes half of float32's, int8 with a scale for each block a quarter.

    params, receipt = model.push(grads, wire="int8")
    params, receipt = model.push({**compressed({"w": g}, "int8"), "b": b})     some tensors only

    residual = Residual("int8")
    params, receipt = model.push(grads, wire=residual)     what was lost comes with the next push

On the wire int8 `w` has its scales beside it, float32 [⌈n / 256⌉], under `w#scale`: element i (row-major) is
w[i] * scale[i // 256]. Numbers that are not finite stay so: the service refuses them, naming the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradledger.rows import SUFFIX as ROWS
from gradledger.rows import Rows, spread

Wire = Literal["bf16", "int8"]

BLOCK = 256  # elements that share a scale
SCALE = "#scale"
LARGEST = 127  # -128 is not used, so that a gradient and its negative lose the same

_PIECE_BLOCKS = 256  # worked on at a time: 256 KiB of float32 stay in the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """Whole numbers of an array's shape, and a float32 scale for each block of 256 elements."""

    values: NDArray[np.int8]
    scales: NDArray[np.float32]

    def widen(self) -> NDArray[np.float32]:
        """The numbers they stand for, as the service reads them for a float32 parameter."""
        wide = np.empty(self.values.shape, np.float32)
        flat, values = wide.reshape(-1), self.values.reshape(-1)
        with np.errstate(all="ignore"):
            for elements, blocks in _pieces(flat.size):
                scales = self.scales[blocks, None]
                rows = values[elements].reshape(scales.size, -1)
                np.multiply(rows, scales, out=flat[elements].reshape(rows.shape))
        return wide


@dataclass(frozen=True, slots=True, eq=False)
class BFloat16:
    """The upper halves of float32 numbers, as bits."""

    bits: NDArray[np.uint16]

    def widen(self) -> NDArray[np.float32]:
        """The same numbers, as float32."""
        wide = np.empty(self.bits.shape, np.uint32)
        np.left_shift(self.bits, 16, out=wide, dtype=np.uint32)
        return wide.view(np.float32)


def quantized(array: ArrayLike) -> Quantized:
    """The array as int8: each block's largest magnitude becomes 127, the others round half to even.

    It is taken as float32. A block of zeros has scale 0; in a block with NaN or infinity the scale is not
    finite either.
    """
    numbers = _float32(array)
    flat = numbers.reshape(-1)
    values, scales = np.empty(flat.size, np.int8), np.empty(-(-flat.size // BLOCK), np.float32)
    for elements, blocks in _pieces(flat.size):
        rows = flat[elements].reshape(blocks.stop - blocks.start, -1)
        whole, scales[blocks] = _rounded(rows)
        values[elements] = whole.reshape(-1)
    return Quantized(values.reshape(numbers.shape), scales)


def bfloat16(array: ArrayLike) -> BFloat16:
    """The array, taken as float32, rounded to the nearest bfloat16, half to even; NaN stays NaN.

    What is larger than every bfloat16 becomes infinite.
    """
    numbers = _float32(array)
    flat = numbers.reshape(-1)
    halves = np.empty(flat.size, np.uint16)
    for elements, _ in _pieces(flat.size):
        wide = flat[elements].view(np.uint32)
        half = (wide + ((wide >> 16 & 1) + 0x7FFF)) >> 16
        nan = np.isnan(flat[elements])
        if nan.any():  # the carry would make some of them infinite
            half[nan] = wide[nan] >> 16 | 0x40
        halves[elements] = half
    return BFloat16(halves.reshape(numbers.shape))


def compressed(grads: Mapping[str, ArrayLike | Rows], wire: Wire) -> dict[str, Any]:
    """The gradients as `push` sends them in this form: "bf16" or "int8". Of `Rows` the values are compressed.

    Raises ValueError for another form.
    """
    sent: dict[str, Any] = {}
    for name, array in spread(grads).items():
        sent |= {name: array} if name.endswith(ROWS) else _named(name, _smaller(array, wire))
    return sent


class Residual:
    """Error feedback: what compression lost of a tensor is added to its next gradient.

    Seide et al. 2014, 1-bit stochastic gradient descent; Karimireddy et al. 2019, Error feedback fixes
    SignSGD, algorithm 2. One worker's own. What was sent and what was lost are together the gradient and what
    was lost before, so over many pushes nothing is lost but the last residual. Tables' rows, which are others
    each time, are compressed without it.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire: Wire = wire
        self.lost: dict[str, NDArray[np.float32]] = {}
        self._next: dict[str, NDArray[np.float32]] = {}

    def compressed(self, grads: Mapping[str, ArrayLike | Rows]) -> dict[str, Any]:
        """The gradients and what was lost before them, compressed; `settle` says that they were taken.

        Raises ValueError for numbers that are not finite, which would stay in the residual for ever, and for
        a shape that is another than the last one; nothing has changed then.
        """
        arrays = spread(grads)
        sent: dict[str, Any] = {}
        lost: dict[str, NDArray[np.float32]] = {}
        for name, array in arrays.items():
            if name.endswith(ROWS):
                sent[name] = array
            elif name + ROWS in arrays:
                sent |= _named(name, _smaller(array, self.wire))
            else:
                smaller, lost[name] = self._fed_back(name, _float32(array))
                sent |= _named(name, smaller)
        self._next = lost
        return sent

    def settle(self) -> None:
        """What was compressed last is in the log: what it lost belongs to the next gradient."""
        self.lost |= self._next
        self._next = {}

    def _fed_back(
        self, name: str, numbers: NDArray[np.float32]
    ) -> tuple[Quantized | BFloat16, NDArray[np.float32]]:
        before = self.lost.get(name)
        if before is not None and before.shape != numbers.shape:
            raise ValueError(
                f"the gradient of {name!r} has shape {numbers.shape}; the last had {before.shape}"
            )
        with np.errstate(all="ignore"):
            due = numbers if before is None else numbers + before
            smaller = _smaller(due, self.wire)
            lost = due - smaller.widen()
        if not np.isfinite(lost).all():
            raise ValueError(f"the gradient of {name!r} holds numbers that are not finite, or too large")
        return smaller, lost


def _rounded(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Whole numbers for some blocks, one to a row, and the blocks' scales."""
    with np.errstate(all="ignore"):
        # The magnitude once more: of zeros it may be -0, which is no scale.
        scales = np.abs(np.maximum(rows.max(axis=1), -rows.min(axis=1))) / np.float32(LARGEST)
        usable = (scales > 0) & (scales < np.inf)
        whole = np.divide(rows, np.where(usable, scales, np.inf)[:, None], dtype=np.float32)
        np.rint(whole, out=whole)
        np.clip(whole, -LARGEST, LARGEST, out=whole)  # a scale below the normal numbers is a coarse one
        if not np.isfinite(scales).all():
            np.nan_to_num(whole, copy=False)
    return whole, scales


def _smaller(array: ArrayLike, wire: Wire) -> Quantized | BFloat16:
    if wire == "int8":
        return quantized(array)
    if wire == "bf16":
        return bfloat16(array)
    raise ValueError(f"wire is {wire!r}; expected 'bf16' or 'int8'")


def _named(name: str, smaller: Quantized | BFloat16) -> dict[str, Any]:
    """As a body holds it."""
    if isinstance(smaller, BFloat16):
        return {name: smaller}
    return {name: smaller.values, name + SCALE: smaller.scales}


def _float32(array: ArrayLike) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32, order="C")


def _pieces(size: int) -> Iterator[tuple[slice, slice]]:
    """Elements and their blocks, some whole blocks at a time; the last one may be a shorter block."""
    full = size // BLOCK
    for first in range(0, full, _PIECE_BLOCKS):
        last = min(first + _PIECE_BLOCKS, full)
        yield slice(first * BLOCK, last * BLOCK), slice(first, last)
    if size % BLOCK:
        yield slice(full * BLOCK, size), slice(full, full + 1)
