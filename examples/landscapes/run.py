"""Rules walk over a landscape: a trial is a model, in which each rule has a tensor and a group of its own.

The service only ever sees gradients. One push holds those of all rules at where they are, and the answer
says where they went; a rule that left the neighbourhood gets no more gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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


def walk(client: Client, landscape: Landscape, rules: Sequence[str], steps: int) -> list[Path]:
    """The paths of every rule in every trial, through the service `client` talks to."""
    listed = client.optimizers()
    defaults = {each["name"]: each["hyperparameters"]["properties"]["lr"]["default"] for each in listed}
    chosen = {rule: rates(rule, landscape, float(defaults[rule])) for rule in rules}

    def one(trial: str) -> list[Path]:
        lrs = {rule: rates_of[trial] for rule, rates_of in chosen.items()}
        noise = np.random.default_rng(0).normal(0.0, landscape.noise if "noise" in trial else 0.0, (steps, 2))
        walked = _walk(client, landscape, f"{landscape.name}-{TRIALS.index(trial)}", lrs, noise)
        return [Path(rule, trial, lr, walked[rule]) for rule, lr in lrs.items()]

    with ThreadPoolExecutor(len(TRIALS)) as side_by_side:
        return [path for paths in side_by_side.map(one, TRIALS) for path in paths]


def _walk(
    client: Client, landscape: Landscape, name: str, lrs: Mapping[str, float], noise: Points
) -> dict[str, Points]:
    """Where each rule went with its learning rate: a step for each row of noise."""
    start = np.array([landscape.start])  # [1, 2]: a matrix, so that rules for matrices can take part
    groups = [{"match": rule, "optimizer": {"rule": rule, "lr": lr}} for rule, lr in lrs.items()]
    model = client.create(name, dict.fromkeys(lrs, start), {"rule": "sgd"}, groups=groups)
    at = np.repeat(start, len(lrs), axis=0)
    paths = {rule: [start[0]] for rule in lrs}
    for disturbance in noise:
        near = np.abs(at - _middle(landscape)).max(axis=1) < FAR_WIDTHS * landscape.width
        if not near.any():
            break
        gradient = np.stack(landscape.gradient(at[:, 0], at[:, 1]), axis=1) + disturbance
        moved, _ = model.push({rule: gradient[i : i + 1] for i, rule in enumerate(lrs) if near[i]})
        at = np.concatenate([moved[rule] for rule in lrs])
        for rule, point, came_along in zip(lrs, at, near, strict=True):
            if came_along:
                paths[rule].append(point)
    model.delete()
    return {rule: np.array(points) for rule, points in paths.items()}


def _middle(landscape: Landscape) -> Points:
    left, right, low, high = landscape.window
    return np.array([(left + right) / 2, (low + high) / 2])
