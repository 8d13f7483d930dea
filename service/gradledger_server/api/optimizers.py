"""/v1/optimizers: the catalogue of rules, derived from the rules themselves."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from gradledger_server.api import documents, responses
from gradledger_server.api.problems import responses as problems
from gradledger_server.errors import RuleNotFound
from gradledger_server.optim import catalog, guide

router = APIRouter(tags=["optimizers"])


@router.get("/v1/optimizers", responses=documents.OPTIMIZERS)
async def list_optimizers() -> Response:
    """Every rule: hyperparameters with their bounds, presets, equation, slots, paper."""
    return responses.json({"optimizers": [guide.describe(name) for name in catalog.RULES]})


@router.get("/v1/optimizers/{rule}", responses=documents.OPTIMIZER | problems(404))
async def describe_optimizer(rule: str) -> Response:
    """One rule."""
    if rule not in catalog.RULES:
        raise RuleNotFound(f"there is no rule {rule[:80]!r}", known=list(catalog.RULES))
    return responses.json(guide.describe(rule))
