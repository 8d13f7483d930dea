"""A report as a table that reads the same in a terminal and in a Markdown page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from benchmarks.measure import Figure, Report

COLUMNS = ("case", "measured", "limit", "ratio", "goal", "the limit is made of", "")
CROWD = 12  # as many goals of one family fill a table of all of them


def render(report: Report) -> str:
    """The tables and their notes."""
    figures = [grid(COLUMNS, [_cells(figure) for figure in report.figures])] if report.figures else []
    grids = [grid(each.columns, each.rows) for each in report.grids]
    return "\n\n".join([*figures, *grids, *report.notes])


def grid(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Rows of text as a Markdown table whose columns line up."""
    rows = [columns, *lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    head, *others = (
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )
    return "\n".join([head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *others])


def into_page(page: Path, report: Report, facts: Mapping[str, str], made_on: date) -> None:
    """Puts the table between the report's two marks. Raises ValueError if the page has none."""
    between_marks(page, report.family, render(report), facts, made_on)


def between_marks(page: Path, family: str, text: str, facts: Mapping[str, str], made_on: date) -> None:
    """Puts any text there, and what it was made on. Raises ValueError if the page has no such marks."""
    begin, end = f"<!-- figures: {family} -->", "<!-- end of figures -->"
    made = (
        f"Made on {made_on.isoformat()}: "
        + ", ".join(f"{name} {value}" for name, value in facts.items())
        + "."
    )
    written, count = re.subn(
        re.escape(begin) + ".*?" + re.escape(end),
        lambda _: f"{begin}\n\n{text}\n\n{made}\n\n{end}",
        page.read_text(),
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"{page.name} has {count} places between {begin!r} and {end!r}; expected one")
    page.write_text(written)


def judged(report: Report) -> list[Figure]:
    """The report's figures that have a goal; of a crowd of them the one that comes closest to missing it."""
    found = [figure for figure in report.figures if figure.goal]
    if len(found) <= CROWD:
        return found
    worst = max(found, key=lambda figure: figure.ratio / (figure.goal or 1))
    return [replace(worst, case=f"{report.title}, the slowest of {len(found)}: {worst.case}")]


def summary(reports: Iterable[Report]) -> str:
    """Every goal, met or missed, as one table; and families without goals, such as other programs."""
    figures = [figure for report in reports for figure in judged(report) or report.figures[:CROWD]]
    return grid(COLUMNS[:-1], [_cells(figure)[:-1] for figure in figures])


def _cells(figure: Figure) -> tuple[str, ...]:
    return (
        figure.case,
        _shown(figure, figure.amount),
        _shown(figure, figure.limit_amount),
        f"{figure.ratio:.2f}",
        "" if figure.goal is None else f"≤ {figure.goal}{'' if figure.ratio <= figure.goal else ' (missed)'}",
        figure.limit,
        figure.note,
    )


def _shown(figure: Figure, amount: float) -> str:
    if figure.unit == "bytes":
        return f"{amount / 2**20:,.0f} MiB"
    if figure.nbytes is not None:
        return f"{figure.nbytes / amount / 1e9:.2f} GB/s"
    if figure.requests is not None:
        return f"{figure.requests / amount:,.0f} /s"
    return f"{amount * 1e6:.0f} µs" if amount < 1e-3 else f"{amount * 1e3:.1f} ms"
