"""The golden stories: the ledger's semantics, told and held. See teller.py for the language.

After a change that is meant, `GRADLEDGER_REWRITE_TRACES=1 pytest tests/traces` writes the new endings; the
diff is what is reviewed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.traces.teller import retell

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_the_story_still_ends_like_this(story: Path) -> None:
    told = retell(story)
    if os.environ.get("GRADLEDGER_REWRITE_TRACES"):
        story.write_text(told)
    assert told == story.read_text()


def test_there_are_stories() -> None:
    assert len(STORIES) >= 6


def test_a_story_with_another_ending_is_noticed(tmp_path: Path) -> None:
    story = tmp_path / "wrong.txt"
    story.write_text("create w=[1 1] rule=sgd lr=0.5\n----\noffset 1  step 0  w=[1 2]\n")
    assert retell(story) == "create w=[1 1] rule=sgd lr=0.5\n----\noffset 1  step 0  w=[1 1]\n"
