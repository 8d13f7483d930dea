"""The page about settings: committed as the settings are now, and whole."""

from __future__ import annotations

from gradledger_server.settings import Settings, variable
from tools.settings_page import PAGE, page


def test_the_committed_page_is_this_one() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_it_has_every_setting() -> None:
    text = page()
    for name, its in Settings.model_fields.items():
        assert its.description and f" | `{variable(name)}` | " in text
    assert "| `--port` | `GRADLEDGER_PORT` | `8000` |  | Port" in text
    assert "|  | `GRADLEDGER_STALL_S` | `30` | seconds | An" in text
    assert "|  | `GRADLEDGER_MAX_JSON_BYTES` | `8388608` | bytes | No" in text
