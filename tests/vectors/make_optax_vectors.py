"""Writes optax.json beside this file: trajectories of Optax's optimizers, on JAX's CPU backend."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from tests.vectors.recording import Array, Case, each, spelled, write

jax.config.update("jax_enable_x64", True)


def trajectory(
    kind: str, arguments: dict[str, Any], weights: Array, gradients: Array, factors: list[float]
) -> list[Array]:
    make = getattr(optax, kind, None) or getattr(optax.contrib, kind)
    if len(set(factors)) > 1:
        rates = jnp.asarray(arguments["learning_rate"] * np.array(factors))  # its own are float32
        arguments = arguments | {"learning_rate": lambda count: rates[count]}
    optimizer = make(**arguments)
    weight = jnp.asarray(weights)
    state = optimizer.init(weight)
    taken = []
    for gradient in each(gradients):
        updates, state = optimizer.update(jnp.asarray(gradient), state, weight)
        weight = optax.apply_updates(weight, updates)
        assert weight.dtype == weights.dtype
        taken.append(np.asarray(weight))
    return taken


def case(
    kind: str,
    arguments: dict[str, Any],
    optimizer: dict[str, Any],
    decay: float | None = None,
) -> Case:
    def run(weights: Array, gradients: Array, factors: list[float]) -> list[Array]:
        return trajectory(kind, arguments, weights, gradients, factors)

    told = spelled(f"optax.{kind}", arguments)
    lr = {"lr": arguments["learning_rate"]} if arguments.get("learning_rate") is not None else {}
    name = f"{kind} {' '.join(arguments)}{' decayed' if decay else ''}"
    return Case(name, told, {"preset": "optax", **lr, **optimizer}, run, decay)


LR = {"learning_rate": 0.02}
CASES = [
    case("sgd", LR, {"rule": "sgd"}, 0.9),
    case("sgd", LR | {"momentum": 0.9}, {"rule": "momentum"}, 0.9),
    case("sgd", LR | {"momentum": 0.9, "nesterov": True}, {"rule": "nesterov"}, 0.9),
    case("sign_sgd", LR, {"rule": "signsgd"}, 0.9),
    case("signum", LR, {"rule": "signum"}),
    case("signum", LR | {"beta": 0.6}, {"rule": "signum", "beta1": 0.6}, 0.9),
    case("lion", LR, {"rule": "lion"}),
    case(
        "lion",
        LR | {"b1": 0.5, "b2": 0.8, "weight_decay": 0.3},
        {"rule": "lion", "betas": [0.5, 0.8], "weight_decay": 0.3},
        0.9,
    ),
    case("adagrad", LR, {"rule": "adagrad"}, 0.9),
    case(
        "adagrad",
        LR | {"initial_accumulator_value": 0.5, "eps": 1e-3},
        {"rule": "adagrad", "initial_accumulator": 0.5, "eps_root": 1e-3},
    ),
    case("rmsprop", LR, {"rule": "rmsprop"}),
    case("rmsprop", LR | {"momentum": 0.8}, {"rule": "rmsprop", "momentum": 0.8}, 0.9),
    case(
        "rmsprop",
        LR | {"centered": True, "momentum": 0.8, "eps": 1e-4},
        {"rule": "rmsprop", "momentum": 0.8, "centered": True, "eps_root": 1e-4},
        0.9,
    ),
    case(
        "rmsprop",
        LR | {"eps": 1e-3, "eps_in_sqrt": False, "initial_scale": 1.0},
        {"rule": "rmsprop", "eps": 1e-3, "eps_root": 0, "initial_accumulator": 1},
    ),
    case("adadelta", {"learning_rate": 1.0}, {"rule": "adadelta"}),
    case("adam", LR, {"rule": "adam"}, 0.9),
    case(
        "adam",
        LR | {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-2},
        {"rule": "adam", "betas": [0.8, 0.9], "eps": 1e-3, "eps_root": 1e-2},
    ),
    case("adamw", LR, {"rule": "adamw"}),
    case("adamw", LR | {"weight_decay": 0.5}, {"rule": "adamw", "weight_decay": 0.5}, 0.9),
    case("amsgrad", LR, {"rule": "amsgrad"}),
    case(
        "amsgrad",
        LR | {"b2": 0.7, "eps": 1e-2, "eps_root": 1e-3},
        {"rule": "amsgrad", "beta2": 0.7, "eps": 1e-2, "eps_root": 1e-3},
    ),
    case("adamax", LR, {"rule": "adamax"}),
    case("adamax", LR | {"b2": 0.7, "eps": 1e-2}, {"rule": "adamax", "beta2": 0.7, "eps": 1e-2}),
    case("nadam", LR, {"rule": "nadam"}),
    case(
        "nadam",
        LR | {"b1": 0.7, "eps": 1e-2, "eps_root": 1e-3},
        {"rule": "nadam", "beta1": 0.7, "eps": 1e-2, "eps_root": 1e-3},
        0.9,
    ),
    case("radam", LR, {"rule": "radam"}),
    case(
        "radam",
        LR | {"b2": 0.9, "threshold": 5.5, "eps": 1e-3},
        {"rule": "radam", "beta2": 0.9, "threshold": 5.5, "eps": 1e-3},
        0.9,
    ),
    case("yogi", LR, {"rule": "yogi"}),
    case(
        "yogi", LR | {"b1": 0.7, "b2": 0.8, "eps": 1e-2}, {"rule": "yogi", "betas": [0.7, 0.8], "eps": 1e-2}
    ),
    case("adabelief", LR, {"rule": "adabelief"}),
    case(
        "adabelief",
        LR | {"b1": 0.7, "b2": 0.8, "eps": 1e-3, "eps_root": 1e-4},
        {"rule": "adabelief", "betas": [0.7, 0.8], "eps": 1e-3, "eps_root": 1e-4},
    ),
    case("adan", LR, {"rule": "adan"}),
    case(
        "adan",
        LR | {"b1": 0.9, "b2": 0.8, "b3": 0.7, "eps": 1e-3},
        {"rule": "adan", "betas": [0.9, 0.8, 0.7], "change_factor": 0.2, "eps": 1e-3},
    ),
    case("schedule_free_sgd", LR, {"rule": "schedule_free_sgd"}),
    case(
        "schedule_free_adamw",
        LR | {"weight_decay": 0.1},
        {"rule": "schedule_free_adamw", "weight_decay": 0.1},
    ),
]

if __name__ == "__main__":
    write(__file__, {name: version(name) for name in ("optax", "jax", "numpy")}, CASES, ("F32", "F64"))
