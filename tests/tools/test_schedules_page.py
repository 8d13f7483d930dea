"""The page about schedules: committed as the catalogue has it now."""

from __future__ import annotations

from tools.schedules_page import PAGE, page


def test_the_committed_page_is_this_one() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"
