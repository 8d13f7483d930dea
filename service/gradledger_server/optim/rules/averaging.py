"""Schedule-free rules: no decay of the learning rate, an average of the weights instead.

In the paper three sequences move: z takes full steps, x is the average of z and what one wants in the end,
and y, between them, is where gradients are taken. The weight held here is y. The slot holds a = z - y,
because then it starts at 0, loses nothing to cancellation and follows when parameters are uploaded anew.
With z and y put in, a' = z' - y' comes to (1 - c)(a - lr b g). The average is a view: x = y + (1 - 1/b) a.
"""

from __future__ import annotations

from gradledger_server.kernels.operations import Value, on_host, sqrt
from gradledger_server.optim.hyperparameters import Decay, FixedRate, NonNegative, RisingSteps, Share
from gradledger_server.optim.rules.moments import unbiased


def schedule_free_sgd(
    w: Value,
    g: Value,
    a: Value,
    *,
    t: int,
    lr: FixedRate = 1.0,
    momentum: Share = 0.9,
    warmup_steps: RisingSteps = 0,
) -> tuple[Value, Value]:
    """Descent that needs no schedule. Defazio et al. 2024, The Road Less Scheduled, eq. 2-4.

    Use: momentum SGD when the length of the training is not known: averaging replaces the schedule. Evaluate
    with the `eval` view of the parameters; do not combine it with a decaying schedule.

    Rows: lazy differs from dense: a row that gets no gradient would still move towards its average.
    """
    rate, c = lr * ramp(t, warmup_steps), newest_share(t, warmup_steps)
    return (
        w + c * a - rate * (1 - momentum * (1 - c)) * g,
        (1 - c) * (a - rate * momentum * g),
    )


def schedule_free_adamw(
    w: Value,
    g: Value,
    a: Value,
    v: Value,
    *,
    t: int,
    lr: FixedRate = 2.5e-3,
    beta1: Share = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    warmup_steps: RisingSteps = 0,
) -> tuple[Value, Value, Value]:
    """AdamW that needs no schedule. Defazio et al. 2024, The Road Less Scheduled, Algorithm 1.

    Use: AdamW when the length of the training is not known: averaging replaces the schedule. Evaluate with
    the `eval` view of the parameters; warm up, but do not decay the learning rate.

    Rows: lazy differs from dense: a row that gets no gradient would still move towards its average, and its
    mean of squares decay.
    """
    v = beta2 * v + (1 - beta2) * g * g
    step = g / (sqrt(unbiased(v, beta2, t)) + eps) + weight_decay * w
    return *schedule_free_sgd(w, step, a, t=t, lr=lr, momentum=beta1, warmup_steps=warmup_steps), v


@on_host("r_t", r"r_t = \min\left(1, \frac{t}{W}\right)")
def ramp(t: float, warmup_steps: float) -> float:
    """What the learning rate is multiplied by: rises linearly to 1 at update `warmup_steps`."""
    return min(1.0, t / max(1, warmup_steps))


@on_host("c_t", r"c_t = \frac{r_t^2}{\sum_{i=1}^{t} r_i^2}")
def newest_share(t: float, warmup_steps: float) -> float:
    """The share of the newest z in the average: its weight over the sum of all weights so far.

    Weights are squares of learning rates; as lr cancels, the first n = min(t, warmup_steps) of them are
    (i/W)², which add up to (n/W)² (n + 1)(2n + 1)/6n, and the others are 1.
    """
    n = min(t, max(1, warmup_steps))
    weight = ramp(t, warmup_steps) * ramp(t, warmup_steps)
    return float(weight / (weight * ((n + 1) * (2 * n + 1) / (6 * n)) + (t - n)))


def averaged_sgd(w: Value, a: Value, *, momentum: Share) -> Value:
    """The average x, which is what to evaluate with."""
    return w + (1 - 1 / momentum) * a


def averaged_adamw(w: Value, a: Value, *, beta1: Share) -> Value:
    """The average x, which is what to evaluate with."""
    return averaged_sgd(w, a, momentum=beta1)
