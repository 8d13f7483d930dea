"""Aggregates against plain implementations, and against attackers."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from gradledger_server.kernels.reductions import sum_of_squares
from gradledger_server.machine.sync import aggregate
from gradledger_server.machine.sync.merge import Merge, expand_merge, merge

SIZES = (1, 5, aggregate.BLOCK - 1, aggregate.BLOCK, aggregate.BLOCK + 1)
DTYPES = (np.float32, np.float64)


def gradients(count: int, size: int, dtype: Any, seed: int = 1) -> list[Any]:
    return list(np.random.default_rng(seed).normal(size=(count, size)).astype(dtype))


def merged(name: str, given: list[Any], /, *, weights: list[float] | None = None, **settings: int) -> Any:
    how = Merge(**expand_merge("aggregate", {"name": name, **settings}))
    out = np.full_like(given[0], np.nan)
    merge(how, [given], weights or [1.0] * len(given), [out], sum_of_squares)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_plain_implementations_agree(count: int, size: int, dtype: Any) -> None:
    given, weights = gradients(count, size, dtype), [float(1 + i) for i in range(count)]
    stacked = np.stack(given).astype(np.float64)
    close: dict[str, Any] = {
        "rtol": 1e-5 if dtype == np.float32 else 1e-12,
        "atol": 1e-5 if dtype == np.float32 else 1e-12,
    }
    assert np.allclose(
        merged("mean", given, weights=weights), np.average(stacked, axis=0, weights=weights), **close
    )
    assert np.allclose(merged("sum", given, weights=weights), np.tensordot(weights, stacked, 1), **close)
    assert np.allclose(merged("median", given), np.median(stacked, axis=0), **close)
    trim = (count - 1) // 2
    inner = np.sort(stacked, axis=0)[trim : count - trim]
    assert np.allclose(merged("trimmed_mean", given, trim=trim), inner.mean(axis=0), **close)


def test_a_mean_of_equal_weights_is_the_sum_divided() -> None:
    a, b, c = gradients(3, 100, np.float32)
    assert merged("mean", [a, b, c]).tobytes() == (((a + b) + c) / np.float32(3)).tobytes()
    assert merged("mean", [a]).tobytes() == a.tobytes()


def test_sorting_aggregates_do_not_depend_on_the_order_even_in_the_sign_of_zero() -> None:
    rows = [*gradients(4, 64, np.float32), np.zeros(64, np.float32), -np.zeros(64, np.float32)]
    cases: list[tuple[str, dict[str, Any]]] = [("median", {}), ("trimmed_mean", {"trim": 1})]
    for name, settings in cases:
        results = {
            merged(name, list(order), **settings).tobytes() for order in list(permutations(rows))[::97]
        }
        assert len(results) == 1


def plain_krum(given: list[Any], attackers: int) -> list[int]:
    """Blanchard et al. 2017, section 4, spelt out: the pushes by their scores."""
    scores = []
    for i, one in enumerate(given):
        apart = sorted(float(((one - other) ** 2).sum()) for j, other in enumerate(given) if j != i)
        scores.append(sum(apart[: len(given) - attackers - 2]))
    return sorted(range(len(given)), key=lambda i: scores[i])


@pytest.mark.parametrize("seed", range(8))
def test_krum_chooses_as_the_paper_says(seed: int) -> None:
    given = gradients(9, 300, np.float64, seed)
    order = plain_krum(given, 2)
    assert merged("krum", given, attackers=2).tobytes() == given[order[0]].tobytes()
    kept = sorted(order[:4])
    expected = sum(given[i] for i in kept) / 4
    assert np.allclose(merged("multi_krum", given, attackers=2, keep=4), expected, rtol=1e-14)


@pytest.mark.parametrize("attack", ["sign flip", "noise", "huge"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("median", {}),
        ("trimmed_mean", {"trim": 3}),
        ("krum", {"attackers": 3}),
        ("multi_krum", {"attackers": 3, "keep": 4}),
    ],
)
def test_three_attackers_of_ten_do_not_turn_the_gradient(
    attack: str, name: str, settings: dict[str, Any]
) -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(size=500)
    honest = [truth + 0.1 * rng.normal(size=500) for _ in range(7)]
    evil = {
        "sign flip": [-5 * truth for _ in range(3)],
        "noise": [100 * rng.normal(size=500) for _ in range(3)],
        "huge": [np.full(500, 1e30) for _ in range(3)],
    }[attack]
    result = merged(name, [*evil, *honest], **settings)
    apart = np.linalg.norm(result - truth) / np.linalg.norm(truth)
    assert apart < 0.25, f"{name} is {apart:.2f} of the true gradient away under {attack}"
    spoilt = merged("mean", [*evil, *honest])
    assert np.linalg.norm(spoilt - truth) / np.linalg.norm(truth) > 1, "the attack does nothing to a mean"


def test_a_round_too_small_for_its_aggregate_takes_the_median() -> None:
    given = gradients(3, 50, np.float32)
    assert merged("krum", given, attackers=1).tobytes() == merged("median", given).tobytes()
    assert merged("trimmed_mean", given, trim=2).tobytes() == merged("median", given).tobytes()
