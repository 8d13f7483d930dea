"""The landscapes: functions of two variables with their gradients by hand.

Each takes x and y as floats or arrays of one shape; a gradient answers (df/dx, df/dy) of that shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Point = tuple[float, float]
Value = Any  # a float, or an array, complex ones included: what arithmetic works on


@dataclass(frozen=True, slots=True)
class Landscape:
    """A function with where to look, where to start and what is to be found.

    `curvature` is about the largest second derivative on the way from `start`: it sets the scale of learning
    rates that multiply a gradient. `noise` is the deviation of the noise added to gradients in one of the
    trials.
    """

    name: str
    title: str
    lesson: str
    value: Callable[[Value, Value], Value]
    gradient: Callable[[Value, Value], tuple[Value, Value]]
    window: tuple[float, float, float, float]  # from and to in x, from and to in y
    start: Point
    curvature: float
    noise: float
    steps: int
    minima: tuple[Point, ...] = ()
    saddles: tuple[Point, ...] = ()

    @property
    def width(self) -> float:
        return self.window[1] - self.window[0]


def beale(x: Value, y: Value) -> Value:
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def beale_gradient(x: Value, y: Value) -> tuple[Value, Value]:
    a, b, c = 1.5 - x + x * y, 2.25 - x + x * y**2, 2.625 - x + x * y**3
    return (
        2 * (a * (y - 1) + b * (y**2 - 1) + c * (y**3 - 1)),
        2 * x * (a + 2 * b * y + 3 * c * y**2),
    )


def rosenbrock(x: Value, y: Value) -> Value:
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def rosenbrock_gradient(x: Value, y: Value) -> tuple[Value, Value]:
    return -2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)


def himmelblau(x: Value, y: Value) -> Value:
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def himmelblau_gradient(x: Value, y: Value) -> tuple[Value, Value]:
    a, b = x**2 + y - 11, x + y**2 - 7
    return 4 * x * a + 2 * b, 2 * a + 4 * y * b


def ravine(x: Value, y: Value) -> Value:
    return x**2 / 2 + 50 * y**2 / 2


def ravine_gradient(x: Value, y: Value) -> tuple[Value, Value]:
    return x, 50 * y


def saddle(x: Value, y: Value) -> Value:
    return x**2 - y**2


def saddle_gradient(x: Value, y: Value) -> tuple[Value, Value]:
    return 2 * x, -2 * y


LANDSCAPES = {
    landscape.name: landscape
    for landscape in (
        Landscape(
            "beale",
            "Beale: a flat valley between steep walls",
            "Nearly flat around its saddle, with walls that soon grow very steep: where the gradient sets "
            "the step, it is tiny in the middle and huge at the rim.",
            beale,
            beale_gradient,
            window=(-4.5, 4.5, -4.5, 4.5),
            start=(-1.0, -1.0),
            curvature=200.0,
            noise=2.0,
            steps=400,
            minima=((3.0, 0.5),),
            saddles=((0.0, 1.0),),
        ),
        Landscape(
            "rosenbrock",
            "Rosenbrock: a curved valley",
            "The floor of the valley is found at once; walking along it is the work. What gathers speed, or "
            "gives every direction its own step, turns the corner.",
            rosenbrock,
            rosenbrock_gradient,
            window=(-2.0, 2.0, -1.0, 3.0),
            start=(-1.2, 1.0),
            curvature=1300.0,
            noise=5.0,
            steps=1000,
            minima=((1.0, 1.0),),
        ),
        Landscape(
            "himmelblau",
            "Himmelblau: four minima",
            "All four minima are equally deep. Which one is found depends on the rule, on its learning rate "
            "and on chance, not on the function alone.",
            himmelblau,
            himmelblau_gradient,
            window=(-5.5, 5.5, -5.5, 5.5),
            start=(0.0, -1.0),
            curvature=90.0,
            noise=25.0,
            steps=200,
            minima=((3.0, 2.0), (-2.805118, 3.131312), (-3.77931, -3.283186), (3.584428, -1.848126)),
            saddles=(
                (0.086678, 2.884255),
                (3.385154, 0.073852),
                (-3.073026, -0.081353),
                (-0.127961, -1.953715),
            ),
        ),
        Landscape(
            "ravine",
            "A ravine: fifty times steeper across than along",
            "A learning rate that suits the slope across is too small along the floor; one that suits the "
            "floor bounces between the walls. Momentum adds up what stays and cancels what alternates.",
            ravine,
            ravine_gradient,
            window=(-10.5, 10.5, -5.25, 5.25),
            start=(-9.0, 3.0),
            curvature=50.0,
            noise=8.0,
            steps=200,
            minima=((0.0, 0.0),),
        ),
        Landscape(
            "saddle",
            "A saddle: x² − y²",
            "From the ridge the gradient points to the saddle point and says next to nothing of the way "
            "down. Steps that do not shrink with the gradient leave first; noise helps all the others.",
            saddle,
            saddle_gradient,
            window=(-1.5, 1.5, -1.5, 1.5),
            start=(-1.2, 1e-7),
            curvature=2.0,
            noise=0.3,
            steps=20,
            saddles=((0.0, 0.0),),
        ),
    )
}
