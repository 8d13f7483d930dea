"""The loss curve as a picture, with the kill marked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SMOOTHED_STEPS = 50


def draw(losses: list[tuple[int, float]], killed_at: int, path: Path) -> None:
    """Writes a PNG of loss by step to `path`; `killed_at` is the step at which the service was killed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps, values = np.array(sorted(losses)).T
    window = min(SMOOTHED_STEPS, len(values))
    smooth = np.convolve(values, np.full(window, 1 / window), mode="valid")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, values, ".", color="0.8", markersize=3, label="each push")
    axes.plot(steps[window // 2 :][: len(smooth)], smooth, color="C0", label=f"mean of {window}")
    axes.axvline(killed_at, color="C3", linestyle="--", label="service killed (SIGKILL) and started again")
    axes.set(
        yscale="log", xlabel="step", ylabel="training loss", title="Four workers, one service, one crash"
    )
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
