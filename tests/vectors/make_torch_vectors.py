"""Writes torch.json beside this file: trajectories of PyTorch's optimizers, which the rules are held against.

Run with a Python that has PyTorch; the suite itself needs only what is committed. Weights and gradients are
drawn once in float64 and rounded to float32 for the float32 runs; PyTorch runs its plain loop (not foreach,
not fused).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

SEED = 20150722
STEPS = 24
SHAPE = (2, 3)

Scheduler = tuple[str, dict[str, Any]]
Case = tuple[str, str, dict[str, Any], dict[str, Any], Scheduler | None, dict[str, Any] | None]

# Name, PyTorch's class and arguments, our optimizer, PyTorch's scheduler and arguments, our schedule.
CASES: list[Case] = [
    ("sgd", "SGD", {}, {"rule": "sgd"}, None, None),
    (
        "sgd l2",
        "SGD",
        {"lr": 0.1, "weight_decay": 0.02},
        {"rule": "sgd", "lr": 0.1, "weight_decay": 0.02},
        None,
        None,
    ),
    (
        "sgd exponential",
        "SGD",
        {"lr": 0.1},
        {"rule": "sgd", "lr": 0.1},
        ("ExponentialLR", {"gamma": 0.9}),
        {"name": "exponential_decay", "decay_rate": 0.9, "decay_steps": 1},
    ),
    (
        "momentum",
        "SGD",
        {"lr": 0.05, "momentum": 0.9},
        {"rule": "momentum", "lr": 0.05},
        None,
        None,
    ),
    (
        "momentum dampened",
        "SGD",
        {"lr": 0.05, "momentum": 0.8, "dampening": 0.6},
        {"rule": "momentum", "lr": 0.05, "momentum": 0.8, "dampening": 0.6},
        None,
        None,
    ),
    (
        "momentum dampened l2 staircase",
        "SGD",
        {"lr": 0.05, "momentum": 0.8, "dampening": 0.8, "weight_decay": 0.1},
        {"rule": "momentum", "lr": 0.05, "momentum": 0.8, "dampening": 0.8, "weight_decay": 0.1},
        ("StepLR", {"step_size": 5, "gamma": 0.5}),
        {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 5, "staircase": True},
    ),
    (
        "nesterov",
        "SGD",
        {"lr": 0.05, "momentum": 0.9, "nesterov": True},
        {"rule": "nesterov", "lr": 0.05},
        None,
        None,
    ),
    (
        "nesterov l2 exponential",
        "SGD",
        {"lr": 0.05, "momentum": 0.7, "nesterov": True, "weight_decay": 0.01},
        {"rule": "nesterov", "lr": 0.05, "momentum": 0.7, "weight_decay": 0.01},
        ("ExponentialLR", {"gamma": 0.95}),
        {"name": "exponential_decay", "decay_rate": 0.95, "decay_steps": 1},
    ),
    ("adagrad", "Adagrad", {}, {"rule": "adagrad"}, None, None),
    (
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
        None,
        None,
    ),
    ("rmsprop", "RMSprop", {}, {"rule": "rmsprop"}, None, None),
    (
        "rmsprop l2 exponential",
        "RMSprop",
        {"lr": 0.02, "alpha": 0.9, "eps": 1e-4, "weight_decay": 0.03},
        {"rule": "rmsprop", "lr": 0.02, "rho": 0.9, "eps": 1e-4, "weight_decay": 0.03},
        ("ExponentialLR", {"gamma": 0.97}),
        {"name": "exponential_decay", "decay_rate": 0.97, "decay_steps": 1},
    ),
    ("adadelta", "Adadelta", {}, {"rule": "adadelta"}, None, None),
    (
        "adadelta l2",
        "Adadelta",
        {"lr": 0.5, "rho": 0.95, "eps": 1e-4, "weight_decay": 0.01},
        {"rule": "adadelta", "lr": 0.5, "rho": 0.95, "eps": 1e-4, "weight_decay": 0.01},
        None,
        None,
    ),
    ("adam", "Adam", {}, {"rule": "adam"}, None, None),
    (
        "adam betas l2 exponential",
        "Adam",
        {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.05},
        {"rule": "adam", "lr": 0.03, "betas": [0.8, 0.95], "eps": 1e-5, "weight_decay": 0.05},
        ("ExponentialLR", {"gamma": 0.93}),
        {"name": "exponential_decay", "decay_rate": 0.93, "decay_steps": 1},
    ),
    ("adamw", "AdamW", {}, {"rule": "adamw"}, None, None),
    (
        "adamw strong decay staircase",
        "AdamW",
        {"lr": 0.02, "betas": (0.7, 0.9), "weight_decay": 0.5},
        {"rule": "adamw", "lr": 0.02, "beta1": 0.7, "beta2": 0.9, "weight_decay": 0.5},
        ("StepLR", {"step_size": 7, "gamma": 0.1}),
        {"name": "exponential_decay", "decay_rate": 0.1, "decay_steps": 7, "staircase": True},
    ),
]


def trajectory(
    weights: torch.Tensor,
    gradients: torch.Tensor,
    kind: str,
    arguments: dict[str, Any],
    scheduler: Scheduler | None,
) -> list[list[float]]:
    """The flattened weights after every step."""
    weight = torch.nn.Parameter(weights.clone())
    optimizer = getattr(torch.optim, kind)([weight], foreach=False, **arguments)
    schedule = (
        getattr(torch.optim.lr_scheduler, scheduler[0])(optimizer, **scheduler[1]) if scheduler else None
    )
    taken = []
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        taken.append(weight.detach().flatten().tolist())
    return taken


def defaults() -> dict[str, dict[str, Any]]:
    """The numbers PyTorch's own constructors choose."""
    weight = torch.nn.Parameter(torch.zeros(1))
    kinds = ("SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW")
    return {
        kind: {
            name: value
            for name, value in getattr(torch.optim, kind)([weight]).defaults.items()
            if isinstance(value, int | float | tuple) and not isinstance(value, bool)
        }
        for kind in kinds
    }


def main() -> None:
    generator = torch.Generator().manual_seed(SEED)
    weights = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    scales = torch.logspace(-3, 1, weights.numel(), dtype=torch.float64).reshape(SHAPE)
    gradients = torch.randn((STEPS, *SHAPE), generator=generator, dtype=torch.float64) * scales
    document: dict[str, Any] = {
        "made_by": "make_torch_vectors.py",
        "torch": torch.__version__,
        "seed": SEED,
        "defaults": defaults(),
        "inputs": {},
        "cases": [],
    }
    for dtype, precision in (("F32", torch.float32), ("F64", torch.float64)):
        start, pushed = weights.to(precision), gradients.to(precision)
        document["inputs"][dtype] = {
            "weights": start.flatten().tolist(),
            "gradients": pushed.reshape(STEPS, -1).tolist(),
        }
        for name, kind, arguments, optimizer, scheduler, schedule in CASES:
            document["cases"].append(
                {
                    "name": name,
                    "dtype": dtype,
                    "torch": {"class": kind, "arguments": arguments, "scheduler": scheduler},
                    "optimizer": optimizer,
                    "schedule": schedule,
                    "trajectory": trajectory(start, pushed, kind, arguments, scheduler),
                }
            )
    target = Path(__file__).with_name("torch.json")
    target.write_text(json.dumps(document, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
