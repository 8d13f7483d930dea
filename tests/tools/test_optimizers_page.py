"""The page about optimizers: committed as the catalogue has it now, and whole."""

from __future__ import annotations

import re

import pytest

from gradledger_server.optim import guide
from gradledger_server.optim.catalog import RULES
from gradledger_server.optim.presets import PRESETS
from gradledger_server.optim.transforms import TRANSFORMS
from tools.libraries import LIBRARIES
from tools.markdown import anchor, display, number, sentence, table
from tools.optimizers_page import PAGE, page


def test_the_committed_page_is_this_one() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_it_has_all_there_is() -> None:
    text = page()
    assert "<!--" not in text, "a mark was not filled"
    for rule in RULES:
        told = guide.describe(rule)
        assert f"\n### {rule}\n" in text
        assert sentence(told["use"]) in text and sentence(told["sparse"]["note"]) in text
        assert all(preset in text for preset in told["presets"])
    for name in TRANSFORMS:
        assert re.search(rf"\n### \d+\. {name}\n", text)


def test_every_link_leads_somewhere() -> None:
    text = page()
    headings = {anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("#"):
            assert link[1:] in headings, link
        else:
            assert (PAGE.parent / link).exists(), link


def test_mathematics_is_closed_and_survives_markdown() -> None:
    blocks = re.findall(r"^\$\$\n(.*?)\n\$\$$", page(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= len(RULES)
    for block in blocks:
        assert block.count("{") == block.count("}")
        assert block.count(r"\begin") == block.count(r"\end")
        assert r"\\" not in block and "$" not in block
        assert not re.search(r"\\[_*,;!#]", block), "Markdown takes such a backslash for its own"


def test_libraries_are_known_by_presets() -> None:
    assert LIBRARIES.keys() & PRESETS.keys()
    for library in LIBRARIES.values():
        assert library.title and library.beware and library.calls


def test_lines_within_an_equation_are_not_torn_apart() -> None:
    cases = r"v_t = \begin{cases} a & \text{if } b \\ c & \text{else} \end{cases}"
    assert display(rf"m_t = g_t \\ {cases}") == (
        "$$\n\\begin{aligned}\nm_t &= g_t \\cr\nv_t &= "
        "\\begin{cases} a & \\text{if } b \\cr c & \\text{else} \\end{cases}\n\\end{aligned}\n$$"
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [(1e-08, "1e-8"), (0.9, "0.9"), (0.0, "0"), (1e-10, "1e-10"), (True, "true"), ("copy", "copy")],
)
def test_numbers_are_written_as_people_do(value: object, written: str) -> None:
    assert number(value) == written


def test_bars_in_cells_are_escaped() -> None:
    assert table(("|g|",), [("1",)]) == "| \\|g\\| |\n| --- |\n| 1 |"
