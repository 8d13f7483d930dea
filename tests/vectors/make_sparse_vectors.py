"""Writes sparse.json beside this file: trajectories of PyTorch's optimizers under sparse gradients.

Run with a Python that has PyTorch; the suite itself needs only what is committed. The gradients are sparse
tensors that are not coalesced: rows come in any order and some of them twice or thrice, which PyTorch sums
before it squares. PyTorch's SparseAdam adds eps to the uncorrected root; with an eps of 1e-30 that is no
difference, and everything else is compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

SEED = 20170616
STEPS = 24
ROWS, WIDTH, TOUCHED = 7, 3, 5

# Name, PyTorch's class and arguments, our optimizer.
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("sgd", "SGD", {"lr": 0.1}, {"rule": "sgd", "lr": 0.1}),
    ("adagrad", "Adagrad", {"lr": 0.1}, {"rule": "adagrad", "lr": 0.1}),
    (
        "adagrad decaying",
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.3, "initial_accumulator_value": 0.1},
        {"rule": "adagrad", "lr": 0.1, "lr_decay": 0.3, "initial_accumulator": 0.1},
    ),
    ("adam", "SparseAdam", {"lr": 0.05, "eps": 1e-30}, {"rule": "adam", "lr": 0.05, "eps": 1e-30}),
    (
        "adam, short memory",
        "SparseAdam",
        {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-30},
        {"rule": "adam", "lr": 0.01, "beta1": 0.5, "beta2": 0.9, "eps": 1e-30},
    ),
]


def main() -> None:
    """Draws one table and one sequence of pushes, and lets every optimizer follow it in both dtypes."""
    torch.manual_seed(SEED)
    start = torch.randn(ROWS, WIDTH, dtype=torch.float64)
    ids = [torch.randint(0, ROWS - (step < STEPS // 2), (TOUCHED,)) for step in range(STEPS)]
    gradients = [torch.randn(TOUCHED, WIDTH, dtype=torch.float64) for _ in range(STEPS)]
    made = {
        "torch": torch.__version__,
        "start": start.tolist(),
        "ids": [each.tolist() for each in ids],
        "gradients": [each.tolist() for each in gradients],
        "cases": [
            {
                "name": name,
                "optimizer": ours,
                **{
                    dtype: follow(kind, arguments, start, ids, gradients, getattr(torch, dtype))
                    for dtype in ("float64", "float32")
                },
            }
            for name, kind, arguments, ours in CASES
        ],
    }
    Path(__file__).with_name("sparse.json").write_text(json.dumps(made, separators=(",", ":")) + "\n")


def follow(
    kind: str,
    arguments: dict[str, Any],
    start: torch.Tensor,
    ids: list[torch.Tensor],
    gradients: list[torch.Tensor],
    dtype: torch.dtype,
) -> list[Any]:
    """The table after every step."""
    table = start.to(dtype).clone().requires_grad_()
    optimizer = getattr(torch.optim, kind)([table], **arguments)
    trajectory = []
    for rows, values in zip(ids, gradients, strict=True):
        table.grad = torch.sparse_coo_tensor(rows[None], values.to(dtype), table.shape, check_invariants=True)
        optimizer.step()
        trajectory.append(table.detach().double().tolist())
    return trajectory


if __name__ == "__main__":
    main()
