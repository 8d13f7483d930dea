"""docs/settings.md, from the settings: `python -m tools.settings_page` writes it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from gradledger_server.cli import serve
from gradledger_server.settings import Settings, option, variable
from tools.markdown import number, table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
UNITS = {"s": "seconds", "bytes": "bytes"}  # by the last part of the name

INTRODUCTION = """\
# Settings

The service reads its settings once, when it starts: an option of `gradledger serve` goes before its
variable in the environment, and that before the default. An empty variable counts as none.
`gradledger doctor` takes the options that say where to listen, to store and to compute;
`gradledger healthcheck` reads the variables of host and port.

This page is generated from the code.
"""


def page() -> str:
    """The whole page."""
    header = ("option", "variable", "default", "unit", "meaning")
    return f"{INTRODUCTION}\n{table(header, _rows())}\n"


def _rows() -> Iterator[tuple[str, ...]]:
    options = inspect.signature(serve).parameters
    for name, its in Settings.model_fields.items():
        yield (
            f"`{option(name)}`" if name in options else "",
            f"`{variable(name)}`",
            "" if its.default is None else f"`{_shown(its.default)}`",
            UNITS.get(name.rpartition("_")[2], ""),
            its.description or "",
        )


def _shown(default: object) -> str:
    whole = isinstance(default, int) and not isinstance(default, bool)
    return str(default) if whole else number(default)


if __name__ == "__main__":
    PAGE.write_text(page())
