"""Writes torch.json beside this file: trajectories of PyTorch's optimizers and of the schedule-free ones.

PyTorch runs its plain loop (not foreach, not fused).
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import schedulefree
import torch

from tests.vectors.recording import Array, Case, each, spelled, write


def trajectory(
    kind: str, arguments: dict[str, Any], weights: Array, gradients: Array, factors: list[float]
) -> list[Array]:
    weight = torch.nn.Parameter(torch.from_numpy(weights.copy()))
    torch.set_default_dtype(weight.dtype)  # or NAdam would keep its product of momenta in float32
    optimizer = (
        getattr(torch.optim, kind)([weight], foreach=False, **arguments)
        if kind != "SparseAdam"
        else (torch.optim.SparseAdam([weight], **arguments))
    )
    base = optimizer.param_groups[0]["lr"]
    taken = []
    for gradient, factor in zip(each(gradients), factors, strict=True):
        optimizer.param_groups[0]["lr"] = base * factor
        pushed = torch.from_numpy(gradient)
        weight.grad = pushed.to_sparse() if kind == "SparseAdam" else pushed
        optimizer.step()
        taken.append(weight.detach().numpy().copy())
    return taken


def schedule_free(
    kind: str, arguments: dict[str, Any], weights: Array, gradients: Array, evaluated: bool
) -> list[Array]:
    """The weights gradients are taken at, or the averages the optimizer would evaluate with."""
    weight = torch.nn.Parameter(torch.from_numpy(weights.copy()))
    optimizer = getattr(schedulefree, kind)([weight], foreach=False, **arguments)
    taken = []
    for gradient in each(gradients):
        optimizer.train()
        weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        if evaluated:
            there = weight.detach().clone()
            optimizer.eval()
            taken.append(weight.detach().numpy().copy())
            optimizer.train()  # which does not bring back the last bit of where training was
            weight.data.copy_(there)
        else:
            taken.append(weight.detach().numpy().copy())
    return taken


def case(
    name: str, kind: str, arguments: dict[str, Any], optimizer: dict[str, Any], decay: float | None = None
) -> Case:
    def run(weights: Array, gradients: Array, factors: list[float]) -> list[Array]:
        return trajectory(kind, arguments, weights, gradients, factors)

    return Case(name, spelled(f"torch.optim.{kind}", arguments), {"preset": "torch", **optimizer}, run, decay)


def free(
    name: str, kind: str, arguments: dict[str, Any], optimizer: dict[str, Any], view: str = "train"
) -> Case:
    def run(weights: Array, gradients: Array, factors: list[float]) -> list[Array]:
        assert set(factors) == {1.0}
        return schedule_free(kind, arguments, weights, gradients, view == "eval")

    extra = {} if view == "train" else {"view": view}
    return Case(name, spelled(f"schedulefree.{kind}", arguments), optimizer, run, extra=extra)


CASES = [
    case("sgd", "SGD", {}, {"rule": "sgd"}),
    case(
        "sgd l2 decayed",
        "SGD",
        {"lr": 0.1, "weight_decay": 0.02},
        {"rule": "sgd", "lr": 0.1, "weight_decay": 0.02},
        0.9,
    ),
    case("momentum", "SGD", {"momentum": 0.9}, {"rule": "momentum"}),
    case(
        "momentum dampened l2 decayed",
        "SGD",
        {"lr": 0.05, "momentum": 0.8, "dampening": 0.6, "weight_decay": 0.1},
        {"rule": "momentum", "lr": 0.05, "momentum": 0.8, "dampening": 0.6, "weight_decay": 0.1},
        0.9,
    ),
    case("nesterov", "SGD", {"momentum": 0.9, "nesterov": True}, {"rule": "nesterov"}),
    case(
        "nesterov l2 decayed",
        "SGD",
        {"lr": 0.05, "momentum": 0.7, "nesterov": True, "weight_decay": 0.01},
        {"rule": "nesterov", "lr": 0.05, "momentum": 0.7, "weight_decay": 0.01},
        0.95,
    ),
    case(
        "diloco",
        "SGD",
        {"lr": 0.7, "momentum": 0.9, "nesterov": True},
        {"rule": "nesterov", "preset": "diloco"},
    ),
    case("rprop", "Rprop", {}, {"rule": "rprop"}),
    case(
        "rprop narrow",
        "Rprop",
        {"lr": 0.05, "etas": (0.3, 1.5), "step_sizes": (0.02, 0.08)},
        {"rule": "rprop", "lr": 0.05, "shrink": 0.3, "grow": 1.5, "min_step": 0.02, "max_step": 0.08},
    ),
    case("adagrad", "Adagrad", {}, {"rule": "adagrad"}),
    case(
        "adagrad lr_decay accumulator l2",
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.05, "initial_accumulator_value": 0.1, "weight_decay": 0.01, "eps": 1e-7},
        {
            "rule": "adagrad",
            "lr": 0.1,
            "lr_decay": 0.05,
            "initial_accumulator": 0.1,
            "weight_decay": 0.01,
            "eps": 1e-7,
        },
    ),
    case("rmsprop", "RMSprop", {}, {"rule": "rmsprop"}),
    case(
        "rmsprop l2 decayed",
        "RMSprop",
        {"lr": 0.02, "alpha": 0.9, "eps": 1e-4, "weight_decay": 0.03},
        {"rule": "rmsprop", "lr": 0.02, "rho": 0.9, "eps": 1e-4, "weight_decay": 0.03},
        0.97,
    ),
    case(
        "rmsprop momentum decayed",
        "RMSprop",
        {"lr": 0.02, "momentum": 0.8},
        {"rule": "rmsprop", "lr": 0.02, "momentum": 0.8},
        0.9,
    ),
    case(
        "rmsprop centered",
        "RMSprop",
        {"lr": 0.002, "alpha": 0.9, "eps": 1e-2, "centered": True},
        {"rule": "rmsprop", "lr": 0.002, "rho": 0.9, "eps": 1e-2, "centered": True},
    ),
    case(
        "rmsprop centered momentum",
        "RMSprop",
        {"lr": 0.002, "alpha": 0.9, "eps": 1e-2, "momentum": 0.5, "centered": True},
        {"rule": "rmsprop", "lr": 0.002, "rho": 0.9, "eps": 1e-2, "momentum": 0.5, "centered": True},
    ),
    case("adadelta", "Adadelta", {}, {"rule": "adadelta"}),
    case(
        "adadelta l2",
        "Adadelta",
        {"lr": 0.5, "rho": 0.95, "eps": 1e-4, "weight_decay": 0.01},
        {"rule": "adadelta", "lr": 0.5, "rho": 0.95, "eps": 1e-4, "weight_decay": 0.01},
    ),
    case("adam", "Adam", {}, {"rule": "adam"}),
    case(
        "adam betas l2 decayed",
        "Adam",
        {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.05},
        {"rule": "adam", "lr": 0.03, "betas": [0.8, 0.95], "eps": 1e-5, "weight_decay": 0.05},
        0.93,
    ),
    case("adam raw", "SparseAdam", {"eps": 1e-3}, {"rule": "adam", "eps": 1e-3, "eps_ref": "raw"}),
    case("adamw", "AdamW", {}, {"rule": "adamw"}),
    case(
        "adamw strong decay decayed",
        "AdamW",
        {"lr": 0.02, "betas": (0.7, 0.9), "weight_decay": 0.5},
        {"rule": "adamw", "lr": 0.02, "beta1": 0.7, "beta2": 0.9, "weight_decay": 0.5},
        0.9,
    ),
    case("amsgrad", "Adam", {"amsgrad": True}, {"rule": "amsgrad"}),
    case(
        "amsgrad betas",
        "Adam",
        {"lr": 0.02, "amsgrad": True, "betas": (0.8, 0.7), "eps": 1e-3},
        {"rule": "amsgrad", "lr": 0.02, "betas": [0.8, 0.7], "eps": 1e-3},
    ),
    case("adamax", "Adamax", {}, {"rule": "adamax"}),
    case(
        "adamax betas l2",
        "Adamax",
        {"lr": 0.03, "betas": (0.8, 0.7), "eps": 1e-2, "weight_decay": 0.1},
        {"rule": "adamax", "lr": 0.03, "betas": [0.8, 0.7], "eps": 1e-2, "weight_decay": 0.1},
    ),
    case("nadam", "NAdam", {}, {"rule": "nadam"}),
    case(
        "nadam fast decay",
        "NAdam",
        {"lr": 0.02, "betas": (0.95, 0.9), "momentum_decay": 0.5, "weight_decay": 0.1},
        {"rule": "nadam", "lr": 0.02, "betas": [0.95, 0.9], "momentum_decay": 0.5, "weight_decay": 0.1},
    ),
    case("radam", "RAdam", {}, {"rule": "radam"}),
    case(
        "radam betas decayed",
        "RAdam",
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3},
        {"rule": "radam", "lr": 0.02, "betas": [0.8, 0.95], "eps": 1e-3},
        0.95,
    ),
    free("schedule_free_sgd", "SGDScheduleFree", {}, {"rule": "schedule_free_sgd"}),
    free(
        "schedule_free_sgd warming up l2",
        "SGDScheduleFree",
        {"lr": 0.1, "momentum": 0.7, "warmup_steps": 7, "weight_decay": 0.02},
        {"rule": "schedule_free_sgd", "lr": 0.1, "momentum": 0.7, "warmup_steps": 7, "weight_decay": 0.02},
    ),
    free(
        "schedule_free_sgd averaged",
        "SGDScheduleFree",
        {"lr": 0.1, "warmup_steps": 3},
        {"rule": "schedule_free_sgd", "lr": 0.1, "warmup_steps": 3},
        "eval",
    ),
    free("schedule_free_adamw", "AdamWScheduleFree", {}, {"rule": "schedule_free_adamw"}),
    free(
        "schedule_free_adamw warming up decay",
        "AdamWScheduleFree",
        {"lr": 0.02, "betas": (0.8, 0.9), "warmup_steps": 5, "weight_decay": 0.1},
        {
            "rule": "schedule_free_adamw",
            "lr": 0.02,
            "betas": [0.8, 0.9],
            "warmup_steps": 5,
            "weight_decay": 0.1,
        },
    ),
    free(
        "schedule_free_adamw averaged",
        "AdamWScheduleFree",
        {"lr": 0.02},
        {"rule": "schedule_free_adamw", "lr": 0.02},
        "eval",
    ),
]

if __name__ == "__main__":
    write(__file__, {name: version(name) for name in ("torch", "schedulefree")}, CASES, ("F32", "F64"))
