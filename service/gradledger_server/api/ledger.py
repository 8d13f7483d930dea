"""/v1/models/{model}/entries: what the log says happened."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from gradledger_server.api import documents, responses
from gradledger_server.api.context import ModelName, Served
from gradledger_server.api.problems import responses as problems
from gradledger_server.api.query import STRETCH
from gradledger_server.replica import Mailbox, listed

router = APIRouter(tags=["ledger"])


@router.get(
    "/v1/models/{model}/entries",
    dependencies=[STRETCH],
    responses=documents.ENTRIES | problems(400, 404, 422, 503),
)
async def entries(
    model: ModelName,
    served: Served,
    after: Annotated[int, Query(ge=0, lt=2**53, description="Only entries behind this offset.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100,
) -> Response:
    """The entries still in the log, oldest first: a snapshot replaces those before it."""

    async def work(mailbox: Mailbox) -> dict[str, Any]:
        entries, applied, saved = await mailbox.run(lambda hot: listed(hot, after, limit))
        more = bool(entries) and entries[-1]["offset"] < applied
        return {
            "entries": entries,
            "next_after": entries[-1]["offset"] if more else None,
            "offset": applied,
            "saved_offset": saved,
        }

    return responses.json(await served.replica.on(model, work))
