"""The command `gradledger`: serve, demo, doctor. Start-up is the only place that reads the environment."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gradledger_server.errors import GradledgerError
from gradledger_server.settings import Durability, Settings

cli = typer.Typer(
    help="A parameter server anyone can reach with HTTP: gradients in, parameters out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Runs the command; a failure we understand is one sentence and its next move, not a traceback."""
    try:
        cli()
    except GradledgerError as error:
        typer.secho(f"gradledger: {error.detail}", fg="red", err=True)
        if error.advice:
            typer.echo(error.advice, err=True)
        sys.exit(1)


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the embedded Valkey keeps its files.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="An external Redis >= 7.0 or Valkey >= 7.2.")] = None,
    durability: Annotated[Durability | None, typer.Option(help="What the log must survive.")] = None,
    device: Annotated[Literal["auto", "cpu", "gpu"] | None, typer.Option(help="Where to compute.")] = None,
    workers: Annotated[int | None, typer.Option(help="Service processes behind the one port.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Kernel threads of a process; default its share of the cores.")
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="Log threshold.")
    ] = None,
) -> None:
    """Starts the service. Every option is also GRADLEDGER_<OPTION> in the environment."""
    from gradledger_server.server import run

    options: dict[str, Any] = {name: value for name, value in locals().items() if name != "run"}
    run(Settings(**{name: value for name, value in options.items() if value is not None}))


@cli.command(hidden=True)
def replica() -> None:
    """One of the processes of `serve --workers`; its parent tells it on stdin what it needs."""
    from gradledger_server.handover import Handover

    handover = Handover.receive(sys.stdin.buffer)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(handover.metrics_dir)  # read when its package is imported
    from gradledger_server.server import run_replica

    run_replica(handover)


@cli.command()
def demo(
    seconds: Annotated[float, typer.Option(help="Give up after so many seconds.")] = 90.0,
    plot: Annotated[Path, typer.Option(help="Where the loss curve goes.")] = Path("demo-loss.png"),
) -> None:
    """Trains a classifier of handwritten digits with 4 workers, killing the service on the way."""
    from gradledger_server import demo as digits

    raise typer.Exit(digits.run(seconds=seconds, plot=plot))


@cli.command()
def doctor() -> None:
    """Checks what the service needs here, each with its fix; exits 1 if something is missing."""
    from gradledger_server.doctor import examine

    findings = examine(Settings())
    for finding in findings:
        mark = typer.style("ok  ", fg="green") if finding.ok else typer.style("FAIL", fg="red")
        typer.echo(f"{mark} {finding.subject}: {finding.found}")
        if not finding.ok:
            typer.echo(f"     {finding.fix}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@cli.command()
def healthcheck() -> None:
    """Exits 0 if the local service is ready; for containers."""
    from gradledger_server.doctor import is_ready

    settings = Settings()
    raise typer.Exit(0 if is_ready(settings.port) else 1)


@cli.command()
def openapi() -> None:
    """Prints the OpenAPI document."""
    from gradledger_server.server import document

    typer.echo(json.dumps(document(), indent=2, sort_keys=True))
