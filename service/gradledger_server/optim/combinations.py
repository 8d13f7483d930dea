"""Settings that are sound alone and impossible together: each is refused by name, with the reason.

A refusal is a function of the expanded optimizer that raises InvalidSpec. `where` is the optimizer's path in
the spec. What one rule calls a setting and another a rule of its own is told here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gradledger_server.optim.expansion import wrong
from gradledger_server.optim.hyperparameters import FLOAT32_TINY
from gradledger_server.optim.rules.moments import longest_window
from gradledger_server.optim.signatures import Setting

Optimizer = Mapping[str, Setting]
Refusal = Callable[[Optimizer, str], None]

ELSEWHERE = {
    "amsgrad": "AMSGrad is a rule of its own: amsgrad.",
    "centered": "Rule rmsprop takes centered.",
    "dampening": "Rule momentum takes dampening; Nesterov's momentum is defined without.",
    "maximize": "Push the negative gradient.",
    "momentum": "Rules momentum, nesterov and rmsprop take momentum.",
    "nesterov": "Nesterov's momentum is a rule of its own: nesterov.",
    "epsilon": "'eps' stands outside the root, 'eps_root' inside: libraries differ, so say which.",
}
"""A setting → the rule to look for it in, for those who know it from another library."""


def refuse_impossible(optimizer: Optimizer, *, where: str) -> None:
    """Raises InvalidSpec for the first combination of settings that cannot be."""
    for refuse in (*_REFUSALS.get(str(optimizer["rule"]), ()), _base_to_divide_by):
        refuse(optimizer, where)


def _floor(*floors: str) -> Refusal:
    """Something must stay under the root: it is what an element divides by whose squares are 0."""

    def refuse(optimizer: Optimizer, where: str) -> None:
        if all(float(optimizer[name]) < FLOAT32_TINY for name in floors):
            allowed = f"{_either(floors)} above 1.2e-38"
            hint = "With nothing under it the first division by an untouched element's root is 0/0."
            raise wrong(f"{where}.{floors[0]}", optimizer[floors[0]], allowed, hint=hint)

    return refuse


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else "one of " + ", ".join(names)


def _no_correction_after_its_maximum(optimizer: Optimizer, where: str) -> None:
    if optimizer["max_ref"] == "corrected" and optimizer["eps_ref"] == "raw":
        raise wrong(
            f"{where}.eps_ref",
            "raw",
            "corrected where max_ref is corrected",
            hint="eps cannot join v before a correction that came before the maximum.",
        )


def _within_reach(optimizer: Optimizer, where: str) -> None:
    longest, threshold = longest_window(float(optimizer["beta2"])), float(optimizer["threshold"])
    if longest <= threshold:
        raise wrong(
            f"{where}.threshold",
            threshold,
            f"less than 2/(1 - beta2) - 1 = {longest:g}, the longest averaging window",
            hint="v would never be trusted: raise beta2, or use rule momentum.",
        )


def _steps_in_order(optimizer: Optimizer, where: str) -> None:
    low, high = float(optimizer["min_step"]), float(optimizer["max_step"])
    if not low <= float(optimizer["lr"]) <= high:
        raise wrong(f"{where}.lr", optimizer["lr"], f"min_step <= lr <= max_step, {low:g} to {high:g}")


def _base_to_divide_by(optimizer: Optimizer, where: str) -> None:
    if optimizer.get("weight_decay_mode") == "decoupled_abs" and optimizer["lr"] == 0:
        raise wrong(
            f"{where}.lr",
            0.0,
            "0 < lr where weight_decay_mode is decoupled_abs",
            hint="The decay follows the schedule as lr does; with lr = 0 there is none to follow.",
        )


_EITHER_EPS = _floor("eps", "eps_root")
_REFUSALS: Mapping[str, tuple[Refusal, ...]] = {
    # Only a sum keeps what it starts from: a mean forgets it, so there it is no floor.
    "adagrad": (_floor("eps", "eps_root", "initial_accumulator"),),
    "rmsprop": (_EITHER_EPS,),
    "adam": (_EITHER_EPS,),
    "adamw": (_EITHER_EPS,),
    "amsgrad": (_no_correction_after_its_maximum,),
    "nadam": (_EITHER_EPS,),
    "radam": (_EITHER_EPS, _within_reach),
    "yogi": (_EITHER_EPS,),
    "adabelief": (_EITHER_EPS,),
    "adan": (_EITHER_EPS,),
    "schedule_free_adamw": (_floor("eps"),),
    "lamb": (_floor("eps"),),
    "adafactor": (_floor("eps"),),
    "rprop": (_steps_in_order,),
}
