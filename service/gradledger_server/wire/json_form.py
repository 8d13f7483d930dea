"""The JSON form of tensors: nested lists of numbers by tensor name, for curl and for reading.

A body of this form becomes the same safetensors payload a binary client would have sent: in the model's
order and dtypes, so that the log knows one form only.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from gradledger_server.dtypes import NUMPY_DTYPE, SCALE_SUFFIX
from gradledger_server.entries import Tensors
from gradledger_server.errors import BodyTooLarge, MalformedBody, NonFinite, UnknownTensor, WrongDtype
from gradledger_server.wire import safetensors, strict

MEDIA_TYPE = "application/json"
DTYPES = ("F32", "F64", "I64")
RANK_MAX = 32

_NO_SCALES = f"JSON has the numbers themselves; I8 with scales is sent as {safetensors.MEDIA_TYPE}."


def parse(body: bytes | memoryview, limit_bytes: int | None = None) -> dict[str, Any]:
    """The JSON object in `body`. Raises BodyTooLarge and MalformedBody.

    Costs up to 30 times the body's memory: without `limit_bytes`, the caller has bounded it already.
    """
    if limit_bytes is not None and len(body) > limit_bytes:
        raise BodyTooLarge(
            f"the JSON body has {len(body)} bytes; at most {limit_bytes} are read",
            hint=f"Send the tensors as {safetensors.MEDIA_TYPE}.",
        )
    members = strict.loads(body, "the body")
    if not isinstance(members, dict):
        raise MalformedBody(
            f"the body is {strict.shown(members)}; expected a JSON object",
            hint="Send {…} with named members.",
        )
    return members


def tensors(named: Mapping[str, object], dtypes: Mapping[str, str]) -> Tensors:
    """Nested lists, row-major, by tensor name, as one safetensors payload in the order of `dtypes`.

    `dtypes` knows every tensor there may be; it may know more. A number alone is a scalar of shape [].
    Raises UnknownTensor, WrongDtype, MalformedBody (ragged lists, anything but numbers) and NonFinite (too
    large for the dtype), naming the tensor and the index.
    """
    for name in named:
        if name not in dtypes:
            raise UnknownTensor.among(name, dtypes, hint=_NO_SCALES if name.endswith(SCALE_SUFFIX) else None)
    arrays = [
        (name, dtype, _array(name, named[name], dtype)) for name, dtype in dtypes.items() if name in named
    ]
    parts = safetensors.encode([(name, dtype, array.shape, array) for name, dtype, array in arrays])
    return safetensors.decode(memoryview(b"".join(parts)))


def render(members: Mapping[str, Any]) -> bytes:
    """`members` as JSON; arrays become nested lists in the fewest digits that read back the same.

    NaN and infinity, for which JSON has no word, become null.
    """
    return orjson.dumps(members, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):  # one that orjson declines: a scalar, or strided
        return value[()] if value.ndim == 0 else np.ascontiguousarray(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _array(name: str, nested: object, dtype: str) -> NDArray[Any]:
    if dtype not in DTYPES:
        raise WrongDtype(
            f"tensor {strict.shown(name)} is {dtype}; JSON carries {' and '.join(DTYPES)} only",
            hint=f"Send it as {safetensors.MEDIA_TYPE}.",
            tensor=name,
        )
    numbers, shape = _flat(name, nested)
    if dtype == "I64":
        return _whole(name, numbers, shape)
    with np.errstate(over="ignore"):
        try:
            values = np.array(numbers, np.float64).astype(NUMPY_DTYPE[dtype])
            finite = np.isfinite(values)
        except OverflowError:  # a whole number beyond every float
            largest = float(np.finfo(np.float64).max)
            finite = np.array([abs(number) <= largest for number in numbers])
    if not finite.all():
        first = int(np.argmin(finite))
        raise NonFinite(
            f"tensor {strict.shown(name)} holds {strict.shown(numbers[first])} at {_index(first, shape)}; "
            f"{dtype} ends at {np.finfo(NUMPY_DTYPE[dtype]).max:.3g}",
            tensor=name,
        )
    return values.reshape(shape)


def _whole(name: str, numbers: list[Any], shape: tuple[int, ...]) -> NDArray[np.int64]:
    for position, number in enumerate(numbers):
        if type(number) is not int or not -(2**63) <= number < 2**63:
            got, where = strict.shown(number), _index(position, shape)
            raise _uneven(name, got, where, "a whole number of 64 bits")
    return np.array(numbers, np.int64).reshape(shape)


def _flat(name: str, nested: object) -> tuple[list[Any], tuple[int, ...]]:
    """The numbers row by row, and the shape. Works level by level, so a list may nest as deep as it likes."""
    shape: tuple[int, ...] = ()
    level: list[Any] = [nested]
    while level and type(level[0]) is list:
        width = len(level[0])
        for position, row in enumerate(level):
            if type(row) is not list or len(row) != width:
                got = f"a list of {len(row)}" if type(row) is list else strict.shown(row)
                raise _uneven(name, got, _index(position, shape), f"a list of {width} as in the rows before")
        shape = (*shape, width)
        if len(shape) > RANK_MAX:
            raise _uneven(
                name, f"more than {RANK_MAX} dimensions", "its first element", f"at most {RANK_MAX}"
            )
        level = list(chain.from_iterable(level))
    if not set(map(type, level)) <= {int, float}:
        position, got = next((p, v) for p, v in enumerate(level) if type(v) not in (int, float))
        raise _uneven(name, strict.shown(got), _index(position, shape), "a number")
    return level, shape


def _index(position: int, shape: tuple[int, ...]) -> str:
    return str([int(i) for i in np.unravel_index(position, shape)]) if shape else "[]"


def _uneven(name: str, got: str, where: str, expected: str) -> MalformedBody:
    return MalformedBody(
        f"tensor {strict.shown(name)} has {got} at {where}; expected {expected}",
        hint="Write a tensor as nested lists of numbers, row-major, all rows of one length.",
        tensor=name,
    )
