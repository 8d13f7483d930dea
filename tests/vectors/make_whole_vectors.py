"""Writes whole.json beside this file: trajectories of other libraries' optimizers that see whole tensors.

Run with a Python that has PyTorch, optax and Keras; the suite itself needs only what is committed. Weights
and gradients are drawn once in float64 and rounded to float32 for the float32 runs.

PyTorch's Muon iterates in bfloat16, which no two backends round alike and NumPy does not have. Here its
cast to bfloat16 is made to do nothing, so that the rest of it, in the weights' own dtype, is the oracle.
Keras takes means and norms of float64 in float32, optax Adafactor's decay: in the float64 runs they are made
to take them in float64.
"""

# mypy: ignore-errors
# (jax, optax and Keras are where this script runs, not where the suite does)

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import optax.contrib
import torch

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")

SEED = 20170813
STEPS = 22
SHAPES: dict[str, list[int]] = {
    "matrix": [4, 3],
    "wide": [3, 5],
    "bias": [5],
    "kernel": [2, 3, 4],
    "zeros": [2, 2],
    "silent": [3, 2],
}
"""`zeros` begins at zero; `silent` gets no gradient but zeros."""
MATRICES = ["matrix", "wide", "zeros", "silent"]
DTYPES = {"F32": "float32", "F64": "float64"}

Case = tuple[str, str, str, dict[str, Any], dict[str, Any], list[str]]

# Name, library, its optimizer, its arguments, our optimizer, which tensors.
CASES: list[Case] = [
    (
        "lars",
        "optax",
        "lars",
        {"learning_rate": 0.5},
        {"rule": "lars", "preset": "optax", "lr": 0.5},
        [*SHAPES],
    ),
    (
        "lars decayed",
        "optax",
        "lars",
        {"learning_rate": 0.5, "weight_decay": 0.1, "eps": 1e-3, "trust_coefficient": 0.02, "momentum": 0.8},
        {
            "rule": "lars",
            "preset": "optax",
            "lr": 0.5,
            "weight_decay": 0.1,
            "trust_eps": 1e-3,
            "trust": 0.02,
            "momentum": 0.8,
        },
        [*SHAPES],
    ),
    (
        "lamb",
        "optax",
        "lamb",
        {"learning_rate": 0.01},
        {"rule": "lamb", "preset": "optax", "lr": 0.01},
        [*SHAPES],
    ),
    (
        "lamb decayed",
        "optax",
        "lamb",
        {"learning_rate": 0.01, "weight_decay": 0.1, "eps_root": 1e-8, "b1": 0.8},
        {"rule": "lamb", "preset": "optax", "lr": 0.01, "weight_decay": 0.1, "eps_root": 1e-8, "beta1": 0.8},
        [*SHAPES],
    ),
    (
        "lamb, keras",
        "keras",
        "Lamb",
        {"learning_rate": 0.01},
        {"rule": "lamb", "preset": "keras", "lr": 0.01},
        [*SHAPES],
    ),
    (
        "lamb decayed, keras",
        "keras",
        "Lamb",
        {"learning_rate": 0.01, "weight_decay": 0.1},
        {"rule": "lamb", "preset": "keras", "lr": 0.01, "weight_decay": 0.1},
        [*SHAPES],
    ),
    (
        "adafactor, torch",
        "torch",
        "Adafactor",
        {"eps": [2.0**-23, 1e-3]},
        {"rule": "adafactor", "preset": "torch"},
        [*SHAPES],
    ),
    (
        "adafactor decayed, torch",
        "torch",
        "Adafactor",
        {"eps": [1e-3, 0.1], "lr": 0.5, "weight_decay": 0.1, "beta2_decay": -0.5, "d": 2.0},
        {
            "rule": "adafactor",
            "preset": "torch",
            "lr": 0.5,
            "eps": 1e-3,
            "eps_scale": 0.1,
            "weight_decay": 0.1,
            "beta2_decay": 0.5,
            "clip_threshold": 2.0,
        },
        [*SHAPES],
    ),
    (
        "adafactor, keras",
        "keras",
        "Adafactor",
        {"learning_rate": 0.3},
        {"rule": "adafactor", "preset": "keras", "lr": 0.3},
        [*SHAPES],
    ),
    (
        "adafactor decayed, keras",
        "keras",
        "Adafactor",
        {"learning_rate": 0.05, "weight_decay": 0.1},
        {"rule": "adafactor", "preset": "keras", "lr": 0.05, "weight_decay": 0.1},
        [*SHAPES],
    ),
    (
        "adafactor, optax",
        "optax",
        "adafactor",
        {"learning_rate": 0.05},
        {"rule": "adafactor", "preset": "optax", "lr": 0.05},
        [*SHAPES],
    ),
    (
        "adafactor factored, optax",
        "optax",
        "adafactor",
        {"learning_rate": 0.05, "min_dim_size_to_factor": 3, "weight_decay_rate": 0.01},
        {"rule": "adafactor", "preset": "optax", "lr": 0.05, "factored_from": 3, "weight_decay": 0.01},
        [*SHAPES],
    ),
    ("muon, torch", "torch", "Muon", {}, {"rule": "muon", "preset": "torch"}, MATRICES),
    (
        "muon plain, torch",
        "torch",
        "Muon",
        {
            "lr": 0.02,
            "nesterov": False,
            "adjust_lr_fn": "match_rms_adamw",
            "ns_steps": 3,
            "weight_decay": 0.0,
        },
        {
            "rule": "muon",
            "preset": "torch",
            "lr": 0.02,
            "nesterov": False,
            "shape_scale": "rms",
            "ns_steps": 3,
            "weight_decay": 0.0,
        },
        MATRICES,
    ),
    (
        "muon, keras",
        "keras",
        "Muon",
        {"learning_rate": 0.01},
        {"rule": "muon", "preset": "keras", "lr": 0.01},
        MATRICES,
    ),
    (
        "muon, optax",
        "optax",
        "contrib.muon",
        {"learning_rate": 0.01, "weight_decay": 0.1},
        {"rule": "muon", "preset": "optax", "lr": 0.01, "weight_decay": 0.1},
        MATRICES,
    ),
    (
        "muon plain, optax",
        "optax",
        "contrib.muon",
        {"learning_rate": 0.01, "nesterov": False, "consistent_rms": 0.2},
        {"rule": "muon", "preset": "optax", "lr": 0.01, "nesterov": False, "shape_scale": "rms"},
        MATRICES,
    ),
]

Arrays = dict[str, np.ndarray[Any, Any]]


def drawn(dtype: str) -> tuple[Arrays, list[Arrays]]:
    """Weights, and gradients for every step, each in `dtype`."""
    generator = np.random.default_rng(SEED)
    weights = {name: generator.standard_normal(shape) for name, shape in SHAPES.items()}
    weights["zeros"][...] = 0.0
    gradients = [
        {
            name: generator.standard_normal(shape) * 10 ** generator.uniform(-3, 1)
            for name, shape in SHAPES.items()
        }
        for _ in range(STEPS)
    ]
    for gradient in gradients:
        gradient["silent"][...] = 0.0
    return {n: w.astype(dtype) for n, w in weights.items()}, [
        {n: g.astype(dtype) for n, g in gradient.items()} for gradient in gradients
    ]


def stay_in_float64() -> None:
    """What Keras and optax compute in float32 whatever the dtype, in float64."""
    plain = lambda x: jnp.asarray(getattr(x, "value", x))  # noqa: E731
    keras.src.ops.mean = lambda x, axis=None, keepdims=False: jnp.mean(plain(x), axis=axis, keepdims=keepdims)
    keras.src.ops.norm = lambda x, axis, keepdims: jnp.sqrt(
        jnp.sum(plain(x) ** 2, axis=axis, keepdims=keepdims)
    )
    given = optax._src.factorized.scale_by_factored_rms.__defaults__
    decay = lambda i, exponent: 1.0 - jnp.asarray(i + 1, jnp.float64) ** -exponent  # noqa: E731
    optax._src.factorized.scale_by_factored_rms.__defaults__ = (*given[:-1], decay)


def numbers(array: np.ndarray[Any, Any]) -> list[float]:
    """As few digits as bring the same numbers back."""
    return [float(f"{x:.9g}") if array.dtype == np.float32 else float(x) for x in array.ravel()]


def of_torch(kind: str, given: dict[str, Any], weights: Arrays, gradients: list[Arrays]) -> list[Arrays]:
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    parameters = {name: torch.nn.Parameter(torch.tensor(w)) for name, w in weights.items()}
    optimizer = getattr(torch.optim, kind)(list(parameters.values()), **plain)
    rows, cast = [], torch.Tensor.bfloat16
    torch.Tensor.bfloat16 = lambda tensor: tensor.clone()  # see above
    for gradient in gradients:
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradient[name])
        optimizer.step()
        rows.append({name: p.detach().numpy().copy() for name, p in parameters.items()})
    torch.Tensor.bfloat16 = cast
    return rows


def of_optax(kind: str, given: dict[str, Any], weights: Arrays, gradients: list[Arrays]) -> list[Arrays]:
    make = optax.contrib.muon if kind == "contrib.muon" else getattr(optax, kind)
    optimizer = make(**given)
    update = jax.jit(optimizer.update)
    now = {name: jnp.asarray(w) for name, w in weights.items()}
    state, rows = optimizer.init(now), []
    for gradient in gradients:
        there = {name: jnp.asarray(gradient[name]) for name in now}
        updates, state = update(there, state, now)
        now = optax.apply_updates(now, updates)
        rows.append({name: np.asarray(w) for name, w in now.items()})
    return rows


def of_keras(kind: str, given: dict[str, Any], weights: Arrays, gradients: list[Arrays]) -> list[Arrays]:
    keras.config.set_floatx(next(iter(weights.values())).dtype.name)
    variables = {name: keras.Variable(w, dtype=w.dtype.name, name=name) for name, w in weights.items()}
    optimizer = getattr(keras.optimizers, kind)(**given)
    optimizer.build(list(variables.values()))
    rows = []
    for gradient in gradients:
        optimizer.apply_gradients([(jnp.asarray(gradient[n]), variable) for n, variable in variables.items()])
        rows.append({name: np.asarray(variable.value).copy() for name, variable in variables.items()})
    return rows


RUN = {"torch": of_torch, "optax": of_optax, "keras": of_keras}


def told(row: Case, dtype: str) -> dict[str, Any]:
    """One case: our optimizer, and each tensor after every step."""
    name, library, kind, given, ours, tensors = row
    weights, gradients = drawn(DTYPES[dtype])
    rows = RUN[library](kind, given, {n: weights[n] for n in tensors}, gradients)
    seen = {n: [numbers(after[n]) for after in rows] for n in tensors}
    return {"name": name, "library": library, "dtype": dtype, "optimizer": ours, "trajectories": seen}


TRANSFORMS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("agc", "adaptive_grad_clip", {"clipping": 0.01}, {"clipping": 0.01}),
    ("agc", "adaptive_grad_clip", {"clipping": 0.5, "eps": 0.7}, {"clipping": 0.5, "unit_eps": 0.7}),
    ("centralize", "centralize", {}, {}),
]
UNITS = {**SHAPES, "scalar": [], "narrow": [1, 4], "image": [3, 2, 2, 4], "volume": [2, 2, 1, 3, 2]}


def transformed(kind: str, given: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Every shape's weights and gradient, and what optax makes of the gradient."""
    generator = np.random.default_rng(SEED)
    seen = {}
    for name, shape in UNITS.items():
        w, g = (np.asarray(generator.standard_normal(shape) * 3).astype(dtype) for _ in range(2))
        change = getattr(optax, kind)(**given)
        after, _ = change.update([jnp.asarray(g)], change.init([jnp.asarray(w)]), [jnp.asarray(w)])
        seen[name] = {
            "shape": shape,
            "w": numbers(w),
            "g": numbers(g),
            "after": numbers(np.asarray(after[0])),
        }
    return seen


def inputs(numpy_name: str) -> dict[str, Any]:
    weights, gradients = drawn(numpy_name)
    return {
        "weights": {n: numbers(w) for n, w in weights.items()},
        "gradients": [{n: numbers(g) for n, g in row.items()} for row in gradients],
    }


def main() -> None:
    cases = [told(row, "F32") for row in CASES]
    stay_in_float64()
    cases += [told(row, "F64") for row in CASES]
    vectors = {
        "versions": {library.__name__: library.__version__ for library in (torch, jax, optax, keras)},
        "shapes": SHAPES,
        "inputs": {dtype: inputs(numpy_name) for dtype, numpy_name in DTYPES.items()},
        "cases": cases,
        "transforms": [
            {"name": name, "settings": ours, "dtype": dtype, "tensors": transformed(kind, given, numpy_name)}
            for name, kind, given, ours in TRANSFORMS
            for dtype, numpy_name in DTYPES.items()
        ],
    }
    (Path(__file__).parent / "whole.json").write_text(json.dumps(vectors) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
