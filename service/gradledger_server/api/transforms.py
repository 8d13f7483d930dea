"""/v1/transforms: what can happen to a gradient before its rule, in the order in which it happens."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from gradledger_server.api import documents, responses
from gradledger_server.api.problems import responses as problems
from gradledger_server.api.query import NO_QUERY
from gradledger_server.optim import guide
from gradledger_server.optim.transforms import TRANSFORMS

router = APIRouter(tags=["transforms"], dependencies=[NO_QUERY])


@router.get("/v1/transforms", responses=documents.TRANSFORMS | problems(422))
async def list_transforms() -> Response:
    """Every transform in the order in which they are applied: hyperparameters, equation, when to use it."""
    return responses.json({"transforms": [guide.describe_transform(name) for name in TRANSFORMS]})


@router.get("/v1/transforms/{name}", responses=documents.TRANSFORM | problems(404, 422))
async def describe_transform(name: str) -> Response:
    """One transform."""
    return responses.json(guide.describe_transform(name))
