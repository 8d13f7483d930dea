"""The loss by bytes, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from examples.diloco.tally import Tally

MB = 1e6


def draw(tallies: Sequence[Tally], path: Path) -> None:
    """Writes a PNG: validation loss against the bytes that all workers sent, and that went either way."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for colour, tally in zip(("C3", "C0"), tallies, strict=False):
        losses = [point.loss for point in tally.points]
        sent, both = (
            [getattr(point, f"{which}_bytes") / MB for point in tally.points] for which in ("sent", "both")
        )
        axes.plot(sent, losses, "o-", color=colour, markersize=3, label=f"{tally.way.name}, sent")
        axes.plot(both, losses, ":", color=colour, label=f"{tally.way.name}, both ways")
    axes.axhline(tallies[0].points[-1].loss, color="0.6", linewidth=0.8)
    axes.set(
        xscale="log", xlabel="MB of all workers, on the wire", ylabel="validation loss (nats per character)"
    )
    axes.set_title("A character transformer, four workers, one service")
    axes.legend()
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
