"""What readers may see in place of the weights that train: an average of them, or what a rule makes of them.

A view is elementwise: `program` traces it over the same arrays as the chain, so it runs on the same kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from gradledger_server.kernels.operations import Value
from gradledger_server.kernels.trace import PROGRAMS_KEPT, Program, trace
from gradledger_server.optim import chain
from gradledger_server.optim.catalog import Optimizer
from gradledger_server.optim.rules import VIEWS
from gradledger_server.optim.signatures import Setting, facts_of
from gradledger_server.optim.transforms import AVERAGES, Transforms

TRAIN = "train"
"""The weights that gradients are computed at: the view that every model has."""


def names(optimizer: Optimizer, transforms: Transforms) -> tuple[str, ...]:
    """The views there are besides `train`: averages by their slots, and the rule's own."""
    averages = [slot for name, slot in AVERAGES.items() if name in transforms]
    return (*averages, *VIEWS.get(str(optimizer["rule"]), {}))


def program(view: str, optimizer: Optimizer, transforms: Transforms) -> Program | None:
    """The view as a program whose new weight is what is seen; None if there is no such view here."""
    if view not in names(optimizer, transforms):
        return None
    return _traced(view, str(optimizer["rule"]), tuple(chain.slot_starts(optimizer, transforms)))


def settings(view: str, optimizer: Optimizer) -> dict[str, Setting]:
    """The hyperparameters a view is made with: when they change, so does what is seen."""
    function = _function(view, str(optimizer["rule"]))
    return {} if function is None else {name: optimizer[name] for name in facts_of(function).hyperparameters}


@lru_cache(maxsize=PROGRAMS_KEPT)
def _traced(view: str, rule: str, slots: tuple[str, ...]) -> Program:
    function = _function(view, rule)

    def seen(w: Value, _: Value, *arrays: Value, **given: Any) -> tuple[Value, ...]:
        """The view in the form of a rule that changes no slot."""
        held = dict(zip(slots, arrays, strict=True))
        if function is None:
            return held[view], *arrays
        return function(w, *(held[slot] for slot in facts_of(function).arrays[1:]), **given), *arrays

    scalars = () if function is None else facts_of(function).keywords
    return trace(f"{rule}_{view}", seen, slots=slots, scalars=scalars, known={})


def _function(view: str, rule: str) -> Callable[..., Value] | None:
    """What a rule makes of its weight and the slots it names; None for an average, which is there already."""
    return VIEWS.get(rule, {}).get(view)
