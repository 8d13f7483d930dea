"""The update rules: each is its equation.

By position: the weight, the gradient, then the slots. By keyword: `t` (the updates of this tensor including
this one; the first has t = 1), `lr`, then hyperparameters with default and range. A rule returns the new
weight, then the new slots. The signature is the specification; catalogue, JSON Schema and snapshots follow
from it: also what a slot starts from (`Starts`), and whether there is one at all (`When`).

One letter, one meaning: `SLOT_MEANINGS`. Defaults are PyTorch's, and where it has no such rule its author's.
`eps` stands outside a root, `eps_root` inside. The order of operations is part of a rule: another order,
other last bits. Choices and switches are known when a rule is traced, so it may branch on them; on a number
it may not, but whatever a zero multiplies is gone.

    descent     down the gradient                          sgd momentum nesterov
    signs       only the gradient's direction counts       signsgd signum lion rprop
    adaptive    each weight has its own learning rate      adagrad rmsprop adadelta ftrl
    moments     means of the gradient and of its square    adam adamw amsgrad adamax nadam radam
    surprises   the square, seen otherwise                 yogi adabelief adan
    federated   whole training runs are the gradients      fedadagrad fedadam fedyogi
    averaging   the average is what counts                 schedule_free_sgd schedule_free_adamw
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gradledger_server.kernels.operations import Value
from gradledger_server.optim.rules import (
    adaptive,
    averaging,
    descent,
    federated,
    moments,
    signs,
    surprises,
)

Rule = Callable[..., tuple[Value, ...]]

RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        descent.sgd,
        descent.momentum,
        descent.nesterov,
        signs.signsgd,
        signs.signum,
        signs.lion,
        signs.rprop,
        adaptive.adagrad,
        adaptive.rmsprop,
        adaptive.adadelta,
        adaptive.ftrl,
        moments.adam,
        moments.adamw,
        moments.amsgrad,
        moments.adamax,
        moments.nadam,
        moments.radam,
        surprises.yogi,
        surprises.adabelief,
        surprises.adan,
        federated.fedadagrad,
        federated.fedadam,
        federated.fedyogi,
        averaging.schedule_free_sgd,
        averaging.schedule_free_adamw,
    )
}
"""Every rule by its name, simple ones first."""

VIEWS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "schedule_free_sgd": {"eval": averaging.averaged_sgd},
    "schedule_free_adamw": {"eval": averaging.averaged_adamw},
}
"""Other readings of a rule's weights: rule → view → function of `w`, the slots it names, and by keyword the
hyperparameters it names. Written with the operations rules are written with, so a view can be traced too."""
