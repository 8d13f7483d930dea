"""The command `gradledger`: serve, demo, doctor. Start-up is the only place that reads the environment."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gradledger_server import __version__
from gradledger_server.errors import GradledgerError, WrongSetting
from gradledger_server.settings import Durability, LogLevel, Settings, Where, read

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _option(name: str) -> Any:
    """An option for the setting of this name, which says what the setting says of itself."""
    its = Settings.model_fields[name]
    return typer.Option(help=its.description, show_default=its.default is not None and str(its.default))


Host = Annotated[str | None, _option("host")]
Port = Annotated[int | None, _option("port")]
DataDir = Annotated[Path | None, _option("data_dir")]
RedisUrl = Annotated[str | None, _option("redis_url")]
Survives = Annotated[Durability | None, _option("durability")]
Device = Annotated[Where | None, _option("device")]
Workers = Annotated[int | None, _option("workers")]
Threads = Annotated[int | None, _option("threads")]
Threshold = Annotated[LogLevel | None, _option("log_level")]


def main() -> None:
    """Runs the command; a failure we understand is one sentence and its next move, not a traceback."""
    try:
        cli()
    except GradledgerError as error:
        typer.secho(f"gradledger: {error.detail}", fg="red", err=True)
        if error.advice:
            typer.echo(error.advice, err=True)
        sys.exit(2 if isinstance(error, WrongSetting) else 1)  # 2 is what any wrong use of the command is


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gradledger {__version__}")
        raise typer.Exit


@cli.callback()
def gradledger(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_tell_version, is_eager=True),
    ] = False,
) -> None:
    """A parameter server anyone can reach with HTTP: gradients in, parameters out."""


@cli.command()
def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    durability: Survives = None,
    device: Device = None,
    workers: Workers = None,
    threads: Threads = None,
    log_level: Threshold = None,
) -> None:
    """Starts the service. Every option is also GRADLEDGER_<OPTION> in the environment."""
    settings = read(**locals())
    from gradledger_server.server import run

    run(settings)


@cli.command(hidden=True)
def replica() -> None:
    """One of the processes of `serve --workers`; its parent tells it on stdin what it needs."""
    from gradledger_server.handover import Handover

    handover = Handover.receive(sys.stdin.buffer)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(handover.metrics_dir)  # read when its package is imported
    from gradledger_server.server import run_replica

    run_replica(handover)


@cli.command(hidden=True)
def gpu() -> None:
    """Exits 0 if a GPU can be used, else 1; `serve --workers` asks this before it starts them."""
    from gradledger_server.kernels.device import open_device

    open_device("gpu")


@cli.command()
def demo(
    seconds: Annotated[float, typer.Option(help="Give up after so many seconds.")] = 90.0,
    plot: Annotated[Path, typer.Option(help="Where the loss curve goes.")] = Path("demo-loss.png"),
) -> None:
    """Trains a classifier of handwritten digits with 4 workers, killing the service on the way."""
    from gradledger_server import demo as digits

    raise typer.Exit(digits.run(seconds=seconds, plot=plot))


@cli.command()
def doctor(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    durability: Survives = None,
    device: Device = None,
) -> None:
    """Checks what `serve` needs here, each with its fix; exits 1 if something is missing."""
    settings = read(**locals())
    from gradledger_server.doctor import examine

    findings = examine(settings)
    for finding in findings:
        mark = typer.style("ok  ", fg="green") if finding.ok else typer.style("FAIL", fg="red")
        typer.echo(f"{mark} {finding.subject}: {finding.found}")
        if not finding.ok:
            typer.echo(f"     {finding.fix}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@cli.command()
def healthcheck() -> None:
    """Exits 0 if the local service is ready; for containers."""
    settings = read()
    from gradledger_server.doctor import is_ready

    raise typer.Exit(0 if is_ready(settings.host, settings.port) else 1)


@cli.command()
def openapi() -> None:
    """Prints the OpenAPI document."""
    from gradledger_server.server import document

    typer.echo(json.dumps(document(), indent=2, sort_keys=True))
