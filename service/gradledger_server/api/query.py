"""What a query may say. What nobody reads is refused: `?wiew=ema` would be answered with other weights."""

from __future__ import annotations

from fastapi import Depends, Request

from gradledger_server.errors import Invalid, MalformedRequest
from gradledger_server.optim.expansion import meant


def told(request: Request) -> dict[str, str]:
    """The query's fields. Raises MalformedRequest for one that is given twice."""
    fields: dict[str, str] = {}
    for name, text in request.query_params.multi_items():
        if name in fields:
            raise MalformedRequest(f"{name[:80]!r} stands in the query twice", hint="Say it once.")
        fields[name] = text
    return fields


def read(request: Request, *known: str) -> dict[str, str]:
    """The same, all of them known. Raises Invalid for the first that is not, MalformedRequest."""
    for name in request.query_params:
        if name not in known:
            takes = f"known are {', '.join(known)}" if known else "this path takes none"
            raise Invalid(
                f"query: field {name[:80]} is not known; {takes}",
                hint=meant(name, known) or "Remove it.",
                field=name[:80],
            )
    return told(request)


async def _nothing(request: Request) -> None:
    read(request)


async def _a_stretch(request: Request) -> None:
    read(request, "after", "limit")


NO_QUERY = Depends(_nothing)
STRETCH = Depends(_a_stretch)  # of a list
