"""Where an answer's tensors land: in arrays of the caller's, used again and again, or in new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger import tensors
from gradledger.rows import Rows, joined
from gradledger.tensors import Params, Place


class Landing:
    """Reads the numbers of a safetensors body straight to where they belong.

    `out` holds arrays by name: writable, contiguous, little-endian. Raises ValueError for one that is not.
    Rows of tables among them are left alone: how many arrive differs from push to push.
    """

    def __init__(self, out: Mapping[str, Any]) -> None:
        self._out = {name: array for name, array in out.items() if not isinstance(array, Rows)}
        for name, array in self._out.items():
            _require_room(name, array)
        self._landed: list[tuple[Place, NDArray[np.uint8]]] = []

    def fill(self, read_into: Callable[[memoryview], None], length: int) -> None:
        """Reads a body of `length` bytes: its header, then each tensor's numbers into their place.

        Raises ValueError if an array given is not what the service sends, MalformedAnswer.
        """
        header = _header(read_into, length)
        places = tensors.places(header, length - 8 - len(header))
        self._landed = [(place, self._memory(place)) for place in places]
        for _, memory in self._landed:
            if memory.size:
                read_into(memory.data)

    def params(self) -> Params:
        """What has landed."""
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


def _header(read_into: Callable[[memoryview], None], length: int) -> bytes:
    size = bytearray(min(8, length))
    read_into(memoryview(size))
    header = bytearray(tensors.data_start(size, length) - len(size))
    read_into(memoryview(header))
    return bytes(header)


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
