"""What a worker computed, and the form it goes out in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from gradledger import tensors
from gradledger.compression import Residual, Wire, compressed
from gradledger.rows import Rows, spread
from gradledger.transport import Body

Gradients = Mapping[str, ArrayLike | Rows]
Form = Wire | Residual | None  # None: as they are


def encoded(grads: Gradients, form: Form = None, order: Sequence[str] = ()) -> Body:
    """The body that brings them, its tensors in the service's `order` where that is known.

    Raises TypeError for what is no mapping.
    """
    require_names(grads)
    if form is None:
        return Body(tensors.MEDIA_TYPE, tensors.encode(spread(grads), order))
    arrays = form.compressed(grads) if isinstance(form, Residual) else compressed(grads, form)
    return Body(tensors.MEDIA_TYPE, tensors.encode(arrays, order))


def copied(grads: Gradients) -> dict[str, ArrayLike | Rows]:
    """The same numbers in memory of their own. Raises TypeError for what is no mapping."""
    require_names(grads)
    return {
        name: Rows(given.ids.copy(), given.values.copy()) if isinstance(given, Rows) else np.array(given)
        for name, given in grads.items()
    }


def require_names(given: object) -> None:
    """Raises TypeError for what is no mapping: one array alone, as a rule."""
    if not isinstance(given, Mapping):
        raise TypeError(f"got {type(given).__name__}; expected arrays by tensor name, such as {{'w': array}}")
