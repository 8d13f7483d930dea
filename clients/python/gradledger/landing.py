"""Where an answer's tensors land: in arrays of the caller's, used again and again, or in new ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger import tensors
from gradledger.errors import MalformedAnswer
from gradledger.rows import Rows, joined
from gradledger.tensors import Params, Place


class Landing:
    """Takes the bytes of a safetensors body as they come and puts the numbers where they belong.

    `out` holds arrays by name: writable, contiguous, little-endian. Raises ValueError for one that is not.
    Rows of tables among them are left alone: how many arrive differs from push to push.
    """

    def __init__(self, out: Mapping[str, Any]) -> None:
        self._out = {name: array for name, array in out.items() if not isinstance(array, Rows)}
        for name, array in self._out.items():
            _require_room(name, array)
        self.begin()

    def begin(self) -> None:
        """A body begins, perhaps once more after one that was cut off."""
        self._head = bytearray()
        self._landed: list[tuple[Place, NDArray[np.uint8]]] = []
        self._rooms: deque[memoryview] | None = None  # to be filled, once the header is known

    def take(self, piece: bytes | memoryview, length: int) -> None:
        """The next bytes of a body of `length` bytes.

        Raises ValueError if an array given is not what the service sends, MalformedAnswer.
        """
        rest = memoryview(piece)
        if self._rooms is None:
            self._head += rest
            start = tensors.data_start(self._head, length)
            if start is None or len(self._head) < start:
                return
            places = tensors.places(bytes(self._head[8:start]), length - start)
            self._landed = [(place, self._memory(place)) for place in places]
            self._rooms = deque(memory.data for _, memory in self._landed if memory.size)
            rest = memoryview(bytes(self._head[start:]))
        while rest:
            room = self._rooms.popleft()
            taken = min(len(room), len(rest))
            room[:taken] = rest[:taken]
            if taken < len(room):
                self._rooms.appendleft(room[taken:])
            rest = rest[taken:]

    def params(self) -> Params:
        """What has landed. Raises MalformedAnswer if the body ended too early."""
        if self._rooms is None or self._rooms:
            raise MalformedAnswer("the safetensors body ends before its last tensor")
        return joined({place.name: self._array(place, memory) for place, memory in self._landed})

    def copy(self, params: Params) -> Params:
        """The same for parameters that are here already."""
        for name in params.keys() & self._out.keys():
            self._require(name, params[name].dtype, params[name].shape)
            np.copyto(self._out[name], params[name])
        return {name: self._out.get(name, value) for name, value in params.items()}

    def _memory(self, place: Place) -> NDArray[np.uint8]:
        if place.name not in self._out:
            return np.empty(place.stop - place.start, np.uint8)
        self._require(place.name, place.stored_dtype, place.shape)
        memory: NDArray[np.uint8] = self._out[place.name].reshape(-1).view(np.uint8)
        return memory

    def _array(self, place: Place, memory: NDArray[np.uint8]) -> NDArray[Any]:
        given: NDArray[Any] | None = self._out.get(place.name)
        if given is not None:
            return given
        memory.flags.writeable = False
        return place.view(memory)

    def _require(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        given = self._out[name]
        if (given.dtype, given.shape) != (dtype, shape):
            raise ValueError(
                f"out[{name!r}] is {given.dtype} of shape {given.shape}; the service sends {dtype} of {shape}"
            )


def _require_room(name: str, array: Any) -> None:
    if not isinstance(array, np.ndarray):
        wrong = f"{type(array).__name__}, not an array"
    elif not array.flags.writeable:
        wrong = "read-only, as parameters that were answered are: copy it once"
    elif not array.flags.c_contiguous:
        wrong = "not contiguous"
    elif array.dtype != array.dtype.newbyteorder("<"):
        wrong = "not little-endian"
    else:
        return
    raise ValueError(f"out[{name!r}] is {wrong}; expected an array such as np.empty(shape, np.float32)")
