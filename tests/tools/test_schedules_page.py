"""The page about schedules: committed as the catalogue has it now."""

from __future__ import annotations

import json
import re

import pytest

from gradledger_server.optim.schedules.catalog import SCHEDULES, settings_of
from tests.service import Service
from tools.schedules_page import PAGE, page

SETTINGS = {setting for name in SCHEDULES for setting in settings_of(name)}


def test_the_committed_page_is_this_one() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_setting_is_explained_by_one_that_its_schedule_lacks(name: str) -> None:
    own = settings_of(name)
    for setting in own.values():
        named = {word for word in re.findall(r"\w+_\w+", setting.meaning) if word in SETTINGS}
        assert named <= own.keys(), f"{setting.name}: {setting.meaning}"


@pytest.mark.parametrize("name", ["natural_exp_decay", "inverse_time_decay"])
def test_a_rate_that_may_be_zero_is_no_factor(name: str) -> None:
    rate, steps = settings_of(name)["decay_rate"], settings_of(name)["decay_steps"]
    assert rate.meaning.endswith("0: not at all")
    assert "shrinks by decay_rate" not in steps.meaning


def test_the_preview_it_shows_answers_as_many_rates_as_it_says(service: Service) -> None:
    (path,) = re.findall(r"`GET (/v1/schedules/\S+)`", page())
    assert path.endswith("points=20")
    answer = service.request("GET", path)
    assert answer.status == 200, answer.data
    assert len(json.loads(answer.data)["lr"]) == 20
