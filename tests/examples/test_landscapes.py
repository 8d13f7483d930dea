"""The landscapes: gradients by hand are right, marks are where they belong, and walks are drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path as File

import numpy as np
import pytest
from PIL import Image

from examples.landscapes.draw import COLOURS, even_shares
from examples.landscapes.functions import LANDSCAPES, Landscape, Point
from examples.landscapes.rates import OTHERS, RATES, TRIALS, rates
from examples.landscapes.run import Path
from examples.landscapes.sight import WORDS, seen, until_gone

CHECKOUT = File(__file__).resolve().parents[2]
TINY = 1e-30


@pytest.mark.parametrize("name", LANDSCAPES)
def test_gradients_by_hand_are_those_of_a_complex_step(name: str) -> None:
    landscape = LANDSCAPES[name]
    x, y = np.random.default_rng(5).uniform(-3, 3, (2, 50))
    by_hand = landscape.gradient(x, y)
    for got, (dx, dy) in zip(by_hand, ((TINY, 0), (0, TINY)), strict=True):
        expected = landscape.value(x + 1j * dx, y + 1j * dy).imag / TINY
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LANDSCAPES)
def test_marked_points_are_what_they_are_called(name: str) -> None:
    landscape = LANDSCAPES[name]
    for point in landscape.minima + landscape.saddles:
        assert np.hypot(*landscape.gradient(*point)) < 1e-3
        left, right, low, high = landscape.window
        assert left < point[0] < right and low < point[1] < high
    assert all((curvatures(landscape, point) > 0).all() for point in landscape.minima)
    for point in landscape.saddles:
        down, up = curvatures(landscape, point)
        assert down < 0 < up


def curvatures(landscape: Landscape, point: Point) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The second derivative's eigenvalues, by central differences of the gradient."""
    h = 1e-6
    columns = []
    for dx, dy in ((h, 0.0), (0.0, h)):
        ahead, behind = (landscape.gradient(point[0] + s * dx, point[1] + s * dy) for s in (1, -1))
        columns.append((np.array(ahead) - np.array(behind)) / (2 * h))
    return np.linalg.eigvalsh(np.array(columns))


@pytest.mark.parametrize("name", LANDSCAPES)
def test_every_rule_has_learning_rates_that_grow(name: str) -> None:
    for rule in (*RATES, "a rule of tomorrow"):
        small, right, large, noisy = rates(rule, LANDSCAPES[name], 0.01).values()
        assert 0 < small < right < large and noisy == right
    assert rates("a rule of tomorrow", LANDSCAPES[name], 0.01)["right"] == OTHERS.right * 0.01


def path(*points: Point, trial: str = "right") -> Path:
    return Path("sgd", trial, 0.1, np.array(points))


RAVINE, SADDLE = LANDSCAPES["ravine"], LANDSCAPES["saddle"]


@pytest.mark.parametrize(
    ("landscape", "walked", "word"),
    [
        (RAVINE, path((-9, 3), (-5, 1), (0.1, 0)), "arrives"),
        (RAVINE, path((-9, 3), (0, 0), (5, 0), (0, 0)), "overshoots, then arrives"),
        (RAVINE, path((-9, 3), (-8, 2), (-7, 1)), "on its way"),
        (RAVINE, path(*[(-9.0, 3.0 * (-1) ** n) for n in range(20)]), "swings"),
        (RAVINE, path(*[(-9.0, 3.0 * (-1) ** n) for n in range(20)], trial=TRIALS[3]), "on its way"),
        (RAVINE, path((-9, 3), (0, 0), (5, 0), (0, 0), trial=TRIALS[3]), "arrives"),
        (RAVINE, path((-9, 3), (-9, -30)), "leaves the map"),
        (SADDLE, path((-1.2, 0), (0, 0)), "stays at the saddle"),
        (SADDLE, path((-1.2, 0), (0, 0.1), (0, 5)), "finds the way down"),
        (SADDLE, path((-1.2, 0), (5, 9)), "leaves the map"),
    ],
)
def test_what_is_seen_of_a_path(landscape: Landscape, walked: Path, word: str) -> None:
    assert word in WORDS
    assert seen(landscape, walked) == word


def test_a_path_is_drawn_until_it_leaves_for_good() -> None:
    assert len(until_gone(RAVINE, path((0, 0), (0, 99), (0, 0)))) == 3
    assert len(until_gone(RAVINE, path((0, 0), (0, 99), (0, 0), (0, 99)))) == 2


def test_rules_walk_through_a_live_service_and_are_drawn(tmp_path: File) -> None:
    command = [sys.executable, "-m", "examples.landscapes", "saddle", "--rules", "sgd", "adam"]
    command += ["--steps", "5", "--dpi", "40", "--out", str(tmp_path)]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=90, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{tmp_path / 'saddle.png'}: {2 * len(TRIALS)} paths" in ran.stdout
    with Image.open(tmp_path / "saddle.png") as picture:
        assert picture.width > 2 * picture.height > 200


@pytest.mark.parametrize("count", [1, 7, 8, 9, 25, 31, 40])
def test_rules_are_shared_out_evenly_and_each_is_drawn_once(count: int) -> None:
    rules = [f"rule {number}" for number in range(count)]
    shares = even_shares(rules)
    sizes = [len(share) for share in shares]
    assert [rule for share in shares for rule in share] == rules
    assert max(sizes) <= len(COLOURS) and max(sizes) - min(sizes) <= 1
