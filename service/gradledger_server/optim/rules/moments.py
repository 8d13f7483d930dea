"""Running means of the gradient and of its square: Adam and what was made of it."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from gradledger_server.kernels.operations import Value, maximum, on_host, power, ratio, sqrt, where
from gradledger_server.optim.hyperparameters import Decay, NonNegative, Rate, Threshold

EpsRef = Literal["corrected", "raw"]


def unbiased(mean: Value, beta: float, t: int, bias_correction: bool = True) -> Value:
    """A running mean that started at 0, divided by the weight its terms have by now."""
    return mean / (1 - beta**t) if bias_correction else mean


def root(
    v: Value, beta2: float, t: int, eps: float, eps_root: float, eps_ref: EpsRef, bias_correction: bool = True
) -> Value:
    """The root of a mean of squares, with eps added to it after its bias is corrected, or before (raw)."""
    if eps_ref == "corrected":
        return sqrt(unbiased(v, beta2, t, bias_correction) + eps_root) + eps
    raw = sqrt(v + eps_root) + eps
    return raw / sqrt(1 - beta2**t) if bias_correction else raw


def adam(
    w: Value,
    g: Value,
    m: Value,
    v: Value,
    *,
    t: int,
    lr: Rate = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    eps_ref: EpsRef = "corrected",
    bias_correction: bool = True,
) -> tuple[Value, Value, Value]:
    """Adam. Kingma & Ba 2015, Adam: A Method for Stochastic Optimization, Algorithm 1.

    Use: the safe first choice: steps of about `lr` whatever the gradient's scale. For regularised networks
    prefer adamw; for images a tuned momentum often generalises better.

    Rows: lazy differs from dense: both means of a row that gets no gradient would decay, and the row would go
    on moving for a while.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = unbiased(m, beta1, t, bias_correction)
    return w - lr * m_hat / root(v, beta2, t, eps, eps_root, eps_ref, bias_correction), m, v


def adamw(
    w: Value,
    g: Value,
    m: Value,
    v: Value,
    *,
    t: int,
    base_lr: float,
    lr: Rate = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    eps_ref: EpsRef = "corrected",
    weight_decay: NonNegative = 1e-2,
    weight_decay_mode: Literal["decoupled", "decoupled_abs"] = "decoupled",
) -> tuple[Value, Value, Value]:
    """Adam with decoupled weight decay. Loshchilov & Hutter 2019, Decoupled Weight Decay, Algorithm 2.

    Use: transformers, and whenever Adam meets weight decay: the decay is not divided by the gradient's size,
    so `lr` and `weight_decay` can be tuned apart.

    Rows: lazy differs from dense: both means of a row that gets no gradient would decay, and its weights
    shrink.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = unbiased(m, beta1, t)
    pull = weight_decay * (lr if weight_decay_mode == "decoupled" else lr / base_lr)
    return w - lr * m_hat / root(v, beta2, t, eps, eps_root, eps_ref) - pull * w, m, v


def amsgrad(
    w: Value,
    g: Value,
    m: Value,
    v: Value,
    p: Value,
    *,
    t: int,
    lr: Rate = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    eps_ref: EpsRef = "corrected",
    max_ref: Literal["raw", "corrected"] = "raw",
    bias_correction: bool = True,
) -> tuple[Value, Value, Value, Value]:
    """Adam that never forgets a large gradient. Reddi, Kale & Kumar 2018, On the Convergence of Adam.

    The paper has no epsilon, so what an untouched element divides by may be 0.

    Use: where Adam fails to settle because rare large gradients are forgotten: the denominator never shrinks.
    In practice it seldom differs much from Adam, and costs one slot more.

    Rows: lazy differs from dense: both means of a row that gets no gradient would decay, and the row would go
    on moving for a while.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = unbiased(m, beta1, t, bias_correction)
    if max_ref == "corrected":
        p = maximum(p, unbiased(v, beta2, t, bias_correction))
        return w - lr * ratio(m_hat, sqrt(p + eps_root) + eps), m, v, p
    p = maximum(p, v)
    return w - lr * ratio(m_hat, root(p, beta2, t, eps, eps_root, eps_ref, bias_correction)), m, v, p


def adamax(
    w: Value,
    g: Value,
    m: Value,
    p: Value,
    *,
    t: int,
    lr: Rate = 2e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_in: Literal["norm", "denominator"] = "norm",
) -> tuple[Value, Value, Value]:
    """Adam with the largest gradient for a root. Kingma & Ba 2015, Adam, Algorithm 2.

    The paper has no epsilon, so what an untouched element divides by may be 0.

    Use: gradients with rare very large elements, such as embeddings: one outlier scales the step, its square
    does not. Otherwise like Adam.

    Rows: lazy differs from dense: mean and maximum of a row that gets no gradient would decay.
    """
    inside, outside = (eps, 0.0) if eps_in == "norm" else (0.0, eps)
    m = beta1 * m + (1 - beta1) * g
    p = maximum(beta2 * p, abs(g) + inside)
    return w - lr * ratio(unbiased(m, beta1, t), p + outside), m, p


def nadam(
    w: Value,
    g: Value,
    m: Value,
    v: Value,
    *,
    t: int,
    lr: Rate = 2e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    eps_ref: EpsRef = "corrected",
    momentum_form: Literal["decay", "constant", "tf"] = "decay",
    momentum_decay: NonNegative = 4e-3,
) -> tuple[Value, Value, Value]:
    """Adam with Nesterov momentum. Dozat 2016, Incorporating Nesterov Momentum into Adam, Algorithm 2.

    Use: Adam with Nesterov's look-ahead: a little faster where momentum helps, with the same settings as
    Adam.

    Rows: lazy differs from dense: both means of a row that gets no gradient would decay, and the row would go
    on moving for a while.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    if momentum_form == "tf":
        ahead = unbiased(beta1 * m + (1 - beta1) * g, beta1, t)
    else:
        now, after, product = beta1, beta1, beta1**t
        if momentum_form == "decay":
            now, after = (momentum_at(s, beta1, momentum_decay) for s in (t, t + 1))
            product = momentum_product(t, beta1, momentum_decay)
        ahead = after * m / (1 - product * after) + (1 - now) * g / (1 - product)
    return w - lr * ahead / root(v, beta2, t, eps, eps_root, eps_ref), m, v


@on_host(r"\mu_{{{0}}}", r"\mu_t = \beta_1 \left(1 - \frac{1}{2} 0.96^{t \psi}\right)")
def momentum_at(t: float, beta1: float, momentum_decay: float) -> float:
    """Nadam's momentum at update t, which approaches beta1."""
    return beta1 * (1 - 0.5 * power(0.96, t * momentum_decay))


@on_host(r"\bar\mu_{{{0}}}", r"\bar\mu_t = \prod_{i=1}^{t} \mu_i")
def momentum_product(t: float, beta1: float, momentum_decay: float) -> float:
    """The product of Nadam's momenta of the updates 1 to t, multiplied in that order."""
    products = _momentum_products(beta1, momentum_decay)
    return products[min(int(t), len(products) - 1)] * power(beta1, max(0.0, t - len(products) + 1))


@lru_cache(maxsize=64)
def _momentum_products(beta1: float, momentum_decay: float) -> tuple[float, ...]:
    """The products after 0, 1, 2 … updates, until they are too small to count or the momenta are beta1.

    At most some 15,000: with little decay the products vanish, with much the momenta are soon beta1.
    """
    products, missing = [1.0], 0.5
    while products[-1] > 2.0**-60 and missing > 2.0**-54:
        missing = 0.5 * power(0.96, len(products) * momentum_decay)
        products.append(products[-1] * (beta1 * (1 - missing)))
    return tuple(products)


def radam(
    w: Value,
    g: Value,
    m: Value,
    v: Value,
    *,
    t: int,
    lr: Rate = 1e-3,
    beta1: Decay = 0.9,
    beta2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    eps_ref: EpsRef = "raw",
    threshold: Threshold = 5.0,
    threshold_strict: bool = True,
) -> tuple[Value, Value, Value]:
    """Adam that trusts v only once it can. Liu et al. 2020, On the Variance of the Adaptive Learning Rate.

    Use: Adam without a warm-up: while too few gradients were seen to trust their mean square, it steps with
    momentum alone.

    Rows: lazy differs from dense: both means of a row that gets no gradient would decay, and the row would go
    on moving for a while.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    length = window(t, beta2)
    trusted = length > threshold if threshold_strict else length >= threshold
    rectified = rectification(t, beta2) / root(v, beta2, t, eps, eps_root, eps_ref)
    return w - lr * unbiased(m, beta1, t) * where(trusted, rectified, 1.0), m, v


@on_host(r"\rho_{{{0}}}", r"\rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}")
def window(t: float, beta2: float) -> float:
    """How many gradients v is a mean of, more or less."""
    kept = power(beta2, t)
    return longest_window(beta2) - 2 * t * kept / (1 - kept)


@on_host(
    "r_t",
    r"r_t = \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}},"
    r" \quad \rho_\infty = \frac{2}{1 - \beta_2} - 1",
)
def rectification(t: float, beta2: float) -> float:
    """How much the variance of 1/sqrt(v) exceeds that of a full window; NaN while it cannot be told."""
    length, longest = window(t, beta2), longest_window(beta2)
    least = (longest - 4) * (longest - 2) / longest
    return float(sqrt((length - 4) * (length - 2) / length / least))  # type: ignore[arg-type]


def longest_window(beta2: float) -> float:
    return 2 / (1 - beta2) - 1
