"""What happens to a gradient before its rule sees it, and to the weights after: each is its equation.

The order is fixed. A transform that is not in the spec is not there; the others keep their places:

    accumulate         pushes become one gradient     so that everything below sees what a large batch gives
    clip_global_norm   the whole push                 first of the clips: it keeps the direction
    clip_norm          one tensor
    clip_value         one element                    last of the clips: it bounds what the others left
    agc                one unit, against its weights
    centralize         one unit
    noise              one element                    after clipping, or clipping would take it away again
    weight decay       by the optimizer's own fields  after clipping and noise: what is bounded and disturbed
                                                      is the loss's gradient, not the pull towards zero
    the rule
    lookahead          every few updates              before the averages: they see the weights that stay
    ema, polyak        after each update              views: training never sees them

Three kinds of functions, told apart by what comes first; `t`, `s`, `norm` and `share` are known when an
update is made, everything else by keyword is a setting, declared like a rule's:

    PUSHES    (mean, g, *, share, …)        the new mean
    GRADIENT  (w, g, [draw], *, …)          the gradient; `draw` is a standard normal number for each element
    WEIGHTS   (w, before, slot, *, t, …)    the weight and the slot after the update that made `before` to `w`

All are traced with the rule, into one kernel if they are elementwise. Those that need the norm of their
tensor, or its shape, are in `whole_transforms.py` and part it into stages.
"""

# ruff: noqa: ARG001  transforms of one kind take the same arguments, needed or not

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from gradledger_server.kernels.operations import Value, maximum, minimum, on_host, power, sqrt, where
from gradledger_server.optim.hyperparameters import Bounds, NonNegative, Rate
from gradledger_server.optim.whole_transforms import agc, centralize, clip_norm

Transforms = Mapping[str, Mapping[str, Any]]
"""Transforms as an expanded spec has them: name → settings."""


@on_host(latex=r"\left({0} \bmod {1}\right)", definition="")
def turn(count: float, every: float) -> float:
    """Which one of `every` turns it is: 0 for those that count."""
    return count % every


def accumulate(
    mean: Value,
    g: Value,
    *,
    share: float,
    every: Annotated[int, Bounds(1, 2**53), "pushes that make one step"],
    weighted: Annotated[bool, "a push counts by its weight, so that the mean is over examples"] = True,
) -> Value:
    """Gradient accumulation: the mean of several pushes makes one step. Optax, MultiSteps.

    Use: batches too large for a worker, or many small pushes: their mean makes one step, and moments and `t`
    advance once.
    """
    return mean + (g - mean) / share


def clip_global_norm(
    w: Value,
    g: Value,
    *,
    norm: float,
    max_norm: Annotated[float, Bounds(0, above=True), "the longest that a whole push may be"],
    clip_eps: Annotated[
        float, Bounds(0), "added to the norm (PyTorch: 1e-6); 0 divides first, then multiplies, as Optax does"
    ] = 1e-6,
) -> Any:
    """A push longer than max_norm is made as long as that. Pascanu, Mikolov & Bengio 2013, Algorithm 1.

    Use: recurrent networks, transformers, and wherever one bad batch must not throw the model: the direction
    stays.
    """
    if clip_eps == 0.0:  # known while tracing, so this is a choice between two programs
        longer = norm >= max_norm
        return g / where(longer, norm, 1.0) * where(longer, max_norm, 1.0)
    return g * minimum(1.0, max_norm / (norm + clip_eps))


def clip_value(
    w: Value,
    g: Value,
    *,
    limit: Annotated[float, Bounds(0, above=True), "the largest magnitude an element keeps"],
) -> Any:
    """Every element of the gradient is brought into [-limit, limit]. Mikolov 2012, PhD thesis, 3.2.2.

    Use: a last guard against single wild elements; it bends the direction, so prefer a norm where you can.
    """
    return maximum(minimum(g, limit), -limit)


def noise(
    w: Value,
    g: Value,
    draw: Value,
    *,
    s: int,
    eta: Annotated[float, Bounds(0), "variance of the noise at the first update"],
    gamma: Annotated[float, Bounds(0), "how fast the variance fades: it is eta / (1+s)^gamma"] = 0.55,
    seed: Annotated[int, Bounds(0, 2**53), "another seed, another noise"] = 0,
) -> Value:
    """Normal noise that fades. Neelakantan et al. 2015, Adding Gradient Noise Improves Learning.

    Use: deep or badly initialised networks stuck in flat places or saddles; with well-tuned mini-batches it
    seldom helps.
    """
    return g + sqrt(eta / power(1 + s, gamma)) * draw


def lookahead(
    w: Value,
    before: Value,
    slow: Value,
    *,
    t: int,
    every: Annotated[int, Bounds(1, 2**53), "updates between two looks"] = 5,
    rate: Annotated[float, Bounds(0, 1), "how far the slow weights move towards the fast ones"] = 0.5,
) -> tuple[Value, Value]:
    """Every few updates the weights return to slow ones that follow them. Zhang et al. 2019, Lookahead.

    Use: to calm a fast, restless optimizer: slow weights follow it and it returns to them. Costs one slot.
    """
    slow = where(t > 1, slow, before)
    moved = slow + rate * (w - slow)
    waits = turn(t, every)
    return where(waits, w, moved), where(waits, slow, moved)


def ema(
    w: Value,
    before: Value,
    ema: Value,
    *,
    t: int,
    decay: Annotated[
        float, Bounds(0, 1, below=True), "how much of the average is kept at each update"
    ] = 0.999,
    start: Annotated[
        Literal["first", "initial", "debiased", "warmup"],
        "first: from the weights after the first update; initial: from those before it; debiased: the same, "
        "each weight counting as in an average without a beginning; warmup: initial, decay <= (1+t)/(10+t)",
    ] = "first",
) -> tuple[Value, Value]:
    """An exponential moving average of the weights. Polyak & Juditsky 1992, with a finite memory.

    Use: evaluation: the averaged weights are usually better than the last ones. Training does not see them.
    Costs one slot.
    """
    past = where(t > 1, ema, w if start in ("first", "debiased") else before)
    if start == "debiased":
        return w, past + (1 - decay) / (1 - power(decay, t)) * (w - past)
    kept = minimum(decay, (1 + t) / (10 + t)) if start == "warmup" else decay
    return w, past + (1 - kept) * (w - past)


def polyak(
    w: Value,
    before: Value,
    polyak: Value,
    *,
    t: int,
    after: Annotated[int, Bounds(0, 2**53), "updates before averaging begins; until then, the weights"] = 0,
    every: Annotated[int, Bounds(1, 2**53), "updates from one averaged weight to the next"] = 1,
) -> tuple[Value, Value]:
    """The mean of the weights since `after`. Polyak & Juditsky 1992; Izmailov et al. 2018, SWA.

    Use: the end of a training at a constant learning rate: the mean of all late weights, as in SWA. Costs one
    slot.
    """
    late = t - 1 - after
    mean = polyak + (w - polyak) / (late / every + 1)
    return w, where(late > 0, where(turn(late, every), polyak, mean), w)


def weight_decay(
    w: Value,
    g: Value,
    *,
    lr: Rate,
    base_lr: float,
    weight_decay: NonNegative = 0.0,
    weight_decay_mode: Literal["l2", "decoupled", "decoupled_abs"] = "l2",
) -> tuple[Value, Value]:
    """Weights are pulled towards zero, by a rule that has no decay of its own. Loshchilov & Hutter 2019.

    l2 adds to the gradient, before any moment; decoupled shrinks the weight that the rule then moves, by
    lr times the decay; decoupled_abs by the schedule's multiplier alone, whatever the base lr.
    """
    if weight_decay_mode == "l2":
        return w, g + weight_decay * w
    rate = lr if weight_decay_mode == "decoupled" else lr / base_lr
    return (1 - rate * weight_decay) * w, g


def _named(*functions: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {function.__name__: function for function in functions}


PUSHES = _named(accumulate)
GRADIENT = _named(clip_global_norm, clip_norm, clip_value, agc, centralize, noise)
WEIGHTS = _named(lookahead, ema, polyak)
TRANSFORMS = PUSHES | GRADIENT | WEIGHTS

# One step is one decision about one push: no group has its own.
MODEL_WIDE = ("accumulate", "clip_global_norm")
# Each average is a view of the parameters, under the name of its slot.
AVERAGES = {"lookahead": "slow", "ema": "ema", "polyak": "polyak"}
