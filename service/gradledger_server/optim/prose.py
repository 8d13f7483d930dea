"""What the docstring of a rule, schedule or transform tells people, read by its paragraphs.

    Adam. Kingma & Ba 2015, Algorithm 1.       summary, then source
                                               (an empty line)
    Use: the safe first choice.                when to choose it
    Rows: lazy differs from dense: …           what a gradient for some rows means to it
    Anything else.                             a note, told as it stands

`Rows:` opens with one of three verdicts, so that programs can read it too. It speaks of weight decay 0: with
decay a row that got no gradient would shrink all the same.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ROWS_VERDICTS = {"lazy equals dense": True, "lazy differs from dense": False, "dense only": None}
_LABEL = re.compile(r"(Use|Rows): ")


@dataclass(frozen=True, slots=True)
class Prose:
    """The parts of a docstring; those it leaves out are empty."""

    summary: str
    source: str
    use: str = ""
    rows: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def lazy_equals_dense(self) -> bool | None:
        """Whether rows without a gradient would stay put anyway; None: the rule never sees rows alone.

        Raises ValueError if `rows` opens with no verdict.
        """
        for opening, verdict in ROWS_VERDICTS.items():
            if self.rows.startswith(opening):
                return verdict
        raise ValueError(f"Rows: {self.rows[:40]!r} opens with none of {', '.join(ROWS_VERDICTS)}")


def prose_of(function: Callable[..., Any]) -> Prose:
    """The parts of the function's docstring."""
    first, *others = [" ".join(part.split()) for part in _paragraphs(inspect.getdoc(function) or "")]
    summary, _, source = first.partition(". ")
    labelled = {match[1].lower(): text[match.end() :] for text in others if (match := _LABEL.match(text))}
    notes = tuple(text for text in others if not _LABEL.match(text))
    return Prose(summary.rstrip("."), source.rstrip("."), notes=notes, **labelled)


def _paragraphs(text: str) -> list[str]:
    """Parted by empty lines; a label opens a paragraph of its own."""
    return re.split(r"\n\s*\n|\n(?=(?:Use|Rows): )", text)
