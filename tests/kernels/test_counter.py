"""Numbers by position: the published sequence, the right distribution, the same bits in any order."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from gradledger_server.kernels import counter

PLACES = np.arange(100_000, dtype=np.uint64)


def digest(numbers: NDArray[np.generic]) -> str:
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


def test_words_are_the_published_splitmix64() -> None:
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert counter.words(1234567, PLACES[:5]).tolist() == published


def test_the_bits_are_these_on_every_machine() -> None:
    key = counter.key(7, *b"emb")
    assert digest(counter.words(key, PLACES)) == "b5240b94dc8ddd56"
    assert digest(counter.uniform(key, PLACES)) == "c583412de127e7a4"
    assert digest(counter.normal(key, PLACES)) == "9b44b4d0d968fb1e"


@pytest.mark.parametrize("draw", [counter.words, counter.uniform, counter.normal])
def test_the_order_of_asking_does_not_matter(draw: object) -> None:
    assert callable(draw)
    order = np.random.default_rng(0).permutation(PLACES.size)
    assert draw(3, PLACES)[order].tobytes() == draw(3, PLACES[order]).tobytes()
    assert draw(3, PLACES[10:13])[1] == draw(3, PLACES[11:12])[0]
    assert draw(3, PLACES.reshape(100, -1))[7, 5] == draw(3, PLACES[7005:7006])[0]


def test_keys_differ_by_every_number_and_their_order() -> None:
    keys = [
        counter.key(*numbers) for numbers in [(0,), (1,), (0, 0), (0, 1), (1, 0), (2**64 - 1,), (0, 0, 0)]
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**64 for key in keys)


def test_uniform_is_never_an_end_and_fills_the_interval() -> None:
    drawn = counter.uniform(5, np.arange(1_000_000, dtype=np.uint64))
    assert drawn.min() > 0
    assert drawn.max() < 1
    counts, _ = np.histogram(drawn, 64, (0, 1))
    assert np.abs(counts / drawn.size * 64 - 1).max() < 0.05


def test_normal_has_the_right_moments() -> None:
    drawn = counter.normal(5, np.arange(1_000_000, dtype=np.uint64))
    assert drawn.mean() == pytest.approx(0, abs=4e-3)
    assert drawn.var() == pytest.approx(1, abs=6e-3)
    assert (drawn**3).mean() == pytest.approx(0, abs=1.6e-2)
    assert (drawn**4).mean() == pytest.approx(3, abs=4e-2)


def test_neighbouring_places_and_keys_have_nothing_to_do_with_each_other() -> None:
    places = np.arange(200_000, dtype=np.uint64)
    one, other = counter.normal(counter.key(1), places), counter.normal(counter.key(2), places)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.01
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.01


def test_the_quantile_is_the_standard_librarys() -> None:
    generator = np.random.default_rng(1)
    far = 10.0 ** -generator.uniform(0, 300, 3000)
    p = np.concatenate([generator.uniform(0, 1, 5000), far, 1 - far[far > 1e-15]])
    p = p[(p > 0) & (p < 1)]
    expected = np.array([NormalDist().inv_cdf(float(each)) for each in p])
    np.testing.assert_allclose(counter.quantile(p), expected, rtol=2e-15)
    assert counter.quantile(np.array([0.5]))[0] == 0.0
    assert counter.quantile(np.array([0.975]))[0] == pytest.approx(1.959963984540054, rel=1e-15)
    assert math.copysign(1, counter.quantile(np.array([1e-3]))[0]) == -1


def test_the_distribution_is_normal_also_in_its_tails() -> None:
    """Kolmogorov and Smirnov's largest distance, which stays below 1.95/sqrt(n) 999 times in 1000."""
    many = 1 << 20
    drawn = counter.normal(counter.key(20150722, 5), np.arange(many, dtype=np.uint64))
    at = np.linspace(-4, 4, 801)
    found = np.searchsorted(np.sort(drawn), at) / many
    expected = np.array([NormalDist().cdf(float(x)) for x in at])
    assert np.max(np.abs(found - expected)) < 1.95 / np.sqrt(many)
    for edge in (2.0, 3.0, 4.0):
        beyond = 2 * NormalDist().cdf(-edge) * many
        assert abs(np.sum(np.abs(drawn) > edge) - beyond) < 4 * np.sqrt(beyond)


DIGEST = """
import hashlib, numpy as np
from gradledger_server.kernels import counter
drawn = counter.normal(counter.key(7, 3, 1), np.arange(5, 200_005, dtype=np.uint64))
print(hashlib.sha256(drawn.tobytes()).hexdigest())
"""


def test_other_processors_features_do_not_change_the_bits() -> None:
    config = np.show_config(mode="dicts")
    assert config is not None
    if not (found := config["SIMD Extensions"].get("found", [])):
        pytest.skip("this NumPy has no optional CPU features to switch off")
    plain = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    told = {
        subprocess.run([sys.executable, "-c", DIGEST], env=env, capture_output=True, check=True).stdout
        for env in (plain, plain | {"NPY_DISABLE_CPU_FEATURES": " ".join(found)})
    }
    assert len(told) == 1
