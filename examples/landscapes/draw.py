"""Contours, paths and captions as PNGs: small ones, with a palette of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from pathlib import Path as File
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from examples.landscapes.functions import Landscape
from examples.landscapes.rates import TRIALS
from examples.landscapes.run import Path
from examples.landscapes.sight import WORDS, seen, until_gone

COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#00a0a8", "#8c564b", "#e377c2")
GRID_POINTS = 240
PALETTE_COLOURS = 256
LEVELS = 17
LOWEST_SHARE = 0.01  # of the map lies below the lowest level
LOW, HIGH = "#9fb8d6", "#fbf9f2"
GROUND = LinearSegmentedColormap.from_list("ground", (LOW, HIGH))


def picture(landscape: Landscape, paths: Sequence[Path], to: File, *, columns: int, dpi: int) -> None:
    """Draws a panel for each trial; more rules than there are colours make more rows of panels.

    `columns` is 2 or 4: how many of the four trials stand beside each other.
    """
    shares = even_shares(list(dict.fromkeys(path.rule for path in paths)))
    height = 4.6 * (len(TRIALS) // columns) * len(shares) + 1.0
    figure = Figure(figsize=(4.4 * columns, height), dpi=dpi, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    parts = figure.subfigures(len(shares), 1, squeeze=False).ravel()
    for part, share in zip(parts, shares, strict=True):
        panels = part.subplots(len(TRIALS) // columns, columns, squeeze=False).ravel()
        for panel, trial in zip(panels, TRIALS, strict=True):
            shown = [path for rule in share for path in paths if (path.rule, path.trial) == (rule, trial)]
            _panel(panel, landscape, shown, trial)
        named = zip(share, COLOURS, strict=False)
        keys = [Line2D([], [], color=colour, lw=2.5, label=rule) for rule, colour in named]
        part.legend(handles=keys, loc="outside upper center", ncols=2 * columns, frameon=False, fontsize=10)
    figure.suptitle(landscape.title, fontsize=15, fontweight="bold")
    figure.supxlabel(fill(landscape.lesson, 34 * columns), fontsize=10.5, style="italic")
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    few = Image.fromarray(drawn).convert("RGB")
    to.parent.mkdir(parents=True, exist_ok=True)
    few.quantize(PALETTE_COLOURS, Image.Quantize.FASTOCTREE).save(to, optimize=True)


def even_shares(rules: Sequence[str]) -> list[Sequence[str]]:
    """As few rows of panels as the colours allow, with about as many rules in each."""
    rows = -(-len(rules) // len(COLOURS))
    cuts = [round(row * len(rules) / rows) for row in range(rows + 1)]
    return [rules[start:stop] for start, stop in pairwise(cuts)]


def _panel(axes: Axes, landscape: Landscape, paths: Sequence[Path], trial: str) -> None:
    _ground(axes, landscape)
    for path, colour in zip(paths, COLOURS, strict=False):
        visible = until_gone(landscape, path).T
        axes.plot(*visible, color="white", lw=2.6, alpha=0.5, solid_capstyle="round")
        axes.plot(*visible, color=colour, lw=1.3, solid_capstyle="round")
        axes.plot(*path.points[-1], "o", color=colour, ms=6, mec="white", mew=1.0, zorder=6)
    _marks(axes, landscape)
    axes.set_title(f"learning rate {trial}", fontsize=11, fontweight="bold")
    axes.set_xlabel(_caption(landscape, paths), fontsize=8.5, color="#333333")
    axes.set(xlim=landscape.window[:2], ylim=landscape.window[2:], xticks=[], yticks=[])
    axes.set_box_aspect(1)


def _ground(axes: Axes, landscape: Landscape) -> None:
    """The height as bands of colour between logarithmic levels, below zero as above it."""
    left, right, low, high = landscape.window
    x, y = np.meshgrid(np.linspace(left, right, GRID_POINTS), np.linspace(low, high, GRID_POINTS))
    z = landscape.value(x, y)
    levels = np.geomspace(np.quantile(np.abs(z), LOWEST_SHARE), z.max(), LEVELS)
    if z.min() < 0:
        levels = np.concatenate([-levels[::-2], [0.0], levels[::2]])
    norm = BoundaryNorm(levels, GROUND.N, extend="both")  # as much colour to each band
    axes.contourf(x, y, z, levels=levels, norm=norm, cmap=GROUND, extend="both")
    axes.contour(x, y, z, levels=levels, colors="#5b738c", linewidths=0.35, linestyles="solid")


def _marks(axes: Axes, landscape: Landscape) -> None:
    axes.plot(*landscape.start, "s", color="black", ms=6, mec="white", mew=1.0, zorder=7)
    for point in landscape.minima:
        axes.plot(*point, "*", color="#ffd92f", ms=15, mec="black", mew=0.8, zorder=5)
    for point in landscape.saddles:
        axes.plot(*point, "X", color="white", ms=8, mec="black", mew=0.8, zorder=5)


def _caption(landscape: Landscape, paths: Iterable[Path]) -> str:
    """What one sees, rules of the same fate together: `arrives: adam, rmsprop`."""
    told = sorted(((seen(landscape, path), path.rule) for path in paths), key=lambda one: WORDS.index(one[0]))
    fates = groupby(told, key=lambda one: one[0])
    return "\n".join(fill(f"{word}: {', '.join(rule for _, rule in rules)}", 62) for word, rules in fates)
