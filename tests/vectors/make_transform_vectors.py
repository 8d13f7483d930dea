"""Trajectories of PyTorch's and Optax's own clipping, averaging and accumulation, for test_transforms.

Run with a Python that has torch (CPU), jax and optax:  python make_transform_vectors.py

Two tensors, so that a global norm is more than one tensor's. Every case says the spec that must give the same
weights after each push, and for averages the same view of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

jax.config.update("jax_enable_x64", True)

SEED = 20190722
PUSHES = 24
SHAPES = {"a": (2, 3), "b": (4,)}
LR = 0.1
ADAM = {"rule": "adam", "lr": LR}
SGD = {"rule": "sgd", "lr": LR}

Tensors = dict[str, np.ndarray[Any, Any]]
Seen = dict[str, Tensors]
Run = Callable[[Tensors, list[Tensors]], Iterator[Seen]]  # the views after each push


def always(_: int) -> bool:
    return True


def torch_run(
    kind: str,
    arguments: dict[str, Any],
    before: Callable[[list[Any]], object] = lambda _: None,
    average: tuple[str, dict[str, Any], Callable[[int], bool]] | None = None,
) -> Run:
    """PyTorch's optimizer. `before` sees the gradients first; `average` is a view, AveragedModel's arguments
    and the turns at which it is told of the weights."""

    def run(weights: Tensors, gradients: list[Tensors]) -> Iterator[Seen]:
        module = torch.nn.ParameterDict({name: torch.tensor(array) for name, array in weights.items()})
        optimizer = getattr(torch.optim, kind)(module.parameters(), foreach=False, **arguments)
        averaged = AveragedModel(module, **average[1]) if average else None
        for turn, gradient in enumerate(gradients):
            for name, parameter in module.items():
                parameter.grad = torch.tensor(gradient[name])
            before(list(module.parameters()))
            optimizer.step()
            seen = {"train": _numbers(module)}
            if average and averaged is not None:
                if average[2](turn):
                    averaged.update_parameters(module)
                seen[average[0]] = _numbers(averaged.module if averaged.n_averaged else module)
            yield seen

    return run


def _numbers(module: Any) -> Tensors:
    return {name: parameter.detach().numpy().copy() for name, parameter in module.items()}


def optax_run(transformation: Any, average: Callable[[int, Any, Any, Any], Any] | None = None) -> Run:
    """Optax's transformation; `average(turn, mean, before, after)` gives what the view "ema" shows."""

    def run(weights: Tensors, gradients: list[Tensors]) -> Iterator[Seen]:
        parameters: Any = weights
        state, mean = transformation.init(parameters), None
        for turn, gradient in enumerate(gradients):
            updates, state = transformation.update(gradient, state, parameters)
            before, parameters = parameters, optax.apply_updates(parameters, updates)
            seen = {"train": _arrays(parameters)}
            if average:
                mean = average(turn, mean, before, parameters)
                seen["ema"] = _arrays(mean)
            yield seen

    return run


def lookahead_run(transformation: Any, every: int, rate: float) -> Run:
    """Optax's lookahead: what it calls fast is what trains here."""

    def run(weights: Tensors, gradients: list[Tensors]) -> Iterator[Seen]:
        looking = optax.lookahead(transformation, every, rate)
        pair = optax.LookaheadParams.init_synced(weights)
        state = looking.init(pair)
        for gradient in gradients:
            updates, state = looking.update(gradient, state, pair)
            pair = optax.apply_updates(pair, updates)
            yield {"train": _arrays(pair.fast), "slow": _arrays(pair.slow)}

    return run


def _arrays(tree: Any) -> Tensors:
    return {name: np.asarray(array) for name, array in tree.items()}


def incremental(turn: int, mean: Any, before: Any, after: Any) -> Any:
    return optax.incremental_update(after, before if turn == 0 else mean, 0.1)


class Debiased:
    """optax.ema over the weights themselves, as if they were updates."""

    def __init__(self, decay: float) -> None:
        self.ema = optax.ema(decay, debias=True)
        self.state: Any = None

    def __call__(self, turn: int, mean: Any, before: Any, after: Any) -> Any:  # noqa: ARG002
        if turn == 0:
            self.state = self.ema.init(after)
        mean, self.state = self.ema.update(after, self.state)
        return mean


def clipped(max_norm: float) -> Callable[[list[Any]], object]:
    return lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, max_norm, foreach=False)


def halving(count: Any) -> Any:
    return 0.5 ** (count / 8.0)


HALVING = {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 8}
EMA = get_ema_multi_avg_fn(0.8)  # type: ignore[no-untyped-call,unused-ignore]  # torch may be there or not
ADAM_STEP = optax.scale_by_adam()

# Name, library, our spec, how the library does it.
CASES: list[tuple[str, str, dict[str, Any], Callable[[], Run]]] = [
    (
        "clip by global norm, torch",
        "torch",
        {"optimizer": SGD, "transforms": {"clip_global_norm": {"max_norm": 2.5}}},
        lambda: torch_run("SGD", {"lr": LR}, clipped(2.5)),
    ),
    (
        "clip by global norm before l2 and adam, torch",
        "torch",
        {"optimizer": {**ADAM, "weight_decay": 0.1}, "transforms": {"clip_global_norm": {"max_norm": 2.5}}},
        lambda: torch_run("Adam", {"lr": LR, "weight_decay": 0.1}, clipped(2.5)),
    ),
    (
        "clip by value, torch",
        "torch",
        {"optimizer": ADAM, "transforms": {"clip_value": {"limit": 0.3}}},
        lambda: torch_run(
            "Adam", {"lr": LR}, lambda its: torch.nn.utils.clip_grad_value_(its, 0.3, foreach=False)
        ),
    ),
    (
        "adam, decoupled decay, torch",
        "torch",
        {"optimizer": {**ADAM, "weight_decay": 0.3, "weight_decay_mode": "decoupled"}},
        lambda: torch_run("AdamW", {"lr": LR, "weight_decay": 0.3}),
    ),
    (
        "ema from the first weights, torch",
        "torch",
        {"optimizer": SGD, "transforms": {"ema": {"decay": 0.8}}},
        lambda: torch_run("SGD", {"lr": LR}, average=("ema", {"multi_avg_fn": EMA}, always)),
    ),
    (
        "mean of all weights, torch",
        "torch",
        {"optimizer": ADAM, "transforms": {"polyak": {}}},
        lambda: torch_run("Adam", {"lr": LR}, average=("polyak", {}, always)),
    ),
    (
        "swa: every third weight after seven, torch",
        "torch",
        {"optimizer": SGD, "transforms": {"polyak": {"after": 7, "every": 3}}},
        lambda: torch_run(
            "SGD", {"lr": LR}, average=("polyak", {}, lambda turn: turn >= 7 and (turn - 7) % 3 == 0)
        ),
    ),
    (
        "clip by global norm, optax",
        "optax",
        {"optimizer": SGD, "transforms": {"clip_global_norm": {"max_norm": 2.5, "clip_eps": 0}}},
        lambda: optax_run(optax.chain(optax.clip_by_global_norm(2.5), optax.sgd(LR))),
    ),
    (
        "clip by norm and value, adam, optax",
        "optax",
        {
            "optimizer": ADAM,
            "transforms": {
                "clip_global_norm": {"max_norm": 2.5, "clip_eps": 0},
                "clip_value": {"limit": 0.2},
            },
        },
        lambda: optax_run(optax.chain(optax.clip_by_global_norm(2.5), optax.clip(0.2), optax.adam(LR))),
    ),
    (
        "adam, decoupled decay, optax",
        "optax",
        {
            "optimizer": {**ADAM, "weight_decay": 0.3, "weight_decay_mode": "decoupled"},
            "schedule": HALVING,
        },
        lambda: optax_run(optax.adamw(lambda count: LR * halving(count), weight_decay=0.3)),
    ),
    (
        "adam, decay by the schedule alone, optax",
        "optax",
        {
            "optimizer": {**ADAM, "weight_decay": 0.02, "weight_decay_mode": "decoupled_abs"},
            "schedule": HALVING,
        },
        lambda: optax_run(
            optax.chain(
                ADAM_STEP,
                optax.scale(-LR),
                optax.add_decayed_weights(-0.02),
                optax.scale_by_schedule(halving),
            )
        ),
    ),
    (
        "ema from the initial weights, optax",
        "optax",
        {"optimizer": SGD, "transforms": {"ema": {"decay": 0.9, "start": "initial"}}},
        lambda: optax_run(optax.sgd(LR), incremental),
    ),
    (
        "ema, debiased, optax",
        "optax",
        {"optimizer": SGD, "transforms": {"ema": {"decay": 0.9, "start": "debiased"}}},
        lambda: optax_run(optax.sgd(LR), Debiased(0.9)),
    ),
    (
        "lookahead, optax",
        "optax",
        {"optimizer": ADAM, "transforms": {"lookahead": {"every": 5, "rate": 0.3}}},
        lambda: lookahead_run(optax.adam(LR), 5, 0.3),
    ),
    (
        "accumulate three, then clip, optax",
        "optax",
        {
            "optimizer": ADAM,
            "transforms": {"accumulate": {"every": 3}, "clip_global_norm": {"max_norm": 1.5, "clip_eps": 0}},
        },
        lambda: optax_run(
            optax.MultiSteps(
                optax.chain(optax.clip_by_global_norm(1.5), optax.adam(LR)),
                every_k_schedule=3,
                accumulator_dtype=np.float64,  # Optax's default is float32, whatever the gradients are
            )
        ),
    ),
]


def noise_deviations(eta: float, gamma: float) -> list[float]:
    """The deviation of what optax.add_noise adds at its first four updates, measured."""
    adding = optax.add_noise(eta, gamma, SEED)
    nothing = np.zeros(400_000)
    state, found = adding.init(nothing), []
    for _ in range(4):
        noise, state = adding.update(nothing, state)
        found.append(float(np.std(noise)))
    return found


def main() -> None:
    generator = np.random.default_rng(SEED)
    weights = {name: generator.standard_normal(shape) for name, shape in SHAPES.items()}
    gradients = [
        {name: generator.standard_normal(shape) for name, shape in SHAPES.items()} for _ in range(PUSHES)
    ]
    document: dict[str, Any] = {
        "made_by": Path(__file__).name,
        "torch": torch.__version__,
        "optax": optax.__version__,
        "jax": jax.__version__,
        "seed": SEED,
        "noise": {"eta": 0.3, "gamma": 0.55, "deviations": noise_deviations(0.3, 0.55)},
        "inputs": {},
        "cases": [],
    }
    for dtype, precision in (("F32", np.float32), ("F64", np.float64)):
        start = {name: array.astype(precision) for name, array in weights.items()}
        pushed = [{name: array.astype(precision) for name, array in g.items()} for g in gradients]
        document["inputs"][dtype] = {"weights": _lists(start), "gradients": [_lists(g) for g in pushed]}
        for name, library, spec, prepare in CASES:
            seen = list(prepare()(start, pushed))
            assert len(seen) == PUSHES
            trajectories = {view: [_lists(each[view]) for each in seen] for view in seen[0]}
            document["cases"].append(
                {"name": name, "dtype": dtype, "library": library, "spec": spec, "views": trajectories}
            )
    target = Path(__file__).with_name("transforms.json")
    target.write_text(json.dumps(document, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")


def _lists(tensors: Tensors) -> dict[str, Any]:
    return {name: np.asarray(array).tolist() for name, array in tensors.items()}


if __name__ == "__main__":
    main()
