"""The benchmarks run, on tiny sizes, so that they never rot. The figures are nobody's concern here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import FAMILIES, USUAL, page_of
from benchmarks.measure import Figure, Report, Samples, take_turns
from benchmarks.table import into_page, render, summary

# The others train for half a minute, or need what only `make bench` installs.
QUICK = [family for family in USUAL if family != "baselines"]
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """What one run of all the quick families printed, and what it left where results go."""

    output: str
    left: dict[str, Path]
    reports: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    results = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "benchmarks", *QUICK, "--quick", "--results", str(results)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    left = {path.suffix: path for path in results.iterdir()}
    reports = json.loads(left[".json"].read_text())["reports"]
    return Ran(done.stdout, left, {report["family"]: report for report in reports})


@pytest.mark.timeout(420)  # whichever of them comes first waits for the run
@pytest.mark.parametrize("family", QUICK)
def test_a_family_measures_something(family: str, ran: Ran) -> None:
    report = ran.reports[family]
    assert report["figures"] or report["grids"]
    for figure in report["figures"]:
        assert figure["case"] in ran.output
        _require_positive(figure)
    for grid in report["grids"]:
        assert grid["rows"] and all(len(row) == len(grid["columns"]) for row in grid["rows"])
        assert all(cell in ran.output for row in grid["rows"] for cell in row)


@pytest.mark.timeout(420)
def test_samples_and_a_picture_are_kept_and_the_data_directories_are_gone(ran: Ran) -> None:
    assert list(ran.reports) == QUICK
    assert sorted(ran.left) == [".json", ".png"]


def _require_positive(figure: dict[str, Any]) -> None:
    for name in ("amount", "limit_amount", "ratio"):
        assert math.isfinite(figure[name]), figure
        assert figure[name] > 0, figure


def test_every_family_has_its_place_in_a_page() -> None:
    for family in FAMILIES:
        page = page_of(family).read_text()
        assert page.count(f"<!-- figures: {family} -->") == 1, family


def test_a_ratio_is_formed_within_a_turn() -> None:
    # The machine became ten times slower halfway, and the case takes twice its limit all along.
    samples = Samples({"case": [2.0, 2.0, 20.0, 20.0, 20.0], "limit": [1.0, 1.0, 10.0, 10.0, 10.0]})
    assert samples.ratio("case", "limit") == 2.0
    assert samples.ratio("case", "limit", "limit") == 1.0
    assert samples.median("case", "limit") == 30.0


def test_cases_take_turns() -> None:
    calls = []

    def case(name: str) -> float:
        calls.append(name)
        return 1.0

    samples = take_turns({"a": lambda: case("a"), "b": lambda: case("b")}, 2, warmups=1, row=2)
    assert calls == ["a", "b", *["a", "a", "b", "b"] * 2]
    assert samples.seconds == {"a": [1.0] * 4, "b": [1.0] * 4}


def test_a_table_goes_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marks = "<!-- figures: {} -->\n{}<!-- end of figures -->\n"
    page.write_text("before\n" + marks.format("x", "old\n") + "after\n" + marks.format("y", ""))
    report = Report("x", "X", [Figure("a push", 0.2, "the socket", 0.1, 2.5, goal=2.0)], ["A note."])
    into_page(page, report, {"cores": "2"}, date(2026, 11, 22))
    written = page.read_text()
    assert written.startswith("before\n<!-- figures: x -->\n\n| case")
    assert "old" not in written
    assert "A note.\n\nMade on 2026-11-22: cores 2.\n\n<!-- end of figures -->\nafter\n" in written
    assert written.endswith("<!-- figures: y -->\n<!-- end of figures -->\n")
    into_page(page, report, {"cores": "2"}, date(2026, 11, 22))
    assert page.read_text() == written
    with pytest.raises(ValueError, match="expected one"):
        into_page(page, Report("z", "Z"), {}, date(2026, 11, 22))


def test_the_summary_has_every_goal_and_of_many_the_one_that_is_nearest_to_a_miss() -> None:
    few, many, none = Report("few", "Few"), Report("many", "Many"), Report("none", "None")
    few.figures += [Figure("judged", 2.0, "l", 1.0, 2.0, goal=1.5), Figure("not judged", 2.0, "l", 1.0, 2.0)]
    many.figures += [Figure(f"case {i}", 1.0, "l", 1.0, i / 10, goal=1.0 + (i == 19)) for i in range(20)]
    none.figures.append(Figure("another program", 2.0, "l", 1.0, 2.0))
    cases = [line.split("|")[1].strip() for line in summary([few, many, none]).splitlines()[2:]]
    assert cases == ["judged", "Many, the slowest of 20: case 18", "another program"]


def test_a_missed_goal_says_so_and_a_rate_is_a_rate() -> None:
    report = Report("x", "X")
    report.figures += [
        Figure("slow", 0.2, "limit", 0.1, 2.0, goal=1.5),
        Figure("fast", 2e-4, "limit", 1e-4, 2.0, goal=2.0),
        Figure("rate", 0.5, "limit", 0.25, 2.0, nbytes=10**9),
        Figure("requests", 0.5, "limit", 0.25, 2.0, requests=1000),
        Figure("memory", 3 << 30, "limit", 2 << 30, 1.5, unit="bytes"),
    ]
    slow, fast, rate, requests, memory = render(report).splitlines()[2:]
    assert "200.0 ms" in slow
    assert "≤ 1.5 (missed)" in slow
    assert "200 µs" in fast
    assert "missed" not in fast
    assert "2.00 GB/s" in rate
    assert "4.00 GB/s" in rate
    assert "2,000 /s" in requests and "4,000 /s" in requests
    assert "3,072 MiB" in memory and "2,048 MiB" in memory
