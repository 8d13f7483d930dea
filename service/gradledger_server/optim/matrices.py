"""Rules that see a tensor in its shape: means over rows and columns, matrix products.

Called as the others are, but with `Tensor`s (`kernels/tensor.py`) and with plain numbers, once per tensor:
nothing is traced, so they may branch on anything. `eps` may have a mode here, because libraries differ in
whether it is added to something or is the least that it may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

from gradledger_server.kernels.operations import power, sqrt
from gradledger_server.kernels.tensor import Tensor
from gradledger_server.kernels.whole import norm
from gradledger_server.optim.hyperparameters import (
    FLOAT32_TINY,
    Decay,
    Dimension,
    Iterations,
    NonNegative,
    Positive,
    Rate,
    Real,
)
from gradledger_server.optim.signatures import Setting

Shape = tuple[int, ...]


def adafactor(
    w: Tensor,
    g: Tensor,
    r: Tensor,
    c: Tensor,
    v: Tensor,
    *,
    t: int,
    lr: Rate = 1e-2,
    beta2_decay: Positive = 0.8,
    eps: Positive = 2.0**-23,
    eps_mode: Literal["clamp", "add"] = "clamp",
    eps_scale: NonNegative = 1e-3,
    clip_threshold: Positive = 1.0,
    relative_step: bool = True,
    factored: Literal["last", "largest"] = "last",
    factored_from: Dimension = 0,
    weight_decay: NonNegative = 0.0,
    weight_decay_mode: Literal["decoupled", "first", "decoupled_abs"] = "decoupled",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Adafactor: a second moment of rows and columns. Shazeer & Stern 2018, Adafactor, Algorithm 4.

    Use: large matrices when memory is short: the mean of squares is kept as one number per row and one per
    column. Slightly less steady than Adam.

    Rows: dense only: the factored mean of squares and the clipping belong to the whole tensor.
    """
    if weight_decay_mode == "first":
        w = w - lr * weight_decay * w
    mixed_in = power(t, -beta2_decay)  # 1 - beta2 of this update
    q = g * g + eps if eps_mode == "add" else g * g
    least = FLOAT32_TINY if eps_mode == "add" else eps * eps
    axes = factored_axes(w.shape, factored, factored_from)
    if axes is None:
        v = (1 - mixed_in) * v + mixed_in * q
        u = g / sqrt(v.at_least(least))
    else:
        q = q.moved(axes)
        r = (1 - mixed_in) * r + mixed_in * q.row_means()
        c = (1 - mixed_in) * c + mixed_in * q.column_means()
        shares = r / r.column_means().at_least(eps if eps_mode == "clamp" else FLOAT32_TINY)
        u = g / sqrt((shares * c).at_least(least).returned(axes))
    u = u / max(1.0, u.rms / clip_threshold)
    rate = min(lr, 1 / math.sqrt(t)) if relative_step else lr
    decayed = {"decoupled": lr * weight_decay, "first": 0.0, "decoupled_abs": weight_decay}[weight_decay_mode]
    return w - decayed * w - max(eps_scale, w.rms) * rate * u, r, c, v


def factored_axes(shape: Shape, factored: Setting, factored_from: Setting) -> tuple[int, int] | None:
    """The axes of the rows and columns that have a second moment; None: every element has its own."""
    if len(shape) < 2:
        return None
    rows, columns = len(shape) - 2, len(shape) - 1
    if factored == "largest":
        rows, columns = sorted(range(len(shape)), key=shape.__getitem__)[-2:]
    return (rows, columns) if min(shape[rows], shape[columns]) >= float(factored_from) else None


def adafactor_slots(optimizer: Mapping[str, Setting], shape: Shape) -> dict[str, Shape]:
    """A number per row and one per column, or one per element."""
    axes = factored_axes(shape, optimizer["factored"], optimizer["factored_from"])
    if axes is None:
        return {"v": shape}
    rows, columns = axes
    others = tuple(extent for axis, extent in enumerate(shape) if axis not in axes)
    return {"r": (*others, shape[rows], 1), "c": (*others, 1, shape[columns])}


def muon(
    w: Tensor,
    g: Tensor,
    u: Tensor,
    *,
    t: int,
    lr: Rate = 1e-3,
    momentum: Decay = 0.95,
    velocity: Literal["ema", "sum", "corrected"] = "ema",
    nesterov: bool = True,
    ns_a: Real = 3.4445,
    ns_b: Real = -4.7750,
    ns_c: Real = 2.0315,
    ns_steps: Iterations = 5,
    eps: Positive = 1e-7,
    eps_mode: Literal["clamp", "add"] = "clamp",
    rows_are: Literal["out", "in"] = "out",
    shape_scale: Literal["width", "rms", "spectral", "none"] = "width",
    rms_rate: Positive = 0.2,
    weight_decay: NonNegative = 0.1,
) -> tuple[Tensor, Tensor]:
    """Muon: a velocity whose singular values are all near 1. Jordan et al. 2024, Muon (blog post).

    Use: the hidden matrices of a network: the momentum is made nearly orthogonal, so all directions learn at
    one speed. Leave embeddings, heads, biases and norms to adamw, in a group.

    Rows: dense only: orthogonalising needs the whole matrix.
    """
    entering = 1.0 if velocity == "sum" else 1 - momentum
    u = momentum * u + entering * g
    x = u
    if velocity == "corrected":
        x = x / (1 - power(momentum, t + nesterov))
        g = g / (1 - power(momentum, t))
    if nesterov:
        x = momentum * x + entering * g
    x = orthogonalized(x, (ns_a, ns_b, ns_c), ns_steps, eps, eps_mode)
    rate = lr * _shape_scale(w.shape, rows_are, shape_scale, rms_rate)
    return w - lr * weight_decay * w - rate * x, u


def orthogonalized(
    x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float, eps_mode: str
) -> Tensor:
    """The matrix with its singular values drawn towards 1, by the quintic Newton-Schulz iteration."""
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    x = x.transposed if tall else x
    length = norm(x)
    x = x / (length + eps if eps_mode == "add" else max(length, eps))
    for _ in range(steps):
        gram = x @ x.transposed
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.transposed if tall else x


def _shape_scale(shape: Shape, rows_are: str, shape_scale: str, rms_rate: float) -> float:
    """How large an update of this shape should be, if one of a square matrix has size 1 (or `rms_rate`)."""
    out, into = shape if rows_are == "out" else shape[::-1]
    match shape_scale:
        case "width":
            return math.sqrt(max(1.0, out / max(into, 1)))
        case "rms":
            return rms_rate * math.sqrt(max(out, into))
        case "spectral":
            return math.sqrt(out / max(into, 1))
    return 1.0


def only_matrices(shape: Shape) -> str | None:
    """Why a tensor of this shape cannot be in a group with this rule; None if it can."""
    return (
        None
        if len(shape) == 2
        else f"has {len(shape)} dimensions; muon orthogonalizes matrices, which have 2"
    )


MATRIX_RULES: dict[str, Callable[..., tuple[Tensor, ...]]] = {"adafactor": adafactor, "muon": muon}

SLOT_SHAPES: dict[str, Callable[[Mapping[str, Setting], Shape], dict[str, Shape]]] = {
    "adafactor": adafactor_slots
}

REFUSES: dict[str, Callable[[Shape], str | None]] = {"muon": only_matrices}

EQUATIONS = {
    "adafactor": r" \\ ".join(
        (
            r"\beta_{2t} = 1 - t^{-\gamma}",
            r"r_t = \beta_{2t} r_{t-1} + \left(1 - \beta_{2t}\right) \mathrm{mean}_{\mathrm{row}}~ g_t^2",
            r"c_t = \beta_{2t} c_{t-1} + \left(1 - \beta_{2t}\right) \mathrm{mean}_{\mathrm{column}}~ g_t^2",
            r"v_t = \frac{r_t c_t}{\mathrm{mean}~ r_t}",
            r"x_t = \frac{g_t}{\sqrt{v_t}}",
            r"w_t = w_{t-1} - \max\left(\epsilon_s, \mathrm{rms}~ w_{t-1}\right)"
            r" \min\left(\eta_t, \frac{1}{\sqrt{t}}\right)"
            r" \frac{x_t}{\max\left(1, \frac{\mathrm{rms}~ x_t}{d}\right)}",
        )
    ),
    "muon": r" \\ ".join(
        (
            r"u_t = \mu u_{t-1} + \left(1 - \mu\right) g_t",
            r"x_t = \mu u_t + \left(1 - \mu\right) g_t",
            r"X_0 = \frac{x_t}{\lVert x_t \rVert}",
            r"A_i = X_i X_i^T",
            r"X_{i+1} = a X_i + \left(b A_i + c A_i^2\right) X_i",
            r"w_t = w_{t-1} - \eta_t \lambda w_{t-1} - \eta_t s X_5",
        )
    ),
}
"""What cannot be traced, as printed: with the defaults, for matrices."""
