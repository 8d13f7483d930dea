"""The demonstration in order: start, train, kill, go on, compare."""

from __future__ import annotations

import queue
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex

from rich.console import Console
from rich.live import Live

from gradledger import Client, GradledgerError, Model
from gradledger_server.demo import digits, plot, worker
from gradledger_server.demo.processes import Crew, DemoFailed, Service, interrupt_on_terminate
from gradledger_server.demo.progress import Tally

WORKERS = 4
ACCURACY_PROMISED = 0.96
LOOK_EVERY_S = 0.5
OPTIMIZER = {"rule": "adam", "lr": 4e-3}
SCHEDULE = {"name": "exponential_decay", "decay_rate": 0.3, "decay_steps": 700}


def tell(*, seconds: float, plot: Path, data_dir: Path | None, epochs: int) -> int:
    """The whole demonstration; answers the exit code and says why if it is not 0."""
    console = Console()
    interrupt_on_terminate()
    try:
        with _directory(data_dir) as place:
            _play(console, place, plot, time.monotonic() + seconds, epochs)
    except (DemoFailed, GradledgerError, OSError) as error:
        console.print(f"[bold red]The demo failed:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything was stopped.")
        return 130
    return 0


def _play(console: Console, place: Path, picture: Path, ends_at: float, epochs: int) -> None:
    train, test = digits.load()
    tally = Tally(WORKERS * epochs * worker.pushes_per_epoch(len(train.y), WORKERS))
    with ExitStack() as cleanup:
        service = Service(place, place / "service.log")
        cleanup.callback(service.stop)
        service.start()
        console.print(
            f"The service is up at {service.url}; {WORKERS} workers train on {len(train.y)} images."
        )
        client = cleanup.enter_context(Client(service.url, timeout_s=10, retry_for_s=20))
        model = client.create(f"digits-{token_hex(3)}", digits.initial(), OPTIMIZER, schedule=SCHEDULE)
        crew = Crew(worker.__name__, worker.options(service.url, model.name, WORKERS, epochs), place)
        cleanup.callback(crew.dismiss)
        with Live(tally, console=console, refresh_per_second=8, transient=True):
            _train(console, tally, crew, service, model, test, ends_at)
            tally.accuracy = digits.accuracy(model.pull(), test)
        console.print(tally)
        _compare(console, tally, int(model.describe()["step"]))
    assert tally.killed_at is not None
    plot.draw(tally.losses, tally.killed_at, picture)
    console.print(f"The loss curve is in {picture}.")


def _train(
    console: Console,
    tally: Tally,
    crew: Crew,
    service: Service,
    model: Model,
    test: digits.Images,
    ends_at: float,
) -> None:
    looked_at = 0.0
    while not (crew.done() and crew.told.empty()):
        if time.monotonic() > ends_at:
            raise DemoFailed(
                f"{len(tally.acknowledged)} of {tally.expected} pushes were done when time was up"
            )
        try:
            tally.add(crew.told.get(timeout=0.1))
        except queue.Empty:
            continue
        if tally.killed_at is None and 2 * len(tally.acknowledged) >= tally.expected:
            _kill(console, tally, service)
        if time.monotonic() > looked_at + LOOK_EVERY_S:
            tally.accuracy = digits.accuracy(model.pull(), test)
            looked_at = time.monotonic()


def _kill(console: Console, tally: Tally, service: Service) -> None:
    """The crash. The workers are told nothing: each keeps repeating its push until it is answered."""
    tally.killed_at = max(step for step, _ in tally.losses)
    tally.service = "killed"
    service.kill()
    console.print(f"Step {tally.killed_at}: the service was killed (SIGKILL).")
    killed = time.monotonic()
    service.start()
    tally.service = "up"
    console.print(f"It is up again after {time.monotonic() - killed:.1f} s, on the same data.")


def _compare(console: Console, tally: Tally, applied: int) -> None:
    """What was promised beside what came out. Raises DemoFailed where they differ."""
    acknowledged = len(tally.acknowledged)
    console.print(
        f"Test accuracy {tally.accuracy:.4f}; {acknowledged} pushes acknowledged, {applied} applied "
        f"({tally.replayed} of them sent again after a lost answer)."
    )
    if acknowledged != applied:
        raise DemoFailed(f"{acknowledged} pushes were acknowledged, but {applied} were applied")
    if acknowledged != tally.expected:
        raise DemoFailed(f"{acknowledged} pushes were acknowledged; expected {tally.expected}")
    if tally.accuracy < ACCURACY_PROMISED:
        raise DemoFailed(f"the test accuracy is {tally.accuracy:.4f}; expected at least {ACCURACY_PROMISED}")


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="gradledger-demo-", ignore_cleanup_errors=True) as made:
        yield Path(made)
