"""The network of the demonstration: its gradient is the slope of its loss."""

from __future__ import annotations

import numpy as np
import pytest

from gradledger_server.demo import digits


def test_the_split_is_always_the_same_and_shares_cover_it() -> None:
    train, test = digits.load()
    again, _ = digits.load()
    np.testing.assert_array_equal(train.x, again.x)
    assert (train.x.shape, test.x.shape) == ((1438, 64), (359, 64))
    assert train.x.dtype == np.float32
    assert 0 <= train.x.min() < train.x.max() == 1
    shares = [train.every(4, first) for first in range(4)]
    np.testing.assert_array_equal(
        np.sort(np.concatenate([share.x for share in shares]), axis=0), np.sort(train.x, axis=0)
    )


@pytest.mark.parametrize("name", list(digits.initial()))
def test_the_gradient_agrees_with_finite_differences(name: str) -> None:
    train, _ = digits.load()
    batch = digits.Images(train.x[:16].astype(np.float64), train.y[:16])
    params = {key: value.astype(np.float64) for key, value in digits.initial(seed=3).items()}
    params["hidden.bias"] += 0.05
    _, grads = digits.gradient(params, batch)
    flat = params[name].reshape(-1)
    places = np.random.default_rng(0).choice(flat.size, min(30, flat.size), replace=False)
    for place in places:
        kept, h = flat[place], 1e-6
        flat[place] = kept + h
        above, _ = digits.gradient(params, batch)
        flat[place] = kept - h
        below, _ = digits.gradient(params, batch)
        flat[place] = kept
        assert grads[name].reshape(-1)[place] == pytest.approx((above - below) / (2 * h), rel=1e-5, abs=1e-8)


def test_gradients_keep_the_parameters_names_shapes_and_dtype() -> None:
    train, test = digits.load()
    params = digits.initial()
    loss, grads = digits.gradient(dict(params), train)
    assert loss == pytest.approx(np.log(10), rel=0.5)
    assert {name: (g.shape, g.dtype) for name, g in grads.items()} == {
        name: (w.shape, w.dtype) for name, w in params.items()
    }
    assert 0 <= digits.accuracy(dict(params), test) < 0.3
