"""What a request asks for besides what its path names: the form of the answer, the view, the patience."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from gradledger.tensors import MEDIA_TYPE

PARAMETERS = {"Accept": MEDIA_TYPE}
RECEIPT = {"Accept": "application/json", "Prefer": "return=minimal"}
TRAIN = "train"  # the view that gradients are computed at


def patient(headers: Mapping[str, str], wait_s: float) -> dict[str, str]:
    """The headers, with how long the service may take; it counts whole seconds."""
    preferred = [headers[name] for name in ("Prefer",) if name in headers]
    wished = [*preferred, f"wait={ceil(wait_s)}"] if wait_s else preferred
    return {**headers, "Prefer": ", ".join(wished)} if wished else dict(headers)


def viewed(view: str) -> dict[str, str]:
    """The query that asks for a view."""
    return {} if view == TRAIN else {"view": view}
