"""`python -m examples.diloco`: trains both ways through a live service, and compares loss and bytes.

Exits with 1 if DiLoCo does not come to the loss that data parallelism ended with, or saves fewer bytes than
promised.
"""

from __future__ import annotations

import argparse
import queue
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.diloco import plot, worker
from examples.diloco.recipe import BATCH, FEWER, WAYS, WORKERS, Way
from examples.diloco.tally import Point, Tally
from examples.diloco.transformer import LENGTH
from gradledger_server.demo.processes import Crew, DemoFailed, Service, interrupt_on_terminate

MB = 1e6
ROWS = 14  # of the table, at most, for each way


def main(arguments: Sequence[str]) -> int:
    """Trains, tells, draws; answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.diloco", description=__doc__)
    parser.add_argument("--plot", type=Path, default=Path("diloco.png"), help="the picture")
    parser.add_argument("--looks", type=int, default=1000, help="end after so many looks at the loss")
    parser.add_argument("--seconds", type=float, default=1200, help="give up after so long")
    options = parser.parse_args(arguments)
    console = Console()
    interrupt_on_terminate()
    try:
        ways = {name: way.shorter(options.looks) for name, way in WAYS.items()}
        tallies = _train(console, ways, time.monotonic() + options.seconds)
        plot.draw(tallies, options.plot)
        console.print(_table(tallies), f"The picture is {options.plot}.", highlight=False)
        _judge(console, *tallies)
    except (DemoFailed, OSError) as error:
        console.print(f"[bold red]Failed:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything was stopped.")
        return 130
    return 0


def _train(console: Console, ways: Mapping[str, Way], ends_at: float) -> list[Tally]:
    columns = (TextColumn("{task.description:>14}"), BarColumn(), TextColumn("{task.fields[seen]}"))
    with ExitStack() as cleanup:
        place = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="diloco-")))
        service = Service(place / "data", place / "service.log", "--durability", "memory")
        cleanup.callback(service.stop)
        service.start()
        console.print(f"The service is up at {service.url}; {WORKERS} workers train a transformer, twice.")
        progress = cleanup.enter_context(Progress(*columns, TimeElapsedColumn(), console=console))
        return [_one_way(name, way, service.url, place, progress, ends_at) for name, way in ways.items()]


def _one_way(name: str, way: Way, url: str, place: Path, progress: Progress, ends_at: float) -> Tally:
    tally = Tally(way)
    bar = progress.add_task(way.name, total=way.steps, seen="")
    crew = Crew(worker.__name__, worker.options(url, name, way.steps), place)
    try:
        while not (crew.done() and crew.told.empty()):
            if time.monotonic() > ends_at:
                raise DemoFailed(
                    f"{tally.way.name} was at step {tally.step} of {tally.way.steps} when time was up"
                )
            try:
                tally.add(crew.told.get(timeout=0.1))
            except queue.Empty:
                continue
            progress.update(bar, completed=tally.step, seen=_seen(tally))
    finally:
        crew.dismiss()
    return tally


def _seen(tally: Tally) -> str:
    if not tally.points:
        return ""
    return f"loss {tally.points[-1].loss:.3f}, {tally.points[-1].sent_bytes / MB:.1f} MB sent"


def _table(tallies: Sequence[Tally]) -> Table:
    table = Table(title="Bytes are those of all workers at their sockets, HTTP heads and heartbeats included")
    for heading in ("", "loss", "steps", "characters", "MB sent", "MB received"):
        table.add_column(heading, justify="right")
    for tally in tallies:
        rows = -(-len(tally.points) // ROWS)
        shown = tally.points[::-rows][::-1]  # the last one is among them
        for point in shown:
            table.add_row(*_row(tally.way, point))
        table.add_section()
    return table


def _row(way: Way, point: Point) -> tuple[str, ...]:
    characters = point.step * WORKERS * BATCH * LENGTH
    sent, received = (f"{each / MB:.2f}" for each in (point.sent_bytes, point.received_bytes))
    return way.name, f"{point.loss:.4f}", f"{point.step}", f"{characters:,}", sent, received


def _judge(console: Console, parallel: Tally, diloco: Tally) -> None:
    """Raises DemoFailed unless the promise was kept."""
    end = parallel.points[-1]
    reached = diloco.reached(end.loss)
    if reached is None:
        best = min(point.loss for point in diloco.points)
        raise DemoFailed(f"DiLoCo came to a loss of {best:.4f}; data parallelism ended with {end.loss:.4f}")
    fewer, both = end.sent_bytes / reached.sent_bytes, end.both_bytes / reached.both_bytes
    console.print(
        f"DiLoCo came to {reached.loss:.4f} with {fewer:.0f} times fewer bytes sent ({both:.0f} times "
        f"fewer both ways) than data parallelism, which ended with {end.loss:.4f}. It "
        f"made {reached.step} steps, that one {end.step}: local steps cost no bytes.",
        highlight=False,
    )
    if fewer < FEWER:
        raise DemoFailed(f"{fewer:.1f} times fewer bytes were sent; promised were {FEWER}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
