"""What a tensor of a body must be: its dtype and its shape. Nothing is cast in silence, nothing broadcast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradledger_server.entries import Placement
from gradledger_server.errors import WrongDtype, WrongShape


def require_dtype(name: str, sent: Placement, dtypes: Sequence[str]) -> None:
    """Raises WrongDtype unless it is one of `dtypes`."""
    if sent.dtype not in dtypes:
        raise WrongDtype(
            f"tensor {name!r} has dtype {sent.dtype}; expected one of {', '.join(dtypes)}",
            tensor=name,
            got=sent.dtype,
            expected=list(dtypes),
        )


def beyond(number: np.floating[Any]) -> str:
    """Why a number may be infinite that was not when it was sent, in words that follow the others."""
    if not np.isinf(number):
        return ""
    return f"; beyond {np.finfo(number.dtype).max:.3g} all numbers are infinite in {number.dtype}"


def require_shape(name: str, sent: Placement, expected: tuple[int, ...], why: str = "") -> None:
    """Raises WrongShape unless it is exactly `expected`; `why` says where that comes from."""
    if sent.shape != expected:
        raise WrongShape(
            f"tensor {name!r} has shape {list(sent.shape)}; expected {list(expected)}"
            + (f": {why}" if why else ""),
            tensor=name,
            got=list(sent.shape),
            expected=list(expected),
        )
