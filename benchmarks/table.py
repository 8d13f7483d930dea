"""A report as a table that reads the same in a terminal and in a Markdown page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from benchmarks.measure import Figure, Report

COLUMNS = ("case", "measured", "limit", "ratio", "goal", "the limit is made of", "")


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


def _cells(figure: Figure) -> tuple[str, ...]:
    return (
        figure.case,
        _amount(figure.seconds, figure.nbytes),
        _amount(figure.limit_seconds, figure.nbytes),
        f"{figure.ratio:.2f}",
        "" if figure.goal is None else f"≤ {figure.goal}{'' if figure.ratio <= figure.goal else ' (missed)'}",
        figure.limit,
        figure.note,
    )


def _amount(seconds: float, nbytes: int | None) -> str:
    if nbytes is not None:
        return f"{nbytes / seconds / 1e9:.2f} GB/s"
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"
