"""`python -m benchmarks [family…]`: measures, prints tables, keeps every sample as JSON, draws the goals."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks import facts, plot, table
from benchmarks.measure import Plan, Report

USUAL = (
    "dense",
    "compressed",
    "tensors",
    "small",
    "sizes",
    "throughput",
    "workers",
    "fanout",
    "unchanged",
    "sparse",
    "kernel",
    "rules",
    "snapshots",
    "recovery",
    "memory",
    "models",
    "client",
    "baselines",
)
LONG = ("history", "modes")  # measured only when named: they take minutes
FAMILIES = USUAL + LONG
HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the families one after the other; they would disturb each other."""
    options = _parser().parse_args(arguments)
    if options.write_docs and options.quick:
        raise SystemExit("--quick gives no figures worth writing down: leave out one of the two.")
    options.results.mkdir(parents=True, exist_ok=True)
    now, machine = datetime.now(UTC), facts.machine()
    reports = []
    for family in options.families or USUAL:
        report = measure(family, options.results, quick=options.quick)
        reports.append(report)
        print(f"\n{report.title}\n\n{table.render(report)}", flush=True)
        if options.write_docs:
            table.into_page(page_of(family), report, machine, now.date())
    print(f"\nAll together\n\n{table.summary(reports)}", flush=True)
    path = options.results / f"{now:%Y%m%dT%H%M%SZ}.json"
    kept = {"made_at": now.isoformat(), "quick": options.quick, "machine": machine}
    path.write_text(json.dumps(kept | {"reports": [asdict(report) for report in reports]}, indent=1))
    print(f"\nEvery sample: {path.name}")
    if judged := [figure for report in reports for figure in table.judged(report)]:
        plot.draw(judged, path.with_suffix(".png"))
        print(f"Ratios beside goals: {path.stem}.png")


def page_of(family: str) -> Path:
    """Where its figures are explained."""
    return DOCS / ("modes.md" if family == "modes" else "performance.md")


def measure(family: str, near: Path, *, quick: bool) -> Report:
    """One family's report. Its services keep their data in `near`, so its disk is the one measured."""
    with tempfile.TemporaryDirectory(prefix="d", dir=near) as directory:
        report: Report = import_module(f"benchmarks.{family}").run(Plan(quick, Path(directory)))
    return report


def _family(name: str) -> str:
    if name not in FAMILIES:
        raise argparse.ArgumentTypeError(f"got {name!r}, expected one of {', '.join(FAMILIES)}")
    return name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("families", nargs="*", type=_family, metavar="family", help=", ".join(FAMILIES))
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: finds out whether it works, nothing else"
    )
    parser.add_argument("--write-docs", action="store_true", help="put the tables into the pages of docs/")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where JSON and data go")
    return parser


if __name__ == "__main__":
    main()
