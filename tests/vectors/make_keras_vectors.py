"""Writes keras.json beside this file: trajectories of Keras's optimizers, on its JAX backend.

The float64 runs set floatx to float64 too, or Keras would hold learning rates and betas in float32.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np

from tests.vectors.recording import Array, Case, each, spelled, write

jax.config.update("jax_enable_x64", True)


def trajectory(
    kind: str, arguments: dict[str, Any], weights: Array, gradients: Array, factors: list[float]
) -> list[Array]:
    keras.config.set_floatx(weights.dtype.name)
    optimizer = getattr(keras.optimizers, kind)(**arguments)
    base = (
        float(optimizer.learning_rate.numpy())
        if "learning_rate" not in arguments
        else arguments["learning_rate"]
    )
    weight = keras.Variable(weights, dtype=weights.dtype.name)
    taken = []
    for gradient, factor in zip(each(gradients), factors, strict=True):
        optimizer.learning_rate.assign(base * factor)
        optimizer.apply([keras.ops.convert_to_tensor(gradient, dtype=weights.dtype.name)], [weight])
        taken.append(np.array(weight.numpy()))
    return taken


def case(
    name: str, kind: str, arguments: dict[str, Any], optimizer: dict[str, Any], decay: float | None = None
) -> Case:
    def run(weights: Array, gradients: Array, factors: list[float]) -> list[Array]:
        return trajectory(kind, arguments, weights, gradients, factors)

    return Case(
        name, spelled(f"keras.optimizers.{kind}", arguments), {"preset": "keras", **optimizer}, run, decay
    )


CASES = [
    case("sgd", "SGD", {}, {"rule": "sgd"}),
    case("momentum decayed", "SGD", {"momentum": 0.9}, {"rule": "momentum"}, 0.9),
    case(
        "nesterov decayed",
        "SGD",
        {"momentum": 0.8, "nesterov": True},
        {"rule": "nesterov", "momentum": 0.8},
        0.9,
    ),
    case("lion", "Lion", {}, {"rule": "lion"}),
    case(
        "lion decayed",
        "Lion",
        {"learning_rate": 0.02, "beta_1": 0.5, "weight_decay": 0.1},
        {"rule": "lion", "lr": 0.02, "beta1": 0.5, "weight_decay": 0.1},
        0.9,
    ),
    case("adagrad", "Adagrad", {}, {"rule": "adagrad"}),
    case(
        "adagrad decayed",
        "Adagrad",
        {"learning_rate": 0.1, "initial_accumulator_value": 0.5, "epsilon": 1e-3},
        {"rule": "adagrad", "lr": 0.1, "initial_accumulator": 0.5, "eps_root": 1e-3},
        0.9,
    ),
    case("rmsprop", "RMSprop", {}, {"rule": "rmsprop"}),
    case(
        "rmsprop momentum decayed",
        "RMSprop",
        {"learning_rate": 0.02, "momentum": 0.8},
        {"rule": "rmsprop", "lr": 0.02, "momentum": 0.8},
        0.9,
    ),
    case(
        "rmsprop centered momentum",
        "RMSprop",
        {"learning_rate": 0.02, "momentum": 0.8, "centered": True, "epsilon": 1e-3},
        {"rule": "rmsprop", "lr": 0.02, "momentum": 0.8, "centered": True, "eps_root": 1e-3},
    ),
    case("adadelta", "Adadelta", {}, {"rule": "adadelta"}),
    case(
        "adadelta decayed",
        "Adadelta",
        {"learning_rate": 1.0, "rho": 0.8, "epsilon": 1e-3},
        {"rule": "adadelta", "lr": 1.0, "rho": 0.8, "eps_root": 1e-3},
        0.9,
    ),
    case("ftrl", "Ftrl", {}, {"rule": "ftrl"}),
    case(
        "ftrl all",
        "Ftrl",
        {
            "learning_rate": 0.1,
            "initial_accumulator_value": 0.3,
            "l1_regularization_strength": 0.05,
            "l2_regularization_strength": 0.1,
            "l2_shrinkage_regularization_strength": 0.2,
            "beta": 0.4,
        },
        {
            "rule": "ftrl",
            "lr": 0.1,
            "initial_accumulator": 0.3,
            "l1": 0.05,
            "l2": 0.2,
            "l2_shrinkage": 0.2,
            "beta": 0.4,
        },
    ),
    case("adam", "Adam", {}, {"rule": "adam"}),
    case(
        "adam decayed",
        "Adam",
        {"learning_rate": 0.02, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3},
        {"rule": "adam", "lr": 0.02, "betas": [0.8, 0.9], "eps": 1e-3},
        0.9,
    ),
    case("adamw", "AdamW", {}, {"rule": "adamw"}),
    case(
        "adamw decayed",
        "AdamW",
        {"learning_rate": 0.02, "weight_decay": 0.5},
        {"rule": "adamw", "lr": 0.02, "weight_decay": 0.5},
        0.9,
    ),
    case("amsgrad", "Adam", {"amsgrad": True}, {"rule": "amsgrad"}),
    case(
        "amsgrad betas",
        "Adam",
        {"learning_rate": 0.02, "amsgrad": True, "beta_2": 0.7, "epsilon": 1e-2},
        {"rule": "amsgrad", "lr": 0.02, "beta2": 0.7, "eps": 1e-2},
    ),
    case("adamax", "Adamax", {}, {"rule": "adamax"}),
    case(
        "adamax betas",
        "Adamax",
        {"learning_rate": 0.02, "beta_2": 0.7, "epsilon": 1e-2},
        {"rule": "adamax", "lr": 0.02, "beta2": 0.7, "eps": 1e-2},
    ),
    case("nadam", "Nadam", {}, {"rule": "nadam"}),
    case(
        "nadam betas",
        "Nadam",
        {"learning_rate": 0.02, "beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-2},
        {"rule": "nadam", "lr": 0.02, "betas": [0.7, 0.9], "eps": 1e-2},
    ),
]

if __name__ == "__main__":
    write(__file__, {name: version(name) for name in ("keras", "jax", "numpy")}, CASES, ("F32", "F64"))
