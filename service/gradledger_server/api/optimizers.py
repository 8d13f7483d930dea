"""/v1/optimizers: the catalogue of rules, derived from the rules themselves."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from gradledger_server.api import documents, responses
from gradledger_server.api.problems import responses as problems
from gradledger_server.api.query import NO_QUERY
from gradledger_server.optim import catalog, guide

router = APIRouter(tags=["optimizers"], dependencies=[NO_QUERY])


@router.get("/v1/optimizers", responses=documents.OPTIMIZERS | problems(422))
async def list_optimizers() -> Response:
    """Every rule: equation, slots, hyperparameters with their bounds, presets, paper, when to use it."""
    return responses.json({"optimizers": [guide.describe(name) for name in catalog.RULES]})


@router.get("/v1/optimizers/{rule}", responses=documents.OPTIMIZER | problems(404, 422))
async def describe_optimizer(rule: str) -> Response:
    """One rule."""
    return responses.json(guide.describe(rule))
