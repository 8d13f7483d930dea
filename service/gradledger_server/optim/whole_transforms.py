"""Gradient transforms that see a whole tensor: its norm, or its shape. Traced like the others.

`norm` and the operations on units part the program into stages, so they may stand anywhere in a chain, before
any rule.
"""

# ruff: noqa: ARG001  transforms of one kind take the same arguments, needed or not

from __future__ import annotations

from typing import Annotated, Literal

from gradledger_server.kernels.operations import Value
from gradledger_server.kernels.whole import centralized, clip_factor, clipped_columns, clipped_rows, norm
from gradledger_server.optim.hyperparameters import Bounds


def clip_norm(
    w: Value,
    g: Value,
    *,
    max_norm: Annotated[float, Bounds(0, above=True), "the longest that one tensor's gradient may be"],
    clip_eps: Annotated[float, Bounds(0), "added to the norm (PyTorch: 1e-6)"] = 0.0,
) -> Value:
    """A tensor's gradient longer than max_norm is made as long as that. Pascanu et al. 2013, Algorithm 1.

    Use: when tensors differ so much in scale that one would use up the bound of all; the direction of the
    whole push changes.
    """
    return g * clip_factor(norm(g), max_norm, clip_eps)


def agc(
    w: Value,
    g: Value,
    *,
    clipping: Annotated[float, Bounds(0, above=True), "how long a unit may be beside its weights"] = 0.01,
    unit_eps: Annotated[float, Bounds(0, above=True), "the least that a unit's weights count as"] = 1e-3,
    rows_are: Annotated[
        Literal["in", "out"], "in: tensors are [..., in, out] (JAX, Keras); out: [out, in, ...] (PyTorch)"
    ] = "in",
) -> Value:
    """Adaptive gradient clipping, unit by unit. Brock et al. 2021, High-Performance Normalizer-Free.

    Use: deep networks without normalisation layers: a gradient is bounded by the size of the weights it
    moves.
    """
    clipped = clipped_columns if rows_are == "in" else clipped_rows
    return clipped(w, g, clipping, unit_eps)


def centralize(w: Value, g: Value) -> Value:
    """The mean over all axes but the first is taken away. Yong et al. 2020, Gradient Centralization.

    Use: convolutional and dense layers trained with momentum; it takes the mean out of each output's gradient
    and costs nothing.
    """
    return centralized(g)
