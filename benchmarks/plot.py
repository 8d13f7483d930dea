"""Every goal as a picture: how much of it each ratio takes up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Figure as Measured

MET, MISSED = "C0", "C3"


def draw(figures: Sequence[Measured], path: Path) -> None:
    """Writes a PNG with a bar for each figure, all of which have goals, in their order from the top."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = [figure.ratio / (figure.goal or 1.0) for figure in figures]
    picture = Figure(figsize=(10, 1.2 + 0.3 * len(figures)), layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    colours = [MET if part <= 1 else MISSED for part in parts]
    # The bars begin at 1, the goal: to the left what is faster than it, to the right what is slower.
    bars = axes.barh(range(len(parts)), [part - 1 for part in parts], left=1, color=colours)
    told = [f"{figure.ratio:.2f} of {figure.goal:g}" for figure in figures]
    axes.bar_label(bars, told, padding=3, fontsize=8)
    axes.axvline(1, color="0.3", linewidth=1)
    axes.set_yticks(range(len(figures)), [figure.case for figure in figures], fontsize=8)
    axes.set(
        xscale="log", xlabel="ratio ÷ goal", title="Measured beside the machine's limits: left of 1 is met"
    )
    axes.margins(x=0.15)
    axes.invert_yaxis()
    picture.savefig(path, dpi=120)
