"""Rules walk over a landscape: each trial is a tensor with an optimizer of its own, all in one model.

The service only ever sees gradients. One push holds those of all trials at where they are, and the answer
says where they went; a trial that left the neighbourhood gets no more gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.landscapes.functions import Landscape
from examples.landscapes.rates import TRIALS, rates
from gradledger import Client

FAR_WIDTHS = 3.0
"""Whoever is so many map widths from the middle does not come back."""

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Path:
    """Where a rule went in one trial: an array [steps + 1, 2] that begins at the start."""

    rule: str
    trial: str
    lr: float
    points: Points


def walk(client: Client, landscape: Landscape, rules: Sequence[str], steps: int, seed: int = 0) -> list[Path]:
    """The paths of every rule in every trial, through the service `client` talks to."""
    defaults = {each["name"]: _default_lr(each) for each in client.optimizers()}
    lrs = {(rule, trial): rates(rule, landscape, defaults[rule])[trial] for rule in rules for trial in TRIALS}
    names = [f"{rule}/{trial}" for rule, trial in lrs]
    groups = [
        {"match": name, "optimizer": {"rule": rule, "lr": lr}}
        for name, ((rule, _), lr) in zip(names, lrs.items(), strict=True)
    ]
    start = np.array([landscape.start])  # [1, 2]: a matrix, so that rules for matrices can take part
    model = client.create(landscape.name, dict.fromkeys(names, start), {"rule": "sgd"}, groups=groups)
    noise = np.random.default_rng(seed).standard_normal((steps, 2)) * landscape.noise
    noisy = np.array([[float("noise" in trial)] for _, trial in lrs])
    at = np.repeat(start, len(names), axis=0)
    paths = [[point] for point in at]
    for step in range(steps):
        near = np.abs(at - _middle(landscape)).max(axis=1) < FAR_WIDTHS * landscape.width
        if not near.any():
            break
        gradient = np.stack(landscape.gradient(at[:, 0], at[:, 1]), axis=1) + noisy * noise[step]
        moved, _ = model.push({name: gradient[i : i + 1] for i, name in enumerate(names) if near[i]})
        at = np.concatenate([moved[name] for name in names])
        for index in np.flatnonzero(near):
            paths[index].append(at[index])
    model.delete()
    return [
        Path(rule, trial, lr, np.array(points))
        for ((rule, trial), lr), points in zip(lrs.items(), paths, strict=True)
    ]


def _default_lr(rule: dict[str, Any]) -> float:
    return float(rule["hyperparameters"]["properties"]["lr"]["default"])


def _middle(landscape: Landscape) -> Points:
    left, right, low, high = landscape.window
    return np.array([(left + right) / 2, (low + high) / 2])
