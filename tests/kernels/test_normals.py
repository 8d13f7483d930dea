"""Normal numbers from a counter: right, good, and the same bits everywhere."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest

from gradledger_server.kernels import normals
from gradledger_server.kernels.normals import Numbers

MANY = 1 << 20
DIGEST = "import hashlib; from gradledger_server.kernels.normals import standard_normal as z; " + (
    "print(hashlib.sha256(z((7, 3), 1, 5, 200_000).tobytes()).hexdigest())"
)


@pytest.fixture(scope="module")
def drawn() -> Numbers:
    return normals.standard_normal((20150722, 5), 0, 0, MANY)


def test_the_inverse_is_right_to_float64_even_in_the_tails() -> None:
    even = (np.arange(20_000) + 0.5) / 20_000
    tails = 2.0 ** -np.arange(2.0, 54.0)
    edges = np.array([0.075, 0.925, 0.5, np.nextafter(0.075, 0), 1.3887943864964e-11, 1 - 2.0**-53])
    u = np.concatenate([even, tails, edges])
    expected = np.array([NormalDist().inv_cdf(float(p)) for p in u])
    assert np.max(np.abs(normals.inverse(u) - expected) / np.maximum(1, np.abs(expected))) < 1e-15


def test_uniforms_keep_off_the_ends_and_are_symmetric() -> None:
    ends = normals.uniform(np.array([0, 2**64 - 1], np.uint64))
    assert ends.tolist() == [2.0**-53, 1 - 2.0**-53]
    assert normals.inverse(ends).tolist() == [-normals.inverse(ends)[1], normals.inverse(ends)[1]]


def test_moments_are_those_of_a_normal_distribution(drawn: Numbers) -> None:
    """Each within four of its own standard errors."""
    root = np.sqrt(MANY)
    for power, moment, deviation in (
        (1, 0, 1),
        (2, 1, 2**0.5),
        (3, 0, 15**0.5),
        (4, 3, 96**0.5),
        (6, 15, 10170**0.5),
    ):
        assert abs(np.mean(drawn**power) - moment) < 4 * deviation / root, power


def test_the_distribution_is_normal(drawn: Numbers) -> None:
    """Kolmogorov and Smirnov's largest distance, which stays below 1.95/sqrt(n) 999 times in 1000."""
    at = np.linspace(-4, 4, 801)
    found = np.searchsorted(np.sort(drawn), at) / MANY
    expected = np.array([NormalDist().cdf(float(x)) for x in at])
    assert np.max(np.abs(found - expected)) < 1.95 / np.sqrt(MANY)


def test_the_tails_are_as_heavy_as_they_should_be(drawn: Numbers) -> None:
    for edge in (2.0, 3.0, 4.0):
        expected = 2 * NormalDist().cdf(-edge) * MANY
        assert abs(np.sum(np.abs(drawn) > edge) - expected) < 4 * np.sqrt(expected)


def test_neighbours_entries_and_streams_have_nothing_to_do_with_each_other(drawn: Numbers) -> None:
    others = [
        np.roll(drawn, 1),
        np.roll(drawn, 4),
        normals.standard_normal((20150722, 6), 0, 0, MANY),
        normals.standard_normal((20150723, 5), 0, 0, MANY),
        normals.standard_normal((20150722, 5), 1, 0, MANY),
    ]
    for other in others:
        assert abs(np.mean(drawn * other)) < 4 / np.sqrt(MANY)


@pytest.mark.parametrize(
    ("start", "count"), [(0, 1), (1, 7), (3, 4), (1023, 5000), (16383, 2), (16384, 16384), (9, 0)]
)
def test_a_number_depends_on_its_place_alone(drawn: Numbers, start: int, count: int) -> None:
    part = normals.standard_normal((20150722, 5), 0, start, count)
    assert part.tobytes() == drawn[start : start + count].tobytes()


def test_the_bits_are_what_they_always_were() -> None:
    """Logs hold entries that were applied with these numbers: they may never change."""
    told = [number.hex() for number in normals.standard_normal((1, 2), 3, 1_000_000, 4)]
    assert told == [
        "-0x1.3d4d0f29ef570p-1",
        "0x1.933fda9abc5f4p+0",
        "0x1.46b37ef79da0ep+0",
        "-0x1.631179250a552p+0",
    ]


def test_other_processors_features_do_not_change_the_bits() -> None:
    config = np.show_config(mode="dicts")
    assert config is not None
    found = config["SIMD Extensions"].get("found", [])
    if not found:
        pytest.skip("this NumPy has no optional CPU features to switch off")
    environment = dict(
        os.environ, NPY_DISABLE_CPU_FEATURES=" ".join(found), PYTHONPATH=os.pathsep.join(sys.path)
    )
    told = subprocess.run(
        [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
    )
    here = normals.standard_normal((7, 3), 1, 5, 200_000)
    assert told.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()
